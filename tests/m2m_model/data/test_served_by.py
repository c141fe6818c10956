from datetime import date, timedelta

import numpy as np

from m2m_model.data.panel import Panel
from m2m_model.data.served_by import (
    COLD_START,
    NETWORK,
    NOBODY,
    SILENT,
    eligible,
    history_days,
    served_by,
    trainable_NT,
)
from m2m_model.data.spec import SequenceSpec


def test_without_registration_date_the_first_row_counts(spec: SequenceSpec, one_series) -> None:
    day = date(2024, 3, 10)
    panel = Panel.from_sequences(one_series(None, {day: 2.0}), spec, day + timedelta(days=1), 5)
    assert panel.registered_N.tolist() == [3]
    empty = Panel.from_sequences(one_series(None, {}), spec, day, 5)
    assert not eligible(empty, 4).any()
    assert (served_by(empty, 4) == NOBODY).all()


def test_who_serves_changes_at_the_edges(spec: SequenceSpec, one_series) -> None:
    """One row on the first day: the rule for a week, the network while the row is recent, then silence."""
    day = date(2024, 3, 1)
    table = one_series(day, {day: 1.0})
    for early in (0, 1, 40):  # days of the panel before the registration
        panel = Panel.from_sequences(table, spec, day + timedelta(days=40), 41 + early)
        served = [int(served_by(panel, early + c)[0]) for c in (0, 5, 6, 27, 28, 40)]
        assert served == [COLD_START, COLD_START, NETWORK, NETWORK, SILENT, SILENT]
        assert [served_by(panel, d)[0] for d in range(early)] == [NOBODY] * early


def test_trainable_agrees_with_eligible_and_age(panel: Panel) -> None:
    mask_NT = trainable_NT(panel, 100, 14)
    for cutoff in (0, 12, 13, 27, 28, 55, 100):
        age_N = np.minimum(history_days(panel, cutoff), cutoff + 1)
        assert (mask_NT[:, cutoff] == (eligible(panel, cutoff) & (age_N >= 14))).all()
    assert not mask_NT[:, 101:].any()
