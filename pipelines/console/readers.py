"""What the console's pages show: from the tables as they are at a click, as frames.

Pure functions: they write nothing, know nothing of Streamlit, and read of an advertiser the files of its bucket alone.
Each says which tables it reads, so that what it found can be kept until one of them is committed to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar

import polars as pl

from m2m_model.config import ACTIVE
from pipelines import chain
from pipelines.config import Config
from pipelines.life.incidents import newest_runs
from pipelines.reading.export import harmless
from pipelines.stages.status import commands, status
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.days import days_between, in_words
from pipelines.warehouse.files import DataFile, by_bucket, read_files
from pipelines.warehouse.pins import Pin, properties_of
from pipelines.warehouse.sequences import TABLE as SERIES_TABLE
from pipelines.warehouse.sequences import WEEK_TABLE, history_start, week_ends
from pipelines.warehouse.tables import DECLARATIONS

Answer = TypeVar("Answer")
FORECAST, RISK, TOTAL = "marts.forecast_daily", "marts.churn_risk", "marts.forecast_total"
PATH, CHANGE, REASON = "marts.forecast_path", "marts.forecast_change", "marts.forecast_reason"
QUALITY, BACKTEST, VALUE = "marts.forecast_quality", "marts.backtest", "marts.backtest_value"
CHECKS, GATE = "ops.validation", "ops.promotion"
TOGETHER = "all scenarios together"
ALL = "*"  # of marts.backtest and marts.forecast_quality: all scenarios, all methods
QUANTILES = ("p05", "p25", "median", "p75", "p95")
FIGURES = ("point", "mean", "p_zero", *QUANTILES)
NO_BUCKET = -1  # of totals that no bucket has alone
CAUSES = {
    "by_new_days": "new days of data",
    "by_restated": "earlier days corrected",
    "by_model": "another model",
    "by_calibration": "calibration",
}
_THREADS = 4  # files at once: their digests and decoders leave Python free


def reads(*tables: str) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    """Says which tables a reader reads."""

    def declared(reader: Callable[..., Answer]) -> Callable[..., Answer]:
        reader.tables = tables  # type: ignore[attr-defined]
        return reader

    return declared


class Tables:
    """The warehouse, opened to be read once and looked at anew at every click.

    A table is loaded again only when its catalog names other metadata; what one click reads is of one moment.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.warehouse = Warehouse.existing(config)
        self._pins: dict[str, tuple[str, Pin]] = {}

    def now(self) -> Moment:
        return Moment(self, {})

    def newest(self, name: str) -> Pin:
        known = self.warehouse.metadata_locations(name)
        at, pin = self._pins.get(name, ("", None))
        if pin is None or not known or known[0] != at:
            pin = replace(self.warehouse.pin(name), plans={})  # those of older snapshots go with their pin
            self._pins[name] = known[0] if known else "", pin
        return pin


@dataclass(frozen=True)
class Moment:
    """The tables as they were when each was first asked for."""

    tables: Tables
    pins: dict[str, Pin]
    written: dict[str, list[date]] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        return self.tables.config

    def pin(self, name: str) -> Pin:
        if name not in self.pins:
            self.pins[name] = self.tables.newest(name)
        return self.pins[name]

    def has(self, name: str) -> bool:
        """Whether this version declares the table and it was ever written."""
        return name in DECLARATIONS and self.pin(name).snapshot_id is not None

    def snapshots(self, names: Iterable[str]) -> tuple[int | None, ...]:
        return tuple(self.pin(name).snapshot_id if name in DECLARATIONS else None for name in names)

    def days(self, name: str) -> list[date]:
        """Days with a row, in order."""
        if name not in self.written:
            self.written[name] = self.pin(name).days_written() if name in DECLARATIONS else []
        return self.written[name]

    def rows(
        self,
        name: str,
        days: Collection[date],
        columns: Sequence[str] | None = None,
        bucket: int | None = None,
        where: pl.Expr | None = None,
    ) -> pl.DataFrame:
        """Rows of some days of a table, of one bucket if it is named; file by file, so that only what is kept of a file
        stays in memory."""
        pin = self.pin(name)
        files = [file for file in pin.files_on(days) if bucket is None or file.bucket == bucket]

        def part(file: DataFile) -> pl.DataFrame:
            rows = read_files([file], pin.schema, columns)
            return rows if where is None else rows.filter(where)

        empty = read_files([], pin.schema, columns)
        if len(files) < 2:
            return part(files[0]) if files else empty
        with ThreadPoolExecutor(_THREADS) as threads:
            return pl.concat([empty, *threads.map(part, files)])

    @cached_property
    def newest_history(self) -> date | None:
        return max(self.days(SERIES_TABLE), default=None)


