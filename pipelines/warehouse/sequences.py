"""Readers of features.advertiser_sequence and its weeks: put together to sequences and panels.

The history as of a day is stored once, by week: the partition of that day, from its Monday on, and those of the Sundays
before it. A daily run writes one part of a week instead of the whole history, and a week whose rows were restated is
made again alone (docs/architecture.md has what was measured).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Protocol

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from m2m_model.data.panel import DayRows, Panel, days_of, listed_rows
from m2m_model.data.served_by import NEWCOMER_DAYS
from m2m_model.data.spec import SequenceSpec
from pipelines.chain import INPUT
from pipelines.config import Config
from pipelines.errors import ConfigError, DataError
from pipelines.warehouse.days import days_between
from pipelines.warehouse.files import DataFile, by_bucket, read_files

if TYPE_CHECKING:
    from pipelines.warehouse.pins import Pin

TABLE, WEEK_TABLE = "features.advertiser_sequence", "features.sequence_week"
SERIES = ["advertiser_id", "scenario_id"]
PLANS_OF = [SERIES, ["advertiser_id"], ["scenario_id"], []]  # whom a plan may be for, the first before the others


def week_ends(first: date, as_of: date) -> list[date]:
    """Partitions of features.sequence_week that hold ``first``..``as_of``: the Sundays before ``as_of``, and it."""
    sunday = first + timedelta(days=6 - first.weekday())
    return [*days_between(sunday, as_of - timedelta(days=1))[::7], as_of]


def week_days(end: date) -> list[date]:
    """The days that the partition ``end`` holds: its Monday up to it."""
    return days_between(end - timedelta(days=end.weekday()), end)


@dataclass(frozen=True)
class SequenceFiles:
    """The sequences as of one day: their files by bucket, and what is needed to read them on a worker.

    ``files`` say which series there are, ``weeks`` hold their days, oldest first; the history begins on ``first``.
    """

    as_of: date
    first: date
    snapshot_id: int
    files: dict[int, list[DataFile]]
    weeks: dict[int, list[DataFile]]
    schema: pa.Schema
    week_schema: pa.Schema
    spec: SequenceSpec

    @property
    def buckets(self) -> list[int]:
        return sorted(self.files)

    @property
    def days(self) -> int:
        """Days of the history."""
        return (self.as_of - self.first).days + 1

    @property
    def series(self) -> int:
        return sum(file.rows for files in self.files.values() for file in files)

    def rows(self, bucket: int, days: int | None = None, advertisers: Collection[str] | None = None) -> pl.DataFrame:
        """The bucket's sequences in key order, each with its weeks that reach into the last ``days`` days (default: all
        of the history); of some ``advertisers`` alone, if they are named."""
        since = self.as_of - timedelta(days=(days or self.days) - 1)
        files = (file for file in self.weeks.get(bucket, ()) if file.ds >= since)
        weeks, series = read_files(files, self.week_schema), read_files(self.files[bucket], self.schema)
        if advertisers is not None:
            weeks, series = weeks.filter(_of(advertisers)), series.filter(_of(advertisers))
        weeks, series = self._begun(weeks), series.drop("ds", "bucket")
        return put_together(series, weeks, self.spec.metrics, self.spec.behaviors, self.spec.plan_columns)

    def _begun(self, weeks: pl.DataFrame) -> pl.DataFrame:
        """Without the days before the history: its first week may begin before it, and would make a series older."""
        oldest, start = pl.col("ds") < self.first + timedelta(days=7), days_of(self.first)
        early = weeks.filter(oldest)
        lists = [
            ("day", self.spec.metrics),
            ("behavior_day", self.spec.behaviors),
            ("plan_day", self.spec.plan_columns),
        ]
        for day, values in lists if self.spec.plan_columns else lists[:2]:
            before = pl.col(day).list.eval(pl.element() < start).list.sum()
            early = early.with_columns(pl.col(day, *values).list.slice(before))
        return pl.concat([early, weeks.filter(~oldest)])

    def panel(self, bucket: int, days: int | None = None, advertisers: Collection[str] | None = None) -> Panel:
        """The bucket's series over the last ``days`` days (default: the history, ``with_not_begun``), in key order; of
        some ``advertisers`` alone, if they are named."""
        whole, days, spec = days is None, days or self.days, self.spec
        since = self.as_of - timedelta(days=days - 1)
        columns = [*SERIES, "day", *spec.metrics, "behavior_day", *spec.behaviors]
        columns += ["plan_day", *spec.plan_columns] if spec.plan_columns else []
        weeks = read_files((file for file in self.weeks.get(bucket, ()) if file.ds >= since), self.week_schema, columns)
        series = read_files(self.files[bucket], self.schema)
        if advertisers is not None:
            weeks, series = weeks.filter(_of(advertisers)), series.filter(_of(advertisers))
        if whole:
            series = with_not_begun(series, weeks, spec, newcomers_since(self.first, self.as_of))
        return panel_of(series, weeks, spec, self.as_of, days, self.first)


def _of(advertisers: Collection[str]) -> pl.Expr:
    """Rows of some advertisers, and those of everyone."""
    return pl.col("advertiser_id").is_null() | pl.col("advertiser_id").is_in(list(advertisers))


def newcomers_since(first: date, as_of: date) -> date:
    """From when on those who register count as newcomers, in a history that begins on ``first``."""
    return max(first, as_of - timedelta(days=NEWCOMER_DAYS - 1))


def with_not_begun(series: pl.DataFrame, weeks: pl.DataFrame, spec: SequenceSpec, since: date) -> pl.DataFrame:
    """The series, and those that newcomers could have begun and did not: of each advertiser that registered ``since``
    then and had done nothing when that day ended, every scenario.

    Before their first row they were newcomers, who are forecast in every scenario. Were only those kept that they began
    later, all newcomers would seem to begin everywhere.
    """
    first_day = pl.from_epoch(pl.col("day").list.first().min(), time_unit="d").cast(pl.Date)
    begun = weeks.filter(pl.col("day").list.len() > 0).group_by("advertiser_id").agg(begun=first_day)
    new = series.filter(pl.col("registered_on") >= since)
    new = new.join(begun, on="advertiser_id").filter(pl.col("begun") > pl.col("registered_on"))
    if not new.height:
        return series
    scenarios = series.select("scenario_id", *spec.scenario_attributes).unique("scenario_id", keep="first")
    advertisers = new.drop("begun", *scenarios.columns).unique("advertiser_id", keep="first")
    pairs = advertisers.join(scenarios, how="cross").join(series, on=SERIES, how="anti")
    return pl.concat([series, pairs.select(series.columns)]).sort(SERIES)


def panel_of(
    series: pl.DataFrame, weeks: pl.DataFrame, spec: SequenceSpec, as_of: date, days: int, first: date
) -> Panel:
    """A panel of what ``put_together`` would make of ``weeks``, made of these as they lie there: lists of a series are
    never made. ``first`` is the history's first day."""
    since = as_of - timedelta(days=days - 1)
    place, lists = _places(weeks, series, SERIES), weeks.to_arrow()

    def rows(day: str, values: tuple[str, ...]) -> DayRows:
        found = listed_rows(lists, day, values, days_of(since))
        # The first week of the history may begin before it, and would make a series older.
        early = found.day_R < (first - since).days
        return found.on(~early) if early.any() else found

    achieved = _of_series(rows("day", spec.metrics), place)
    if not (spec.behaviors or spec.plan_columns):
        return Panel.of_rows(spec, as_of, days, series.to_arrow(), achieved)
    said_N = {name: weeks[name].is_not_null().to_numpy() for name in SERIES}

    def of_all(found: DayRows, key: list[str]) -> DayRows | None:
        """Rows of ``key`` alone, once for each of the series that have it; None where there is none."""
        own_N = np.logical_and.reduce([said_N[name] == (name in key) for name in SERIES])
        if not own_N.any() or not series.height:
            return None
        if key:
            owners = series.select(key).unique(maintain_order=True)
            by_owner, owner_N = (_places(rows, owners, key) for rows in (weeks, series))
        else:
            by_owner, owner_N = (np.zeros(rows.height, np.int64) for rows in (weeks, series))
        return _repeated(_of_series(found.on(own_N[found.series_R]), by_owner), owner_N)

    acted = rows("behavior_day", spec.behaviors) if spec.behaviors else None
    planned = rows("plan_day", spec.plan_columns) if spec.plan_columns else None
    shared = of_all(acted, ["advertiser_id"]) if acted else None
    # A series' own plan counts before that of its advertiser, and so on.
    levels = [of_all(planned, key) for key in PLANS_OF[::-1] if key != SERIES] if planned else []
    plans = [level for level in (*levels, planned and _of_series(planned, place)) if level]
    own = acted and _of_series(acted, place)
    return Panel.of_rows(spec, as_of, days, series.to_arrow(), achieved, own, shared, plans)


