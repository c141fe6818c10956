from datetime import date, timedelta

import numpy as np

from m2m_model.data.features import fit_inputs
from m2m_model.data.panel import Panel
from m2m_model.data.served_by import (
    eligible,
)
from m2m_model.data.spec import SequenceSpec
from m2m_model.data.statistics import PanelStatistics
from m2m_model.data.targets import targets_Nm


def test_statistics_add_up_over_panels(make_table, spec: SequenceSpec, last_day: date) -> None:
    table = make_table()
    whole = PanelStatistics.of(Panel.from_sequences(table, spec, last_day, 120), last_day)
    halves = [
        PanelStatistics.of(Panel.from_sequences(part, spec, last_day, 120), last_day)
        for part in (table[:25], table[25:])
    ]
    together = halves[0] + halves[1]
    np.testing.assert_array_equal(whole.value_counts, together.value_counts)
    assert whole.scenario_counts == together.scenario_counts
    assert whole.target_count == together.target_count
    np.testing.assert_allclose(whole.target_sum_M, together.target_sum_M)


def test_task_scale_is_the_mean_total_of_eligible_series(panel: Panel, last_day: date) -> None:
    totals = [targets_Nm(panel, c)[eligible(panel, c)] for c in range(panel.days - 8, -1, -7)]
    expected = np.concatenate(totals).mean(0)
    np.testing.assert_allclose(fit_inputs(PanelStatistics.of(panel, last_day)).target_scales, expected, rtol=1e-5)


def test_statistics_stop_at_train_end(panel: Panel, changed, last_day: date) -> None:
    end = last_day - timedelta(days=40)

    def enormous(performance_NTP: np.ndarray, _: np.ndarray) -> None:
        performance_NTP[:, -40:] = 1e9

    later = changed(enormous)
    assert fit_inputs(PanelStatistics.of(panel, end)) == fit_inputs(PanelStatistics.of(later, end))


def test_vocabulary_keeps_the_most_frequent(panel: Panel, last_day: date) -> None:
    statistics = PanelStatistics.of(panel, last_day)
    statistics.scenario_counts.update({f"rare{i:04d}": 1 for i in range(2000)})
    inputs = fit_inputs(statistics)
    assert len(inputs.scenarios) == 1000
    assert set(inputs.scenarios[:2]) == {"search", "feed"}
