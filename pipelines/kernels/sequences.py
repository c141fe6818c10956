"""One bucket of the sequences: the parts of weeks that are not there, then the list of all series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl
import pyarrow as pa

from m2m_model.data.spec import Plan
from pipelines.kernels.target import Target
from pipelines.spark import buckets
from pipelines.warehouse.files import DataFile, fingerprint, read_files
from pipelines.warehouse.sequences import SERIES, WEEK_TABLE, newcomers_since

_EPOCH = date(1970, 1, 1)
WEEK = "week:"
_OF_THE_PAST = ("ds", "bucket", "advertiser_id", "registered_on")  # of a profile, what is no attribute


@dataclass(frozen=True)
class Week:
    """One part of a week of one bucket: the file that is there already, or the staged files to make it from.

    ``made_from`` is the fingerprint of all that decides its rows. It names the file, so a restated day is noticed, and
    touches the buckets whose rows changed alone.
    """

    end: date
    made_from: str
    there: DataFile | None
    inputs: dict[str, list[DataFile]]


@dataclass(frozen=True)
class Build:
    """One build, as every bucket needs it. ``profiles`` are the newest ones by bucket; ``schemas`` those of the tables
    that are read."""

    ds: date
    first: date
    weeks: dict[int, list[Week]]
    profiles: dict[int, DataFile]
    scenarios: pl.DataFrame
    metrics: tuple[str, ...]
    behaviors: tuple[str, ...]
    plans: tuple[Plan, ...]
    schemas: dict[str, pa.Schema]
    week: Target
    series: Target


def build_bucket(job: Build, bucket: int) -> pl.DataFrame:
    """Kernel of one bucket: make the parts that are not there, then list the series of all of them."""
    weeks, schemas = job.weeks[bucket], job.schemas
    known = read_files((week.there for week in weeks if week.there), schemas[WEEK_TABLE], ["ds", *SERIES, "day"])
    parts, reports = [known], []
    for week in weeks:
        if week.there:
            continue
        staged = {name: read_files(files, schemas[name]) for name, files in week.inputs.items()}
        performance, behavior = staged["staged.performance_daily"], staged.get("staged.behavior_daily")
        planned = staged.get("staged.known_future")
        rows = week_of(performance, behavior, job.metrics, job.behaviors, planned, job.plans)
        rows = rows.with_columns(ds=pl.lit(week.end), bucket=pl.lit(bucket, pl.Int32))
        counted = [job.week.count(bucket, rows), job.week.write(bucket, rows, week.end, week.made_from)]
        reports += [buckets.prefixed(WEEK, part) for part in counted]
        parts.append(rows.select(known.columns))
    profile = [job.profiles[bucket]] if bucket in job.profiles else []
    profiles = read_files(profile, schemas["staged.advertiser"]) if "staged.advertiser" in schemas else None
    if profiles is not None and profile and profile[0].ds > job.ds:
        told_later = [name for name in profiles.columns if name not in _OF_THE_PAST]
        profiles = profiles.with_columns(pl.lit(None, pl.String).alias(name) for name in told_later)
    series = series_of(pl.concat(parts), job.first, job.ds, profiles, job.scenarios)
    series = series.with_columns(ds=pl.lit(job.ds), bucket=pl.lit(bucket, pl.Int32))
    reports.append(job.series.count(bucket, series))
    if series.height:
        made_from = fingerprint(
            str(job.first),
            *(week.made_from for week in weeks),
            *(file.fingerprint for file in profile),
            job.scenarios.write_json(),
            *job.series.schema.names,
        )
        reports.append(job.series.write(bucket, series, job.ds, made_from))
    return buckets.concat(reports)


def week_of(
    performance: pl.DataFrame,
    behavior: pl.DataFrame | None,
    metrics: tuple[str, ...],
    behaviors: tuple[str, ...],
    planned: pl.DataFrame | None = None,
    plans: Sequence[Plan] = (),
) -> pl.DataFrame:
    """Staged rows of some days -> one row per (advertiser, scenario), in that order, with its days as parallel lists.

    Behavior and plans without a scenario stay a row without one: which scenarios they count in is known when the
    history is put together.
    """
    day = pl.col("ds").cast(pl.Int32)

    def listed(rows: pl.DataFrame, name: str, values: Sequence[str]) -> pl.DataFrame:
        rows = rows.sort(*SERIES, "ds")
        return rows.group_by(SERIES, maintain_order=True).agg(day.alias(name), *values)

    acted = pl.DataFrame(
        schema=dict.fromkeys(SERIES, pl.String)
        | {"behavior_day": pl.List(pl.Int32)}
        | dict.fromkeys(behaviors, pl.List(pl.Float64))
    )
    if behavior is not None and behavior.height:
        acted = listed(behavior, "behavior_day", behaviors)
    rows = listed(performance, "day", metrics).join(acted, on=SERIES, how="full", coalesce=True, nulls_equal=True)
    names = ["day", *metrics, "behavior_day", *behaviors]
    if planned is not None:
        columns = [plan.column for plan in plans]
        ahead = listed(known_ahead(planned, plans), "plan_day", columns)
        rows = rows.join(ahead, on=SERIES, how="full", coalesce=True, nulls_equal=True)
        names += ["plan_day", *columns]
    lists = pl.col(names)
    return rows.with_columns(lists.fill_null([])).sort(SERIES, nulls_last=True)


def known_ahead(planned: pl.DataFrame, plans: Sequence[Plan]) -> pl.DataFrame:
    """Rows of staged.known_future -> what each series' plans, as known at the end of a day, say of the days after it: a
    column a plan, NaN where it says nothing; a row a day on which any says something."""
    ahead, columns = (pl.col("for_day") - pl.col("ds")).dt.total_days(), []
    for plan in plans:
        value = pl.col(plan.covariate.name).filter(ahead <= plan.days)
        amount = value.mean() if plan.covariate.kind == "ratio" else value.sum()
        columns.append(pl.when(value.count() > 0).then(amount).otherwise(float("nan")).alias(plan.column))
    # Sums of doubles hang on their order.
    found = planned.sort(*SERIES, "ds", "for_day").group_by(*SERIES, "ds", maintain_order=True).agg(columns)
    return found.filter(pl.any_horizontal(pl.col(plan.column).is_not_nan() for plan in plans))


def series_of(
    days: pl.DataFrame, first: date, last: date, advertiser: pl.DataFrame | None, scenario: pl.DataFrame
) -> pl.DataFrame:
    """Every series with a performance row on ``first`` or later, and those that newcomers without any may begin, in key
    order, with their attributes.

    ``registered_on`` is the profile's date or the first row's day, whichever is earlier.

    Args:
        days: rows (ds, advertiser_id, scenario_id, day) of features.sequence_week, up to ``last``.
    """
    start = (first - _EPOCH).days
    days = days.filter(pl.col("day").list.len() > 0)
    # Only the oldest week can reach back before the history's first day.
    oldest = pl.col("ds") < first + timedelta(days=7)
    cut = days.filter(oldest).explode("day").filter(pl.col("day") >= start)
    rest = days.filter(~oldest).with_columns(pl.col("day").list.first())
    series = pl.concat([cut, rest]).group_by(SERIES).agg(pl.col("day").min()).sort(SERIES)
    series = series.with_columns(_first_row=pl.from_epoch("day", time_unit="d").cast(pl.Date)).drop("day")
    if advertiser is not None:
        series = pl.concat([series, _not_begun(series, newcomers_since(first, last), last, advertiser)]).sort(SERIES)
    if advertiser is None:
        series = series.with_columns(registered_on=pl.lit(None, pl.Date))
    else:
        series = series.join(advertiser.drop("ds", "bucket"), on="advertiser_id", how="left", maintain_order="left")
    series = series.join(scenario, on="scenario_id", how="left", maintain_order="left")
    return series.with_columns(registered_on=pl.min_horizontal("registered_on", "_first_row")).drop("_first_row")


def _not_begun(series: pl.DataFrame, since: date, last: date, advertiser: pl.DataFrame) -> pl.DataFrame:
    """All scenarios of each advertiser that registered ``since`` then and has no row: some may yet begin, and those
    that never did tell that not all do."""
    new = advertiser.filter(pl.col("registered_on").is_between(since, last))
    new = new.select("advertiser_id").join(series, on="advertiser_id", how="anti")
    pairs = new.join(series.select(pl.col("scenario_id").unique()), how="cross")
    return pairs.with_columns(_first_row=pl.lit(None, pl.Date))