def _places(rows: pl.DataFrame, among: pl.DataFrame, key: list[str]) -> NDArray[np.int64]:
    """Where each row's key stands in ``among``; -1: nowhere."""
    places = among.select(*key).with_row_index("place")
    found = rows.select(key).join(places, on=key, how="left", maintain_order="left")["place"]
    return found.cast(pl.Int64).fill_null(-1).to_numpy()


def _of_series(rows: DayRows, place: NDArray[np.int64]) -> DayRows:
    """Rows of weeks as rows of the series that those are of, if of any."""
    found = DayRows(place[rows.series_R], rows.day_R, rows.columns)
    known_R = found.series_R >= 0
    return found if known_R.all() else found.on(known_R)


def _repeated(rows: DayRows, owner_N: NDArray[np.int64]) -> DayRows:
    """Rows of advertisers, once for each of their series."""
    order_N, count_A = np.argsort(owner_N, kind="stable"), np.bincount(owner_N)
    first_A, count_R = np.cumsum(count_A) - count_A, count_A[rows.series_R]
    again = np.repeat(np.arange(len(count_R)), count_R)
    nth = np.arange(len(again)) - np.repeat(np.cumsum(count_R) - count_R, count_R)
    series_R = order_N[first_A[rows.series_R][again] + nth]
    return DayRows(series_R, rows.day_R[again], [column_R[again] for column_R in rows.columns])


