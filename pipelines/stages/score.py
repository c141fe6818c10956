"""The work of `score`: pipelines/score.py says what it reads and writes, and when it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from functools import partial

import polars as pl
import pyarrow as pa
from pyspark.sql import SparkSession

from m2m_model.totals.sums import added, finish
from pipelines.chain import CHAMPION
from pipelines.cli import Run, warn
from pipelines.config import Config
from pipelines.errors import ConfigError, DataError, ForecastError
from pipelines.kernels.scored import ADDED, AT_RISK, BESIDE, PATH, TOTAL, Scoring, Serving, read_sums, score_bucket
from pipelines.kernels.sound import COLLAPSE, LEVEL_JUMP, OLDEST_DAYS, DayBefore, judged
from pipelines.kernels.target import Target
from pipelines.life.cells import CELL, NO_CHAMPION, Cells, cell_of, cells_of, newest, with_unsound
from pipelines.life.cells import TABLE as CELLS
from pipelines.life.evaluation import active_task, differs, fallback
from pipelines.life.registry import LostModelError, ModelVersion, Registry
from pipelines.quality.forecasts import TABLE, broken, forecast_rules
from pipelines.quality.judge import CheckResult
from pipelines.quality.paths import TABLE as PATH_TABLE
from pipelines.quality.paths import path_rules
from pipelines.quality.publish import Draft, publish
from pipelines.quality.rules import Check, Rule
from pipelines.quality.totals import INCOMPLETE, NOT_THE_SUM, count_between, total_rules
from pipelines.quality.totals import TABLE as TOTAL_TABLE
from pipelines.spark import buckets
from pipelines.spark.buckets import REPORT
from pipelines.spark.session import spark_session
from pipelines.spark.sql_files import SHARED, bound
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.pins import Pin, Reads
from pipelines.warehouse.published import Published
from pipelines.warehouse.sequences import SequenceFiles, open_sequences
from pipelines.warehouse.store import Folder

RISK_TABLE = "marts.churn_risk"
NO_BUCKET = -1  # of what is added up over buckets
_COMPLETE = Rule(
    Check("unscored", None, "unscored", "a forecast for every series and task", max_value=0), pl.lit(False)
)


def score(run: Run, spark: SparkSession, warehouse: Warehouse, registry: Registry) -> None:
    """Forecast, check and commit."""
    config, ds = run.config, run.ds
    reads = Reads(run.stage, warehouse)
    sequences = open_sequences(config, reads, ds)
    rules = [*forecast_rules(sequences.spec), _COMPLETE]
    target = Target.of(run, warehouse, TABLE, rules[:-1])
    risk, (champion, why) = who_may_leave(run, warehouse, sequences), usable_champion(run, registry, sequences)
    path = Target.of(run, warehouse, PATH_TABLE, path_rules(sequences.spec))
    total = Target.of(run, warehouse, TOTAL_TABLE, total_rules())
    noticed = list[CheckResult]()
    where = (target, risk, path, total, total.folder / "sums")
    if champion:
        make = partial(serving, run, lambda: spark, sequences, champion, warehouse.scratch)
        cells = cells_of(newest(reads.pin(CELLS), champion.version))
        job = Scoring(make(cells=cells), *where, day_before(reads.pin(TABLE), config, ds))
        report = forecast(spark, job)
        in_path = broken(buckets.split(report, PATH)[1], path.rules)
        for table, faults in ((TABLE, broken(report, rules)), (PATH_TABLE, in_path)):
            noticed = noticed or [_fault(run, champion, table, *fault) for fault in faults]
        steps_back = bool(noticed)
        if not noticed and (moved := beside_day_before(job, config)).height:
            unsound = moved.drop_nulls("rule")
            steps_back = 2 * unsound.height > moved.height
            noticed = _unsound(run, champion, unsound, moved.height, steps_back)
            if noticed and not steps_back:
                job = Scoring(make(cells=with_unsound(cells, unsound, champion.version)), *where)
                report = forecast(spark, job)
        if steps_back:
            why, champion = f"{NO_CHAMPION}: {champion.version} broke {noticed[0].check}", None
    if champion is None:
        job = Scoring(serving(run, lambda: spark, sequences, None, warehouse.scratch, why), *where)
        report = forecast(spark, job)
    reads.model(CHAMPION, champion.version if champion else None)
    report, at_risk = buckets.split(report, AT_RISK)
    report, of_advertisers = buckets.split(report, TOTAL)
    report, of_paths = buckets.split(report, PATH)
    forecasts = Draft.counted(TABLE, [ds], report, [rule.check for rule in rules], volume="critical")
    # Without a task whose zero means leaving the day is replaced all the same: an earlier run may have had one.
    risks = Draft.uncounted(RISK_TABLE, [ds], buckets.files_in(at_risk))
    paths = Draft.counted(PATH_TABLE, [ds], of_paths, [rule.check for rule in path.rules])
    totals = add_totals(job, of_advertisers, forecasts.rows)
    try:
        publish(run, warehouse, reads, [forecasts, risks, paths, totals], noticed)
    except DataError as error:
        if broken(report, rules):
            raise ForecastError(error.lines) from error
        raise
    made = f"{forecasts.rows:,} forecasts for {sequences.series:,} series by {job.serving.by}"
    run.say(f"{TABLE}: {made}; {totals.rows:,} totals")


def serving(
    run: Run,
    spark: Callable[[], SparkSession],
    sequences: SequenceFiles,
    champion: ModelVersion | None,
    scratch: Folder,
    why: str | None = None,
    cells: Cells | None = None,
) -> Serving:
    """What forecasts the day: the champion, but for ``cells`` that a baseline serves; or for want of one, and ``why``,
    what is fitted on the day's own sequences."""
    if champion:
        return Serving(sequences, (champion.version, champion.packed), None, run.run_id, cells=cells or {})
    return Serving(sequences, None, fallback(run, spark(), sequences, scratch), run.run_id, why or NO_CHAMPION)