# --- Advertisers


@reads(SERIES_TABLE, TOTAL)
def index(moment: Moment, day: date) -> pl.DataFrame:
    """Every advertiser of the newest sequences up to a day, or the oldest after it: bucket, number of scenarios,
    attributes, and what is expected of it over the longest horizon (of the money task, else of the first).

    Bucket by bucket: to group and to join a few thousand ids at a time takes a third of what all at once do.
    """
    config = moment.config
    built = chain.NEWEST.of(config, day, moment.days(SERIES_TABLE))
    names, columns = list(config.attributes.advertiser), ["bucket", "advertiser_id", *config.attributes.advertiser]
    series, totals = moment.pin(SERIES_TABLE), moment.pin(TOTAL)
    of_series = by_bucket(series.files_on(built)) or {0: []}
    of_totals = by_bucket(totals.files_on([day]))
    which = _advertisers(main_task(config), config.dataset.horizon_days)

    def one(bucket: int) -> pl.DataFrame:
        rows = read_files(of_series[bucket], series.schema, columns)
        expected = read_files(of_totals.get(bucket, []), totals.schema, _OF_ADVERTISER).filter(which)
        each = rows.group_by("advertiser_id", maintain_order=True).agg(
            pl.first("bucket"), pl.len().alias("scenarios"), *(pl.first(name) for name in names)
        )
        return each.join(expected.select(advertiser_id="value", expected="mean"), on="advertiser_id", how="left")

    with ThreadPoolExecutor(_THREADS) as threads:
        parts = list(threads.map(one, sorted(of_series)))
    return pl.concat(parts).with_columns(pl.col(names).cast(pl.Categorical))


def main_task(config: Config) -> str:
    """The task that advertisers are ranked by."""
    return config.money_task or config.task[0].name


_OF_ADVERTISER = ["bucket", "level", "value", "task", "horizon_days", "mean"]


def _advertisers(task: str, horizon: int) -> pl.Expr:
    """Of all totals those of advertisers, of one task and horizon."""
    return (pl.col("level") == "advertiser") & (pl.col("task") == task) & (pl.col("horizon_days") == horizon)


def advertiser_totals(moment: Moment, day: date, task: str, horizon: int) -> pl.DataFrame:
    """Of each advertiser what is forecast over all its scenarios."""
    days = [day] if moment.has(TOTAL) else []
    rows = moment.rows(TOTAL, days, _OF_ADVERTISER, where=_advertisers(task, horizon))
    return rows.select("bucket", advertiser_id="value", mean="mean")


def find(known: pl.DataFrame, text: str, attributes: Mapping[str, str]) -> pl.DataFrame:
    """Advertisers whose id has a text in it, in any case, and that have these attributes: the id itself first, then
    those that begin with it, then by what is expected of them."""
    name, text = pl.col("advertiser_id"), text.strip()
    chosen = [pl.col(key).cast(pl.String) == value for key, value in attributes.items() if value]
    if text:
        chosen.append(name.str.contains_any([text], ascii_case_insensitive=True))
    found = known.filter(*chosen) if chosen else known
    how = pl.when(name == text).then(0).when(name.str.starts_with(text)).then(1).otherwise(2)
    by = [how.alias("_how"), pl.col("expected").fill_null(-1.0).neg().alias("_size")]
    return found.with_columns(by).sort("_how", "_size", "advertiser_id").drop("_how", "_size")


