"""The rules on data: what is counted in the build's own pass, and what each count must be.

Each rule here is a mask over rows (counted per day and scenario, with one example) and the ``Check`` that judges the
count; ``pipelines.quality.judge`` runs them with Great Expectations before a commit.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import polars as pl

from pipelines.config import ALL_SCENARIOS, Config, Severity
from pipelines.spark.buckets import REPORT

if TYPE_CHECKING:
    import pandas as pd

ABSURD = 1e15  # beyond any count or amount; doubles stop telling whole numbers apart soon after


@dataclass(frozen=True)
class Check:
    """One rule on one counter: every value is at least ``min_value`` and at most ``max_value``, where given.

    ``column`` is the data column it is about (None: the whole row or day), ``expected`` says in words what must hold.

    Raises:
        ValueError: neither bound is given.
    """

    name: str
    column: str | None
    counter: str
    expected: str
    max_value: float | None = None
    min_value: float | None = None
    severity: Severity = "critical"

    def __post_init__(self) -> None:
        if self.max_value is None and self.min_value is None:
            raise ValueError(f"check {self.title}: expected max_value or min_value, found neither")

    @property
    def title(self) -> str:
        return f"{self.name} {self.column}" if self.column else self.name


@dataclass(frozen=True)
class Rule:
    """Rows that break it are counted; ``show`` is the column whose value the example carries.

    A mask of one column looks at each value by itself.
    """

    check: Check
    mask: pl.Expr
    show: str | None = None


def settable(
    config: Config,
    name: str,
    expected: str,
    column: str | None = None,
    counter: str = "",
    severity: Severity = "critical",
    **bounds: float,
) -> Check:
    """A check of the ``severity`` given, unless [checks] severity says otherwise; without bounds none may break it."""
    severity = config.checks.severity.get(name, severity)
    return Check(name, column, counter or name, expected, severity=severity, **(bounds or {"max_value": 0}))


def row_rules(
    config: Config,
    key: Sequence[str],
    first: date,
    last: date,
    amounts: Mapping[str, str],
    scenarios: frozenset[str] | None = None,
    not_above: Iterable[tuple[str, str]] = (),
    null_scenario: bool = False,
    attributes: Iterable[str] = (),
) -> list[Rule]:
    """Rules on the rows of a staged table.

    Args:
        key: its key columns.
        first: first day the rows may be of.
        last: last day the rows may be of.
        amounts: its numeric columns and their kind; all but a ``ratio`` must not be negative.
        scenarios: the scenarios that exist; None when the data set does not list them.
        not_above: pairs [small, large] of columns with small <= large.
        null_scenario: whether a null scenario has a meaning (all scenarios).
        attributes: its columns of text.
    """
    rules: list[Rule] = []

    def rule(
        name: str,
        column: str | None,
        expected: str,
        mask: pl.Expr,
        severity: Severity = "critical",
        show: str | None = None,
    ) -> None:
        check = settable(config, name, expected, column, f"{name}.{column}" if column else name, severity)
        rules.append(Rule(check, mask.fill_null(False), show or column))

    if "ds" in key:
        outside = pl.col("ds").is_null() | ~pl.col("ds").is_between(first, last)
        rule("other_day", "ds", f"every row is of {first}..{last}", outside)
    limit = config.checks.id_max_length
    lost = "no U+FFFD, which stands for bytes that are not UTF-8; [[source]] options: encoding"
    for column in (name for name in ("advertiser_id", "scenario_id") if name in key):
        value = pl.col(column)
        if not (null_scenario and column == "scenario_id") and "for_day" not in key:  # a plan may be for all
            rule("null_id", column, "no null", value.is_null())
        rule("empty_id", column, "no empty text", value.str.strip_chars() == "")
        # It would be another advertiser, without a history.
        rule("padded_id", column, "no blanks around it", value.str.strip_chars() != value, "warning")
        if column == "advertiser_id":
            was_number = value.str.contains(r"^\d+\.0$|^\d(\.\d+[eE]\+?|[eE]\+)\d+$")
            rule("number_id", column, "no 1000037.0 or 1.0E6, which was a number on its way", was_number, "warning")
        rule("long_id", column, f"at most {limit} characters", value.str.len_chars() > limit)
        rule("control_characters", column, "no control characters", value.str.contains(r"\p{Cc}"))
        rule("lost_characters", column, lost, value.str.contains("\ufffd", literal=True))
        rule("not_ascii", column, "only ASCII characters", value.str.len_bytes() != value.str.len_chars(), "warning")
    if "scenario_id" in key:
        reserved = pl.col("scenario_id") == ALL_SCENARIOS
        rule("reserved_id", "scenario_id", f"not {ALL_SCENARIOS}, which is all scenarios together", reserved)
    for column in attributes:
        longest = config.checks.attribute_max_length
        rule("long_attribute", column, f"at most {longest} characters", pl.col(column).str.len_chars() > longest)
        rule("control_characters", column, "no control characters", pl.col(column).str.contains(r"\p{Cc}"))
        rule("lost_characters", column, lost, pl.col(column).str.contains("\ufffd", literal=True))
    if scenarios is not None and "scenario_id" in key:
        known = pl.col("scenario_id").is_in(sorted(scenarios)) | pl.col("scenario_id").is_null()
        rule("unknown_scenario", "scenario_id", "one of scenario.sql's", ~known)
    planned = "for_day" in key
    if planned:
        past = pl.col("for_day").is_null() | (pl.col("for_day") <= pl.col("ds"))
        rule("plan_of_the_past", "for_day", "for_day after ds: a plan is of days to come", past)
    rule("duplicate_key", None, f"one row per ({', '.join(key)})", repeated(key))
    for column, kind in amounts.items():
        value = pl.col(column)
        if not planned:  # of one plan nothing may be known where another is
            rule("null", column, "no null: a day without a row is missing, a row has all its values", value.is_null())
        rule("nan", column, "no NaN", value.is_nan())
        rule("infinite", column, "finite", value.is_infinite())
        rule("absurd", column, f"at most {ABSURD:.0e}", value.abs().is_between(ABSURD, float("inf"), closed="none"))
        if kind != "ratio":
            rule("negative", column, "at least 0", value < 0)
    for small, large in not_above:
        rule("not_above", f"{small},{large}", f"{small} <= {large}", pl.col(small) > pl.col(large), show=small)
    return rules


def critical_rules(broken: Mapping[str, tuple[str, pl.Expr]]) -> list[Rule]:
    """Rules that stop a run, by name: what is expected, and the mask of the rows that break it."""
    return [
        Rule(Check(name, None, name, expected, max_value=0), mask.fill_null(False))
        for name, (expected, mask) in broken.items()
    ]


def repeated(key: Sequence[str]) -> pl.Expr:
    """Rows in key order that have the key of the row before them."""
    same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(name).shift(1)) for name in key)
    return same & (pl.int_range(pl.len()) > 0)


def count_rows(bucket: int, rows: pl.DataFrame, rules: Sequence[Rule], key: Sequence[str]) -> pl.DataFrame:
    """Report of one bucket: rows, and rows that break each rule, per day and scenario, with one example.

    Args:
        rows: in key order.
    """
    # A rule is rarely broken, and asking so is cheap; counting by day and scenario, with examples, costs 27 times more.
    rules = _broken(rows, rules, key)
    by = [
        pl.col("ds"),
        pl.col("scenario_id") if "scenario_id" in rows.columns else pl.lit(None, pl.String).alias("scenario_id"),
    ]
    masked = rows.with_columns(rule.mask.alias(f"!{rule.check.counter}") for rule in rules)
    aggregates = [pl.len().cast(pl.Float64).alias("rows|value"), pl.lit(None, pl.String).alias("rows|example")]
    for rule in rules:
        broken = pl.col(f"!{rule.check.counter}")
        shown = [pl.col(name).cast(pl.String).str.slice(0, 60).fill_null("null") for name in key if name != "ds"]
        example = pl.format("({})", pl.concat_str(shown, separator=", "))
        if rule.show and rule.show not in key:
            value = pl.col(rule.show).cast(pl.String).str.slice(0, 60).fill_null("null")
            example = pl.format("{} {}={}", example, pl.lit(rule.show), value)
        aggregates += [
            broken.sum().cast(pl.Float64).alias(f"{rule.check.counter}|value"),
            example.filter(broken).first().alias(f"{rule.check.counter}|example"),
        ]
    wide = masked.group_by(by).agg(aggregates)
    counters = ["rows", *(rule.check.counter for rule in rules)]
    parts = [
        wide.select(
            pl.lit(bucket, pl.Int32).alias("bucket"),
            "ds",
            "scenario_id",
            pl.lit(counter).alias("counter"),
            pl.col(f"{counter}|value").alias("value"),
            pl.col(f"{counter}|example").alias("example"),
        )
        for counter in counters
    ]
    report = pl.concat(parts).cast(REPORT)
    return report.filter((pl.col("value") > 0) | (pl.col("counter") == "rows"))


def _broken(rows: pl.DataFrame, rules: Sequence[Rule], key: Sequence[str]) -> list[Rule]:
    """The rules that any row breaks. What is about an id alone is asked of each id once."""
    asked: dict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        columns = set(rule.mask.meta.root_names())
        alone = next(iter(columns)) if len(columns) == 1 else ""
        asked[alone if alone in key and rows.schema[alone] == pl.String else ""].append(rule)
    broken = []
    for column, of_column in asked.items():
        frame = rows.select(pl.col(column).unique()) if column else rows
        answers = frame.select(rule.mask.any().alias(f"{n}") for n, rule in enumerate(of_column)).row(0)
        broken += [rule for rule, answer in zip(of_column, answers, strict=True) if answer]
    return broken


def counters_frame(report: pl.DataFrame, checks: Sequence[Check]) -> pd.DataFrame:
    """One row per (ds, scenario) with a column per counter and its example.

    What was not counted is 0 under an upper bound, and null, which is not judged, under a lower one.
    """
    summed = report.group_by("ds", "scenario_id", "counter").agg(
        pl.sum("value"), pl.col("example").drop_nulls().first()
    )
    frame = summed.select("ds", "scenario_id").unique().sort("ds", "scenario_id")
    for counter, lower in {check.counter: check.max_value is None for check in checks}.items():
        one = summed.filter(counter=counter).select(
            "ds", "scenario_id", pl.col("value").alias(counter), pl.col("example").alias(f"{counter}!example")
        )
        frame = frame.join(one, on=["ds", "scenario_id"], how="left", nulls_equal=True)
        if not lower:
            frame = frame.with_columns(pl.col(counter).fill_null(0.0))
    return frame.to_pandas()


def day_rules(config: Config, volume: Severity) -> list[Check]:
    """Checks on whole days; ``volume`` is how bad a day far below the usual is, unless [checks] severity says."""
    least = config.checks.volume_min_ratio
    more = math.nextafter(least, 2)  # exactly half of the rows is what one of two files holds
    usual = f"more than {least:.0%} of the usual rows"
    return [
        settable(config, "empty_day", "at least one row"),
        settable(config, "volume", usual, counter="volume_ratio", severity=volume, min_value=more),
    ]


def day_counters(rows_by_day: Mapping[date, int], days: Sequence[date]) -> pl.DataFrame:
    """Report on whole days: empty or not, and its rows relative to the usual ones.

    The usual volume is the median of the last four same weekdays, or of the last seven days while there are fewer than
    two of them; ``rows_by_day`` holds the days that are being written and those already in the warehouse.
    """
    found = []
    for ds in days:
        weekdays = [rows_by_day[d] for week in range(1, 5) if (d := ds - timedelta(weeks=week)) in rows_by_day]
        recent = [rows_by_day[d] for back in range(1, 8) if (d := ds - timedelta(days=back)) in rows_by_day]
        sample = weekdays if len(weekdays) >= 2 else recent
        usual = statistics.median(sample) if len(sample) >= 2 else 0
        rows = rows_by_day.get(ds, 0)
        found.append((None, ds, None, "empty_day", float(rows == 0), "0 rows"))
        if usual and rows:  # no row at all is empty_day's to judge
            found.append((None, ds, None, "volume_ratio", rows / usual, f"{rows} rows, usually {usual:g}"))
    return pl.DataFrame(found, schema=REPORT, orient="row")
