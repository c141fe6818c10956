"""One bucket of a staged table: dirt and rules counted, a file a day."""

from __future__ import annotations

import polars as pl

from pipelines.kernels.target import Target
from pipelines.quality.turnover import Turnover
from pipelines.spark import buckets
from pipelines.spark.buckets import REPORT

KNOWN_DIRT = r"^(drop|repair|merge):\S(.{0,98}\S)?$"
MAX_RULES = 100  # of one bucket: each is a line in ops.validation
MAX_SOURCE_ROWS = 10**12  # of one row: sums stay whole numbers
MISUSE = "misuse:"


def write_staged(target: Target, bucket: int, rows: pl.DataFrame, turnover: Turnover | None = None) -> pl.DataFrame:
    """Kernel of one bucket: count the dirt, drop what the SQL marked, count for the checks, write a file a day.

    A bucket in which a critical rule is broken, or the query misuses ``dirt`` or ``source_rows``, is not written: the
    run stops anyway.
    """
    if "dirt" not in rows.columns:
        rows = rows.with_columns(dirt=pl.lit(None, pl.String))
    if "source_rows" not in rows.columns:
        rows = rows.with_columns(source_rows=pl.lit(1))
    if "scenario_id" not in rows.columns:
        rows = rows.with_columns(scenario_id=pl.lit(None, pl.String))
    # A day that Python has no word for (year 0, 10000) is none, and other_day counts it.
    rows = rows.with_columns(ds=pl.when(pl.col("ds").dt.year().is_between(1, 9999)).then("ds"))
    if (misuse := count_misuse(bucket, rows, target.key)).height:
        return misuse
    kept = rows.filter(pl.col("dirt").is_null() | ~pl.col("dirt").str.starts_with("drop:")).sort(
        *target.key, nulls_last=True
    )
    counted = target.count(bucket, _once(bucket, kept))
    reports = [count_dirt(bucket, _once(bucket, rows), target.key), counted]
    if turnover:
        reports.append(turnover.count(bucket, kept))
    critical = [rule.check.counter for rule in target.rules if rule.check.severity == "critical"]
    if counted.filter(pl.col("counter").is_in(critical)).is_empty():
        for (ds,), part in kept.group_by("ds", maintain_order=True):
            reports.append(target.write(bucket, part, ds))
    return buckets.concat(reports)


def _once(bucket: int, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of no advertiser are in every bucket (staged.known_future), and counted in the first."""
    return rows.filter(pl.col("advertiser_id").is_not_null()) if bucket and "advertiser_id" in rows.columns else rows


def count_misuse(bucket: int, rows: pl.DataFrame, key: tuple[str, ...]) -> pl.DataFrame:
    """Rows whose ``dirt`` says nothing known, or whose ``source_rows`` is no count; with the key of the first."""
    shown = [pl.col(name).cast(pl.String).str.slice(0, 60).fill_null("null") for name in key if name != "ds"]
    unknown, found = ~pl.col("dirt").str.contains(KNOWN_DIRT), []
    for column, misused in (
        ("dirt", unknown | (pl.col("dirt").is_not_null() & (pl.col("dirt").n_unique() > MAX_RULES))),
        ("source_rows", ~pl.col("source_rows").fill_null(-1).is_between(0, MAX_SOURCE_ROWS)),
    ):
        wrong = rows.filter(misused).sort(*key, nulls_last=True)
        if wrong.height:
            value = pl.col(column).cast(pl.String).str.slice(0, 60).fill_null("null")
            example = wrong.select(pl.format("{}\n({})", value, pl.concat_str(shown, separator=", ")))[0, 0]
            found.append((bucket, None, None, f"{MISUSE}{column}", float(wrong.height), example))
    return pl.DataFrame(found, schema=REPORT, orient="row")


def count_dirt(bucket: int, rows: pl.DataFrame, key: tuple[str, ...]) -> pl.DataFrame:
    """Source rows per day, scenario and dirt rule, as counters ``dirt:<action>:<rule>``."""
    shown = [pl.col(name).cast(pl.String).fill_null("null") for name in key if name != "ds"]
    return (
        rows.filter(pl.col("dirt").is_not_null())
        .group_by("ds", "scenario_id", "dirt")
        .agg(
            pl.sum("source_rows").cast(pl.Float64).alias("value"),
            pl.concat_str(shown, separator=", ").first().alias("example"),
        )
        .select(
            pl.lit(bucket, pl.Int32).alias("bucket"),
            "ds",
            "scenario_id",
            pl.format("dirt:{}", "dirt").alias("counter"),
            "value",
            "example",
        )
        .cast(REPORT)
    )