def group(known: pl.DataFrame, advertiser: str, names: Sequence[str]) -> tuple[pl.DataFrame, int]:
    """Those with the same attributes by what is expected of them, with their places, and the place of this one."""
    own = known.filter(pl.col("advertiser_id") == advertiser)
    if own.is_empty():
        return known.head(0), 0
    same = known.filter(*(pl.col(name).eq_missing(own[name][0]) for name in names)) if names else known
    ranked = same.sort(pl.col("expected").fill_null(-1.0), "advertiser_id", descending=[True, False])
    ranked = ranked.with_row_index("place", offset=1)
    return ranked, int(ranked.filter(pl.col("advertiser_id") == advertiser)["place"][0])


@reads(FORECAST, TOTAL)
def forecasts(moment: Moment, day: date, bucket: int, advertiser: str) -> pl.DataFrame:
    """What was forecast of an advertiser on a day: every scenario, and all together, every task and horizon."""
    columns = ["ds", "scenario_id", "task", "horizon_days", *FIGURES, "method", "model_version", "reason"]
    known = [name for name in columns if name in moment.pin(FORECAST).schema.names]  # a home of before has no reasons
    rows = _own(moment, FORECAST, [day], known, bucket, pl.col("advertiser_id") == advertiser)
    together = (pl.col("level") == "advertiser") & (pl.col("value") == advertiser)
    total = _own(moment, TOTAL, [day], ["ds", "task", "horizon_days", *FIGURES, "model_version"], bucket, together)
    method = pl.lit("together" if rows["scenario_id"].n_unique() > 1 else "single", pl.String)
    total = total.with_columns(scenario_id=pl.lit(TOGETHER), method=method, reason=pl.lit(None, pl.String))
    return pl.concat([total.select(columns), rows], how="diagonal")


def _own(
    moment: Moment, name: str, days: Collection[date], columns: Sequence[str], bucket: int, where: pl.Expr
) -> pl.DataFrame:
    needed = list(dict.fromkeys([*columns, *where.meta.root_names()]))
    return moment.rows(name, days if moment.has(name) else [], needed, bucket, where).select(columns)


@reads(WEEK_TABLE, SERIES_TABLE)
def history(moment: Moment, bucket: int, advertiser: str, days: int) -> pl.DataFrame:
    """What an advertiser did on each of the last ``days`` days of the newest history: a row a scenario and day with a
    row, a column a task. Read from the weeks of sequences, a file a week, where staged days would be a file a day."""
    config, last = moment.config, moment.newest_history
    schema = {"scenario_id": pl.String, "day": pl.Date, **{task.name: pl.Float64 for task in config.task}}
    if last is None:
        return pl.DataFrame(schema=schema)
    first = max(history_start(config, last), last - timedelta(days=days - 1))
    columns, own = ["scenario_id", "day", *config.metric_names], pl.col("advertiser_id") == advertiser
    weeks = _own(moment, WEEK_TABLE, week_ends(first, last), columns, bucket, own)
    rows = weeks.filter(pl.col("day").list.len() > 0).explode("day", *config.metric_names)
    rows = rows.with_columns(pl.from_epoch(pl.col("day"), time_unit="d").cast(pl.Date))
    rows = rows.filter(pl.col("day").is_between(first, last))
    return rows.select("scenario_id", "day", **_contributions(config)).sort("day", "scenario_id")


def _contributions(config: Config) -> dict[str, pl.Expr]:
    """What a day adds to each task, as ``m2m_model.data.spec.daily_columns`` has it."""
    found = {}
    for task in config.task:
        metrics = config.metric_names if task.metric == ACTIVE else (task.metric,)
        acted = pl.any_horizontal(pl.col(name).fill_nan(0.0) > 0 for name in metrics)
        amount = pl.col(task.metric if task.metric != ACTIVE else metrics[0]).fill_nan(0.0).fill_null(0.0)
        found[task.name] = acted.cast(pl.Float64) if task.aggregate == "days" else amount.clip(lower_bound=0.0)
    return found