def put_together(
    series: pl.DataFrame,
    weeks: pl.DataFrame,
    metrics: tuple[str, ...],
    behaviors: tuple[str, ...],
    plans: tuple[str, ...] = (),
) -> pl.DataFrame:
    """Each series with its history as parallel lists; ``weeks`` are rows of features.sequence_week, oldest first.

    A behavior without a scenario counts for every scenario of its advertiser; of plans see ``PLANS_OF``.
    """
    # Ids are looked up once, and lists are moved as little as can be: that is what takes the time here.
    places = series.select(*SERIES).with_row_index("_place")
    place_of = weeks.select(SERIES).join(places, on=SERIES, how="left", maintain_order="left")["_place"]
    placed = weeks.with_columns(place_of)
    acted = placed.select("_place", "behavior_day", *behaviors).explode("behavior_day", *behaviors)
    shared = weeks.select(*SERIES, "behavior_day", *behaviors).filter(pl.col("scenario_id").is_null())
    if shared.height:
        everywhere = _lists(shared.drop("scenario_id"), "advertiser_id", "behavior_day")
        everywhere = places.select("advertiser_id", "_place").join(everywhere, on="advertiser_id")
        acted = pl.concat([acted, everywhere.select(acted.columns).explode("behavior_day", *behaviors)])
        # One key of both: days of all series, one series after the other.
        key = (pl.col("_place").cast(pl.Int64) * 2**32 + pl.col("behavior_day")).alias("_key")
        # Nothing but nulls is no 0.
        totals = [pl.when(pl.col(name).count() > 0).then(pl.col(name).sum()) for name in behaviors]
        acted = acted.select(key, *behaviors).group_by("_key").agg(totals).sort("_key")
        place, day = (pl.col("_key") // 2**32).cast(pl.UInt32), (pl.col("_key") % 2**32).cast(pl.Int32)
        acted = acted.select(place.alias("_place"), day.alias("behavior_day"), *behaviors)
    found = places.select("_place")
    achieved = _lists(placed.select("_place", "day", *metrics), "_place", "day")
    for lists in (achieved, acted.group_by("_place").agg("behavior_day", *behaviors)):
        found = found.join(lists, on="_place", how="left", maintain_order="left")
    names = ["day", *metrics, "behavior_day", *behaviors]
    if plans:
        found = found.join(_planned(weeks, places, plans), on="_place", how="left", maintain_order="left")
        names += ["plan_day", *plans]
    found = found.with_columns(pl.col(names).fill_null([]))
    keys, attributes = [*SERIES, "registered_on"], [name for name in series.columns if name not in SERIES]
    attributes.remove("registered_on")
    return pl.concat([series.select(keys), found.drop("_place"), series.select(attributes)], how="horizontal")


def plans_of(places: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of plans, once for each of the series (``places``) that they are for; ``level`` says how near they are to
    it: the place of their key in ``PLANS_OF``."""
    parts = []
    for level, key in enumerate(PLANS_OF):
        own = rows.filter(pl.col(name).is_not_null() if name in key else pl.col(name).is_null() for name in SERIES)
        own = own.drop(name for name in SERIES if name not in key).with_columns(level=pl.lit(level))
        found = places.join(own, on=key) if key else places.join(own, how="cross")
        parts.append(found.select("place", "level", *(name for name in rows.columns if name not in SERIES)))
    return pl.concat(parts)


def _planned(weeks: pl.DataFrame, places: pl.DataFrame, plans: tuple[str, ...]) -> pl.DataFrame:
    """The plans of each series: of those for it on a day the nearest."""
    rows = weeks.select(*SERIES, "plan_day", *plans).explode("plan_day", *plans).drop_nulls("plan_day")
    found = plans_of(places.rename({"_place": "place"}), rows).with_columns(pl.col(plans).fill_nan(None))
    nearest = [pl.col(name).drop_nulls().first() for name in plans]
    found = found.sort("level").group_by("place", "plan_day", maintain_order=True).agg(nearest)
    found = found.with_columns(pl.col(plans).fill_null(float("nan"))).sort("place", "plan_day")
    return found.rename({"place": "_place"}).group_by("_place", maintain_order=True).agg("plan_day", *plans)


def _lists(weeks: pl.DataFrame, by: str, day: str) -> pl.DataFrame:
    """Parallel lists of one series (or advertiser), one after the other; all columns but ``by`` are such lists."""
    values = [name for name in weeks.columns if name not in (by, day)]
    return weeks.explode(day, *values).group_by(by).agg(day, *values)


class Tables(Protocol):
    """Where tables are read from: the warehouse as it is now, or what a run has pinned."""

    def pin(self, name: str, snapshot_id: int | None = None) -> Pin: ...


def open_sequences(config: Config, tables: Tables, as_of: date, snapshot_id: int | None = None) -> SequenceFiles:
    """Plan the sequences as of a day, as they were built; ``snapshot_id``: as an earlier snapshot of the table saw it.

    Raises:
        DataError: they were never built.
        ConfigError: there is no such snapshot.
    """
    if snapshot_id is not None and not tables.pin(TABLE).knows(snapshot_id):
        raise ConfigError(f"{TABLE}: there is no snapshot {snapshot_id}; it may have expired")
    series = tables.pin(TABLE, snapshot_id)
    files = by_bucket(series.files(as_of))
    if not files or series.snapshot_id is None:
        raise DataError(
            f"{TABLE} ds={as_of}: no sequences; expected at least one series. Build them with: "
            f"python -m pipelines.build_sequences --config {config.path} --date {as_of}"
        )
    # The weeks that this day was built from; once that snapshot has expired, the newest.
    made_from = int(series.lineage().get(as_of, {}).get(INPUT + WEEK_TABLE, 0))
    known = tables.pin(WEEK_TABLE).knows(made_from)
    parts = tables.pin(WEEK_TABLE, made_from if known else None)
    first = history_start(config, as_of)
    ends = week_ends(first, as_of)
    weeks = by_bucket(file for file in parts.files(ends[0], as_of) if file.ds in ends)
    schemas = series.schema, parts.schema
    return SequenceFiles(as_of, first, series.snapshot_id, files, weeks, *schemas, config.sequence_spec)


def history_start(config: Config, as_of: date) -> date:
    """The first day that the sequences as of a day can hold."""
    return max(as_of - timedelta(days=config.history.keep_days - 1), config.dataset.first_day)


def held_out_cutoffs(config: Config, as_of: date) -> list[date]:
    """Held-out cutoffs, latest first: the last one whose label is final, then every ``every_days`` back.

    Raises:
        DataError: the data starts too late for the earliest of them.
    """
    backtest = config.backtest
    latest = as_of - timedelta(days=config.dataset.label_days)
    cutoffs = [latest - timedelta(days=backtest.every_days * i) for i in range(backtest.cutoffs)]
    if cutoffs[-1] <= config.dataset.first_day:
        raise DataError(
            f"{TABLE} ds={as_of}: the data starts on {config.dataset.first_day}, too late for {backtest.cutoffs} "
            f"held-out cutoffs: the earliest would be {cutoffs[-1]}. Lower [backtest] cutoffs, or wait for more days."
        )
    return cutoffs
