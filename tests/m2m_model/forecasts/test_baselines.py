from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
from statsforecast.models import TSB

from m2m_model.data.panel import Panel
from m2m_model.data.spec import SequenceSpec, daily_totals
from m2m_model.forecasts import baselines

EPOCH = date(1970, 1, 1)


def spend_on(row: dict, day: date) -> float:
    number = (day - EPOCH).days
    return row["spend"][row["day"].index(number)] if number in row["day"] else 0.0


def test_against_brute_force(panel: Panel, make_table: Callable[..., pa.Table]) -> None:
    rows = make_table().to_pylist()
    cutoff = 70
    day = panel.day_of(cutoff)
    series = np.array([0, 3, 5, 12, 40])
    found = {name: forecast(panel, cutoff, series)[:, 0] for name, forecast in baselines.BASELINES.items()}
    for position, index in enumerate(series):
        row = rows[index]
        age = (day - row["registered_on"]).days + 1
        if age < 1:
            continue
        last = sum(spend_on(row, day - timedelta(days=back)) for back in range(7))
        mean = sum(spend_on(row, day - timedelta(days=back)) for back in range(28)) / min(age, 28) * 7
        weekdays = 0.0
        for ahead in range(1, 8):
            backs = [7 * week - ahead for week in range(1, 5)]
            known = [spend_on(row, day - timedelta(days=back)) for back in backs if back < age]
            weekdays += sum(known) / max(len(known), 1)
        assert np.isclose(found["last_h_days"][position], last, rtol=1e-5)
        assert np.isclose(found["mean_28"][position], mean, rtol=1e-5)
        assert np.isclose(found["same_weekdays"][position], weekdays, rtol=1e-5)


def test_at_the_first_day_and_beyond_a_week(make_table, spec: SequenceSpec, last_day: date) -> None:
    from dataclasses import replace

    panel = Panel.from_sequences(make_table(), replace(spec, horizons_days=(10,)), last_day, 120)
    for forecast in baselines.BASELINES.values():
        assert np.isfinite(forecast(panel, 0, np.arange(len(panel)))).all()
    series = np.flatnonzero(panel.registered_N <= 50)
    ten, week = (
        baselines.same_weekdays(panel, 80, series),
        baselines.same_weekdays(Panel.from_sequences(make_table(), spec, last_day, 120), 80, series),
    )
    assert (ten >= week).all()


def test_cold_start_is_the_mean_per_registered_day(panel: Panel, values: tuple[np.ndarray, np.ndarray]) -> None:
    young = int(np.flatnonzero(panel.registered_N > 0)[0])
    cutoff = int(panel.registered_N[young]) + 2
    spend = np.nansum(values[0][young, cutoff - 2 : cutoff + 1, 1])
    assert np.isclose(baselines.cold_start(panel, cutoff, np.array([young]))[0, 0], spend / 3 * 7)


def test_silent_is_zero(panel: Panel) -> None:
    assert baselines.silent(panel, 50, np.arange(3)).tolist() == [[0.0] * 3] * 3


def test_tsb_is_the_librarys(panel: Panel, values: tuple[np.ndarray, np.ndarray]) -> None:
    """The same recursion as statsforecast's, which walks one series at a time."""
    cutoff, series = 100, np.arange(20)
    found = baselines.tsb(panel, cutoff, series)
    for row, index in enumerate(series):
        first = max(int(panel.registered_N[index]), cutoff + 1 - baselines.TSB_DAYS)
        if first > cutoff:
            continue
        block = daily_totals(values[0][index, first : cutoff + 1], panel.spec)
        for m in range(block.shape[1]):
            rate = baselines.TSB_RATE
            expected = TSB(alpha_d=rate, alpha_p=rate).forecast(block[:, m], panel.spec.horizon_days)["mean"].sum()
            assert np.isclose(found[row, m], expected, rtol=1e-3), (index, m)