def per_day(rows: pl.DataFrame, scenario: str, task: str, first: date, last: date) -> pl.DataFrame:
    """A task's amount on every day from ``first`` to ``last``: 0 where there is no row."""
    chosen = rows if scenario == TOGETHER else rows.filter(pl.col("scenario_id") == scenario)
    amounts = chosen.group_by("day").agg(pl.sum(task).alias("amount"))
    days = pl.DataFrame({"day": days_between(first, last)}, schema={"day": pl.Date})
    return days.join(amounts, on="day", how="left").with_columns(pl.col("amount").fill_null(0.0)).sort("day")


def in_blocks(days: pl.DataFrame, last: date, length: int) -> pl.DataFrame:
    """Totals of whole blocks of ``length`` days that end on ``last``, one before the other; ``day`` is a block's last,
    ``first`` its first."""
    back = (pl.lit(last) - pl.col("day")).dt.total_days() // length
    blocks = (
        days.filter(pl.col("day") <= last)
        .group_by(back.alias("back"))
        .agg(pl.max("day"), pl.min("day").alias("first"), pl.sum("amount"), pl.len().alias("days"))
    )
    return blocks.filter(pl.col("days") == length).drop("back", "days").sort("day")


def apart(days: Iterable[date], before: date, length: int, most: int) -> list[date]:
    """Of the days before one the newest that lie at least ``length`` apart: their horizons do not overlap."""
    found: list[date] = []
    for day in sorted(days, reverse=True):
        if day <= (found[-1] if found else before) - timedelta(days=length):
            found.append(day)
    return found[:most][::-1]


@reads(FORECAST, TOTAL)
def past_forecasts(moment: Moment, days: tuple[date, ...], bucket: int, advertiser: str) -> pl.DataFrame:
    """What was forecast of an advertiser on earlier days."""
    parts = [forecasts(moment, day, bucket, advertiser) for day in days]
    return pl.concat(parts) if parts else forecasts(moment, date.min, bucket, advertiser)


@reads(PATH)
def path(moment: Moment, day: date, bucket: int, advertiser: str) -> pl.DataFrame:
    """The expected amount of each day of the horizon, and of all days up to it."""
    return _of_new(moment, PATH, day, bucket, advertiser)


@reads(REASON)
def reasons(moment: Moment, day: date, bucket: int, advertiser: str) -> pl.DataFrame:
    """Why an advertiser is at risk, or moved, strongest cause first."""
    found = _of_new(moment, REASON, day, bucket, advertiser)
    return found.sort("kind", "scenario_id", "task", "horizon_days", "rank") if found.width else found


def _of_new(moment: Moment, name: str, day: date, bucket: int, advertiser: str) -> pl.DataFrame:
    """Rows of a table that homes of before do not have; without columns where it was never made."""
    if not moment.has(name):
        return pl.DataFrame()
    return moment.rows(name, [day], bucket=bucket, where=pl.col("advertiser_id") == advertiser)


@reads(RISK)
def risk_of(moment: Moment, day: date, bucket: int, advertiser: str) -> pl.DataFrame:
    """How likely an advertiser is to leave each scenario."""
    columns = ["scenario_id", "horizon_days", "probability", "value_at_risk"]
    return _own(moment, RISK, [day], columns, bucket, pl.col("advertiser_id") == advertiser).sort("scenario_id")


# --- Movers, who may leave


@reads(FORECAST, TOTAL, CHANGE, REASON)
def movers(moment: Moment, day: date, earlier: date | None, task: str, horizon: int) -> pl.DataFrame:
    """Whose forecast changed most: by cause where `explain` has said so, else over all scenarios of each advertiser,
    against an earlier day's; largest change first."""
    of_task = (pl.col("task") == task) & (pl.col("horizon_days") == horizon)
    if moment.has(CHANGE):
        found = moment.rows(CHANGE, [day], where=of_task)
        if found.height:
            change = (pl.col("after") - pl.col("before")).alias("change")
            found = found.with_columns(change).sort("rank").drop("ds", "task", "horizon_days", "run_id")
            return _with_reason(moment, found, day, of_task & (pl.col("kind") == "mover"))
    if earlier is None:
        return pl.DataFrame()
    then, now = (advertiser_totals(moment, ds, task, horizon) for ds in (earlier, day))
    both = then.select("advertiser_id", before="mean").join(
        now.select("advertiser_id", "bucket", after="mean"), on="advertiser_id", how="inner"
    )
    both = both.with_columns((pl.col("after") - pl.col("before")).alias("change"))
    largest = both.sort(pl.col("change").abs(), descending=True).filter(pl.col("change") != 0.0)
    return largest.head(MOVERS).with_columns(compared_with=pl.lit(earlier))


