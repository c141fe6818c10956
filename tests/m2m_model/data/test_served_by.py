from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from m2m_model.data.panel import Panel
from m2m_model.data.served_by import (
    COLD_START,
    NETWORK,
    NOBODY,
    SETTLED_DAYS,
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


def test_newcomers_train_from_their_first_day_where_they_are_known_to_be_new(spec: SequenceSpec, one_series) -> None:
    first = date(2024, 1, 1)

    def trains_from(begins: int, least: int) -> int:
        day = first + timedelta(days=begins)
        panel = Panel.from_sequences(one_series(None, {day: 1.0}), spec, first + timedelta(days=99), 100)
        (days,) = np.nonzero(trainable_NT(panel, 99, least)[0])
        return int(days[0]) - begins + 1

    look = spec.eligible_days
    assert trains_from(look, 1) == 1
    assert trains_from(look + 40, 1) == 1
    assert trains_from(look + 40, 5) == 5
    # What begins with the panel may have been there before it.
    assert trains_from(0, 1) == SETTLED_DAYS
    assert trains_from(look - 1, 1) == SETTLED_DAYS
    assert trains_from(look - 1, 20) == 20
    assert trains_from(0, 7) == 7  # nobody who trains is a newcomer then


def test_trainable_agrees_with_eligible_and_age(panel: Panel) -> None:
    mask_NT = trainable_NT(panel, 100, 14)
    for cutoff in (0, 12, 13, 27, 28, 55, 100):
        age_N = np.minimum(history_days(panel, cutoff), cutoff + 1)
        assert (mask_NT[:, cutoff] == (eligible(panel, cutoff) & (age_N >= 14))).all()
    assert not mask_NT[:, 101:].any()


def test_newcomers_are_served_before_their_first_row(spec: SequenceSpec, one_series) -> None:
    first, joined = date(2024, 1, 1), 300
    last = first + timedelta(days=399)

    def listed(advertiser: str, scenario: str, registered: int, *days: int) -> pa.Table:
        on = first + timedelta(days=registered)
        found = one_series(on, {first + timedelta(days=day): 1.0 for day in days})
        found = found.set_column(0, "advertiser_id", [[advertiser]])
        return found.set_column(1, "scenario_id", [[scenario]])

    def served(panel: Panel, *days: int) -> list[list[int]]:
        return [served_by(panel, day).tolist() for day in days]

    rows = pa.concat_tables(
        [
            listed("begins", "search", joined, joined + 5),
            listed("begins", "video", joined),
            listed("never", "search", joined),
            listed("old", "search", 0, 100),
        ]
    )
    panel = Panel.from_sequences(rows, spec, last, 400)
    before, after, later, aged = served(panel, joined, joined + 5, joined + 7, joined + spec.eligible_days)
    assert before == [COLD_START, COLD_START, COLD_START, SILENT]
    assert after == [COLD_START, SILENT, COLD_START, SILENT]  # who began elsewhere is no newcomer here
    assert later == [NETWORK, SILENT, NETWORK, SILENT]
    assert aged == [NETWORK, SILENT, SILENT, SILENT]
    (not_yet,) = served(panel, joined - 1)
    assert not_yet == [NOBODY, NOBODY, NOBODY, SILENT]
    # Of those who joined long ago only who began is listed: without a row they say nothing of who begins.
    long_ago = Panel.from_sequences(listed("a", "s", 150, 160), spec, last, 400)
    assert served(long_ago, 150, 160) == [[SILENT], [NETWORK]]
    assert trainable_NT(panel, 399, 1)[:, joined].tolist() == [True, True, True, False]