def who_may_leave(run: Run, warehouse: Warehouse, sequences: SequenceFiles) -> tuple[Target, str] | None:
    """Where it is written, and the query; None where no task's zero means leaving."""
    active = active_task(sequences.spec)
    if not active:
        return None
    query = bound(SHARED / "marts" / "churn_risk.sql", active_task=active, money_task=run.config.money_task)
    return Target.of(run, warehouse, RISK_TABLE, ()), query


def forecast(spark: SparkSession, job: Scoring) -> pl.DataFrame:
    """Every bucket's files, and what counts for the checks."""
    sequences = job.serving.sequences
    report = buckets.map_buckets(spark, sequences.buckets, partial(score_bucket, job))
    rows = int(report.filter(counter="rows")["value"].sum())
    expected = sequences.series * len(sequences.spec.targets)
    words = f"{rows} rows for {expected} series x tasks"
    unscored = [(None, sequences.as_of, None, _COMPLETE.check.counter, float(expected - rows), words)]
    return buckets.concat([report, pl.DataFrame(unscored, schema=REPORT, orient="row")])


def day_before(pin: Pin, config: Config, ds: date) -> DayBefore | None:
    """The forecasts that a champion's are held against."""
    days = pin.days(ds - timedelta(days=OLDEST_DAYS), ds - timedelta(days=1))
    day = max((day for day, rows in days.items() if rows), default=None)
    if day is None:
        return None
    return DayBefore(day, Published.of(pin, pin.files(day), config.dataset.horizon_days))


def beside_day_before(job: Scoring, config: Config) -> pl.DataFrame:
    """The cells of the champion's own that can be held against the day before, and the rules that they break."""
    if job.before is None:
        return pl.DataFrame()
    parts = (pl.DataFrame(pl.from_arrow(part)) for part in _parts(job, BESIDE))
    moved = judged(parts, config.checks.forecast_max_jump)
    own = [not ((cell := cell_of(job.serving.cells, *of)) and cell.reason) for of in moved.select(CELL).iter_rows()]
    return moved.filter(pl.Series(own, dtype=pl.Boolean))