MOVERS = 1000  # kept of those without causes


@reads(RISK, REASON)
def at_risk(moment: Moment, day: date, horizon: int, longest: int) -> pl.DataFrame:
    """Who may leave a scenario within the horizon: the largest value at risk first; where no task adds up money, the
    likeliest. With the strongest reason, where `explain` has given one."""
    columns = ["bucket", "advertiser_id", "scenario_id", "probability", "value_at_risk", "horizon_days"]
    # Rows of before the column was added are of the only horizon of then.
    chosen = pl.col("horizon_days").fill_null(longest) == horizon
    rows = moment.rows(RISK, [day] if moment.has(RISK) else [], columns, where=chosen).drop("horizon_days")
    order = [pl.col("value_at_risk").fill_null(-1.0), pl.col("probability"), pl.col("advertiser_id")]
    rows = rows.sort(order, descending=[True, True, False])
    return _with_reason(moment, rows, day, (pl.col("kind") == "at_risk") & (pl.col("horizon_days") == horizon))


def _with_reason(moment: Moment, rows: pl.DataFrame, day: date, which: pl.Expr) -> pl.DataFrame:
    """Each series with its strongest cause, where `explain` has given one."""
    if not moment.has(REASON):
        return rows
    key = ["advertiser_id", "scenario_id"]
    wanted = [*key, "rank", "words", *which.meta.root_names()]
    found = moment.rows(REASON, [day], list(dict.fromkeys(wanted)), where=which)
    strongest = found.sort("rank").unique(key, keep="first").select(*key, reason="words")
    return rows.join(strongest, on=key, how="left", maintain_order="left")


def to_csv(rows: pl.DataFrame) -> bytes:
    """All rows for a spreadsheet; a text that it would take for a formula begins with an apostrophe."""
    return harmless(rows.with_columns(pl.col(pl.Categorical).cast(pl.String)))[0].write_csv().encode()


def to_parquet(rows: pl.DataFrame) -> bytes:
    import io

    out = io.BytesIO()
    rows.write_parquet(out)
    return out.getvalue()


# --- Totals


@reads(TOTAL)
def totals(moment: Moment, days: tuple[date, ...]) -> pl.DataFrame:
    """Platform, scenarios and groups on some days, each with its own interval."""
    columns = ["ds", "level", "name", "value", "task", "horizon_days", "series", *FIGURES, "model_version"]
    known = [day for day in days if moment.has(TOTAL)]
    return moment.rows(TOTAL, known, columns, NO_BUCKET).sort("ds", "level", "name", "value", nulls_last=True)


@reads(WEEK_TABLE, SERIES_TABLE)
def history_files(moment: Moment, days: int) -> list[DataFile]:
    """What holds the last days of every advertiser: to be added up file by file."""
    last = moment.newest_history
    if last is None:
        return []
    first = max(history_start(moment.config, last), last - timedelta(days=days - 1))
    return moment.pin(WEEK_TABLE).files_on(week_ends(first, last))


def added_up(moment: Moment, file: DataFile) -> pl.DataFrame:
    """What all advertisers of a file did together: a row a scenario and day, a column a task."""
    config, pin = moment.config, moment.pin(WEEK_TABLE)
    names = config.metric_names
    rows = read_files([file], pin.schema, ["scenario_id", "day", *names])
    rows = (
        rows.filter(pl.col("day").list.len() > 0)
        .explode("day", *names)
        .select("scenario_id", "day", **_contributions(config))
    )
    sums = rows.group_by("scenario_id", "day").agg(pl.sum(task.name) for task in config.task)
    return sums.with_columns(pl.from_epoch(pl.col("day"), time_unit="d").cast(pl.Date))


