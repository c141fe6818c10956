"""The chain as it is declared: who writes what, what is read of which days, in which order."""

from __future__ import annotations

from datetime import timedelta

import pytest
from deployment import FIRST_DAY, Deployment, day

from pipelines import chain
from pipelines.warehouse.tables import DECLARATIONS


def test_every_table_has_one_writer_and_every_writer_a_table() -> None:
    written = [table for stage in chain.CHAIN for table in stage.tables]
    tables = [table for table in written if not table.startswith(chain.MODEL)]
    assert sorted([*tables, chain.LEDGER]) == sorted(DECLARATIONS)
    assert chain.writer("marts.churn_risk") == "score"
    assert chain.writer(chain.LEDGER) == "every stage that judges what it wrote"


def test_what_a_stage_reads_is_written_before_it_or_by_itself() -> None:
    written: set[str] = {"model.champion", "ops.drift"}  # of an earlier day
    for stage in chain.CHAIN:
        written |= {*stage.tables}
        assert set(stage.reads) <= written, stage.name


def test_days_of_a_read(deployment: Deployment) -> None:
    config = deployment.config
    assert chain.THE_DAY.of(config, day(5), ()) == [day(5)]
    assert chain.HORIZON.of(config, day(5), ()) == [day(5) + timedelta(days=n) for n in range(1, 8)]
    history = chain.HISTORY.of(config, day(59), ())
    assert (history[0], history[-1], len(history)) == (FIRST_DAY, day(59), 60)


@pytest.mark.parametrize(
    ("there", "expected"), [([1, 3, 7], [3]), ([5], [5]), ([7, 9], [7]), ([], []), ([1, 5, 6], [5])]
)
def test_the_newest_day_is_the_last_up_to_it_or_the_first_after_it(
    deployment: Deployment, there: list[int], expected: list[int]
) -> None:
    found = chain.NEWEST.of(deployment.config, day(5), {day(number) for number in there})
    assert found == [day(number) for number in expected]
