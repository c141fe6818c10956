"""The one way to publish: all is judged before the first commit, and every commit says what was read."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest
from deployment import FIRST_DAY, Deployment, day

from pipelines.chain import INPUT
from pipelines.cli import Run
from pipelines.errors import DataError
from pipelines.quality.publish import Draft, publish
from pipelines.quality.rules import Check
from pipelines.spark.buckets import REPORT
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.pins import Reads

RISK, FORECASTS = "marts.churn_risk", "marts.forecast_daily"
NONE = Check(name="negative", column="point", counter="negative", max_value=0, expected="at least 0")


def draft(warehouse: Warehouse, table: str, run: Run, negative: float | None = None) -> Draft:
    """A table without a row, which is enough to commit; of which ``negative`` rows are counted."""
    if negative is None:
        return Draft.uncounted(table, [run.ds], [])
    report = pl.DataFrame([(0, run.ds, None, "negative", negative, "a")], schema=REPORT, orient="row")
    return Draft.counted(table, [run.ds], report, [NONE])


def run_of(deployment: Deployment, number: int, ds: date = FIRST_DAY) -> Run:
    return Run(f"score-{number}", "score", deployment.config, ds, ds)


def test_one_bad_draft_stops_all_and_every_verdict_is_kept(deployment: Deployment) -> None:
    warehouse, run = deployment.warehouse, run_of(deployment, 1)
    drafts = [draft(warehouse, RISK, run, negative=2.0), draft(warehouse, FORECASTS, run, negative=0.0)]
    with pytest.raises(DataError, match=r"marts.churn_risk .* negative point: found 2; expected at least 0. First: a"):
        publish(run, warehouse, Reads(run.stage, warehouse), drafts)
    assert not warehouse.exists(FORECASTS)
    verdicts = deployment.rows("ops.validation").select("table", "passed").rows()
    assert verdicts == [(RISK, False), (FORECASTS, True)]


def test_tables_are_committed_in_the_order_of_the_chain_and_say_what_was_read(deployment: Deployment) -> None:
    warehouse, run = deployment.warehouse, run_of(deployment, 1)
    reads = Reads(run.stage, warehouse)
    reads.model("champion", "7")
    publish(run, warehouse, reads, [draft(warehouse, RISK, run), draft(warehouse, FORECASTS, run)])
    first, second = (warehouse.lineage(table)[FIRST_DAY] for table in (FORECASTS, RISK))
    assert first["m2m.tables"] == second["m2m.tables"] == f"{FORECASTS}, {RISK}"
    assert first[INPUT + "model.champion"] == second[INPUT + "model.champion"] == "7"
    # What the run read of its own table: nothing, and then what it had just committed.
    assert first[INPUT + FORECASTS] == "None"
    assert second[INPUT + FORECASTS] == str(warehouse.snapshot_id(FORECASTS))


def test_a_table_that_the_stage_does_not_declare_is_refused_before_anything_is_written(deployment: Deployment) -> None:
    warehouse, run = deployment.warehouse, run_of(deployment, 1)
    drafts = [draft(warehouse, FORECASTS, run), draft(warehouse, "marts.forecast_quality", run)]
    with pytest.raises(LookupError, match=r"score writes marts.forecast_quality without saying so: declare it"):
        publish(run, warehouse, Reads(run.stage, warehouse), drafts)
    assert not warehouse.exists(FORECASTS)


def test_a_day_far_below_the_usual_stops_or_warns(deployment: Deployment) -> None:
    warehouse = deployment.warehouse
    schema = warehouse.arrow_schema("marts.forecast_quality")

    def quality(number: int, rows: int, volume: str) -> None:
        ds = day(number)
        run = Run(f"monitor-{number}", "monitor", deployment.config, ds, ds)
        numbers = {name: 0.0 for name in schema.names if str(schema.field(name).type) == "double"}
        fixed = numbers | {
            "ds": ds,
            "matured_on": ds,
            "method": "m2m",
            "scenario_id": "s",
            "n": 1,
            "run_id": run.run_id,
            "horizon_days": 7,
        }
        frame = pl.DataFrame([fixed | {"task": f"task{place}"} for place in range(rows)])
        files = warehouse.write_rows("marts.forecast_quality", frame, run.run_id)
        counted = pl.DataFrame([(0, ds, None, "rows", float(rows), None)], schema=REPORT, orient="row")
        made = Draft("marts.forecast_quality", [ds], files, counted, volume=volume)  # type: ignore[arg-type]
        publish(run, warehouse, Reads("monitor", warehouse), [made])

    for number in range(3):
        quality(number, 8, "critical")
    with pytest.raises(DataError, match=r"volume: found 0\.25; expected more than"):
        quality(3, 2, "critical")
    quality(3, 2, "warning")
    assert "warning: marts.forecast_quality ds=2024-01-04: volume" in deployment.capture()
    assert warehouse.days("marts.forecast_quality") == {day(0): 8, day(1): 8, day(2): 8, day(3): 2}