def _unsound(run: Run, champion: ModelVersion, broken: pl.DataFrame, of: int, whole: bool) -> list[CheckResult]:
    """What is kept and said of the cells that broke a rule against the day before."""
    factor = run.config.checks.forecast_max_jump
    asked = {
        LEVEL_JUMP: f"totals within {factor:g} times of the day before, or with their last 28 days",
        COLLAPSE: f"intervals not {factor:g} times narrower than the day before",
    }
    who = "the best baseline serves all" if whole else "a baseline serves there"
    fault = f"A fault of champion {champion.version} in {broken.height} of {of} scenarios and tasks: {who}"
    where = (run.run_id, run.stage, TABLE, run.ds)
    return [
        CheckResult(*where, rule, None, scenario, "warning", f"{asked[rule]}. {fault}", found, words, False)
        for scenario, rule, found, words in broken.select("scenario_id", "rule", "found", "words").iter_rows()
    ]


def _parts(job: Scoring, name: str = "") -> Iterator[pa.Table]:
    """What every bucket left."""
    try:
        yield from (read_sums(job.sums, bucket, name) for bucket in job.serving.sequences.buckets)
    except FileNotFoundError:
        raise ConfigError(
            f"{TOTAL_TABLE} ds={job.serving.sequences.as_of}: {job.sums.uri} was just written and is not there: where "
            "workers are on other machines, the warehouse must be in a store that all reach: [warehouse] warehouse = "
            '"s3://..."'
        ) from None


def add_totals(job: Scoring, report: pl.DataFrame, forecasts: int) -> Draft:
    """The totals that no bucket has alone, added up and written; with those of advertisers, which ``report`` is of."""
    sequences = job.serving.sequences
    ds = sequences.as_of

    groups = pl.from_arrow(finish(added(_parts(job)), sequences.spec))
    assert isinstance(groups, pl.DataFrame)
    job.sums.remove()
    in_advertisers = int(report.filter(counter=ADDED)["value"].sum())
    reports = [report.filter(pl.col("counter") != ADDED), count_between(groups, ds, in_advertisers, forecasts)]
    if groups.height:
        groups = job.serving.marked(groups, NO_BUCKET).sort(*job.total.key)
        reports += [job.total.count(NO_BUCKET, groups), job.total.write(NO_BUCKET, groups, ds)]
    checks = [*(rule.check for rule in job.total.rules), NOT_THE_SUM, INCOMPLETE]
    return Draft.counted(TOTAL_TABLE, [ds], buckets.concat(reports), checks)


def _fault(run: Run, champion: ModelVersion, table: str, rule: Rule, count: int, example: str) -> CheckResult:
    """What is kept and said of a rule that the champion broke: it stops the champion, not the day."""
    expected = f"{rule.check.expected}. A fault of champion {champion.version}, not of the data: nothing of it is "
    expected += "published, the best baseline serves"
    where = (run.run_id, run.stage, table, run.ds, rule.check.name, None, None)
    return CheckResult(*where, "warning", expected, float(count), example, False)


def usable_champion(run: Run, registry: Registry, sequences: SequenceFiles) -> tuple[ModelVersion | None, str | None]:
    """The champion, if its files are there and it forecasts what pipeline.toml declares now; else a warning, and why
    none serves, in short.

    Raises:
        DataError: its files are not those that were registered.
    """
    try:
        champion = registry.get(CHAMPION)
    except LostModelError as error:
        warn(f"{error.lines[0]}. Until then the best baseline serves")
        return None, f"{NO_CHAMPION}: {registry.version_of(CHAMPION)} cannot be loaded"
    if champion is None:
        run.say(f"no champion in {registry.name}: the best baseline serves")
        return None, NO_CHAMPION
    if other := differs(champion.packed, sequences.spec):
        run.say(f"warning: champion {champion.version} was trained with other {other}; the best baseline serves")
        return None, f"{NO_CHAMPION}: {champion.version} was trained with other {other}"
    return champion, None


def work(run: Run) -> None:
    warehouse = Warehouse.existing(run.config, run.ds)
    with spark_session(run.config, run.run_id, run.stage) as spark:
        score(run, spark, warehouse, Registry(run.config))