def joined(parts: Sequence[pl.DataFrame], config: Config) -> pl.DataFrame:
    """Files' sums as one history of all advertisers."""
    names = [task.name for task in config.task]
    if not parts:
        return pl.DataFrame(schema={"scenario_id": pl.String, "day": pl.Date, **dict.fromkeys(names, pl.Float64)})
    return pl.concat(parts).group_by("scenario_id", "day").agg(pl.sum(*names)).sort("scenario_id", "day")


# --- Accuracy


@reads(QUALITY)
def quality(moment: Moment) -> pl.DataFrame:
    """Published forecasts against what happened: every day whose horizon has passed."""
    return _whole(moment, QUALITY)


@reads(BACKTEST)
def backtest(moment: Moment) -> pl.DataFrame:
    """The newest backtest: who was compared at which held-out day."""
    return _newest(moment, BACKTEST)


@reads(VALUE)
def backtest_value(moment: Moment) -> pl.DataFrame:
    """What each forecaster of the newest backtest is worth."""
    return _newest(moment, VALUE)


def _whole(moment: Moment, name: str) -> pl.DataFrame:
    declared = moment.tables.warehouse.declared(name)
    return moment.rows(name, moment.days(name)).sort(*declared.key, nulls_last=True)


def _newest(moment: Moment, name: str) -> pl.DataFrame:
    return moment.rows(name, moment.days(name)[-1:])


# --- Operations


@reads(GATE)
def decisions(moment: Moment) -> pl.DataFrame:
    """Every decision of the gate, the newest first."""
    return _whole(moment, GATE).sort("decided_at", descending=True)


@reads(CHECKS)
def failed_checks(moment: Moment, days: int) -> pl.DataFrame:
    """Checks that did not hold on the last checked days, critical ones first; of a day that was checked again those of
    the newest run alone. In rows no time tells which that is; the order of commits does, as far as they are kept."""
    rows = newest_runs(moment.pin(CHECKS), moment.rows(CHECKS, moment.days(CHECKS)[-days:]))
    found = rows.filter(~pl.col("passed"))
    return found.sort(pl.col("severity") != "critical", pl.col("ds"), descending=[False, True])


@reads(*DECLARATIONS)
def runs(moment: Moment, most: int = 200) -> pl.DataFrame:
    """What was published: a row a run, the newest first; of runs whose snapshots have expired nothing is known."""
    found: dict[str, dict[str, Any]] = {}
    for name in DECLARATIONS:
        for snapshot in moment.pin(name).snapshots():
            said = properties_of(snapshot)
            if not (run := said.get("m2m.run-id")):
                continue
            at = datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC)
            row = found.setdefault(
                run,
                {
                    "published_at": at,
                    "stage": said.get("m2m.stage", ""),
                    "days": said.get("m2m.days", ""),
                    "tables": [],
                    "run_id": run,
                    "code": said.get("m2m.code-version", ""),
                },
            )
            row["published_at"] = max(row["published_at"], at)
            row["tables"].append(name)
    rows = sorted(found.values(), key=lambda row: row["published_at"], reverse=True)[:most]
    return pl.DataFrame([{**row, "tables": ", ".join(row["tables"])} for row in rows])


def files_known(moment: Moment) -> int:
    """Data files of all tables, which a look for holes takes time by."""
    total = 0
    for name in DECLARATIONS:
        pin = moment.pin(name)
        snapshot = pin.snapshot(pin.snapshot_id) if pin.snapshot_id is not None else None
        total += int(properties_of(snapshot).get("total-data-files", 0)) if snapshot else 0
    return total


@reads(*DECLARATIONS)
def holes(moment: Moment, first: date, last: date) -> tuple[pl.DataFrame, list[str]]:
    """What `status` finds, a row a table, and the commands that mend it, in order."""
    found = status(Warehouse.existing(moment.config, last), first, last)  # one that keeps its plans no longer than this
    rows = [
        {
            "table": table.table,
            "present": len(table.present),
            "missing": in_words(table.missing, 4),
            "stale": in_words(table.stale, 4),
            "lost": in_words(table.lost, 4),
            "why": next(iter({**table.lost, **table.stale}.values()), ""),
            "written_by": table.stage.name,
        }
        for table in found
    ]
    return pl.DataFrame(rows), commands(moment.config, found)
