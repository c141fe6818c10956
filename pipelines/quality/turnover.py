"""Who is new and who is gone: an advertiser whose id is spelled otherwise overnight is both, and so is its history.

Each bucket counts its own advertisers, for another spelling has another bucket; the driver adds up. Counted is by heads
and by value, the first metric of money: the many small ones can change, or the few large ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl
import pyarrow as pa

from pipelines.config import Config, Severity
from pipelines.quality.rules import Check, settable
from pipelines.spark.buckets import REPORT
from pipelines.warehouse.files import DataFile, by_bucket, read_files

NEW_DAYS = 28  # new is who has no row in so many days before: a shop closes for twelve of them at the turn of a year
GONE_DAYS = 7  # gone is who had one in so many
_FIRST_WEEK = 0.9  # before there are seven days to compare with, nearly all must have changed
_LEAST = 3  # so few come and go on any day
_COUNTED = "turnover:"
_EPOCH = date(1970, 1, 1)
_DAYS = 2**22  # more than there are days


@dataclass(frozen=True)
class Turnover:
    """What a worker counts of ``first``..``last``, with the files of the days before them, by bucket."""

    first: date
    last: date
    value: str
    before: Mapping[int, Sequence[DataFile]]
    schema: pa.Schema

    @classmethod
    def of(cls, config: Config, files: Sequence[DataFile], schema: pa.Schema, first: date, last: date) -> Turnover:
        """``files`` are those of the ``NEW_DAYS`` before ``first``."""
        money = [metric.name for metric in config.performance if metric.kind == "money"]
        return cls(first, last, (money or list(config.metric_names))[0], by_bucket(files), schema)

    def count(self, bucket: int, rows: pl.DataFrame | None = None) -> pl.DataFrame:
        """Report of one bucket whose rows of ``first``..``last`` are these: advertisers and value, by day, of who is
        here, new, of the week before, and of these gone."""
        columns = ["advertiser_id", "ds", self.value]
        before = read_files(self.before.get(bucket, ()), self.schema, columns)
        rows = before if rows is None else pl.concat([before, rows.select(columns)])
        since = self.first - timedelta(days=NEW_DAYS)  # a row of another day stops the run, and is no one's history
        rows = rows.filter(pl.col("advertiser_id").is_not_null(), pl.col("ds").is_between(since, self.last))
        ids = rows["advertiser_id"].unique()
        # Advertiser and day as one number: two keys of text and date take three times as long.
        place, day = (
            pl.col("advertiser_id").cast(pl.Enum(ids)).to_physical().cast(pl.Int64),
            pl.col("ds").cast(pl.Int32),
        )
        keyed = rows.select(key=place * _DAYS + day, value=self.value).sort("key")
        by_day = keyed.group_by("key", maintain_order=True).agg(pl.sum("value"))
        seen = by_day.select("value", place=pl.col("key") // _DAYS, day=pl.col("key") % _DAYS)
        day, same = pl.col("day"), pl.col("place") == pl.col("place").shift(1)
        seen = seen.with_columns(
            since=pl.when(same).then(day - day.shift(1)),
            was=pl.when(same).then(pl.col("value").shift(1)),
            until=pl.when(same.shift(-1)).then(day.shift(-1)),
        )
        first, last = ((ds - _EPOCH).days for ds in (self.first, self.last))
        here = seen.filter(day.is_between(first, last))
        back = here.filter(pl.col("since") <= GONE_DAYS).with_columns(value="was")
        missed = seen.with_columns(
            start=pl.max_horizontal(day + 1, pl.lit(first)),
            end=pl.min_horizontal(day + GONE_DAYS, pl.col("until") - 1, pl.lit(last)),
        ).filter(pl.col("start") <= pl.col("end"))
        gone = missed.with_columns(day=pl.int_ranges("start", pl.col("end") + 1)).explode("day")
        parts = {
            "here": here,
            "new": here.filter(pl.col("since").is_null() | (pl.col("since") > NEW_DAYS)),
            "recent": pl.concat([part.select("place", "day", "value") for part in (back, gone)]),
            "gone": gone,
        }
        return pl.concat(_report(bucket, name, part, ids) for name, part in parts.items())


def _report(bucket: int, name: str, part: pl.DataFrame, ids: pl.Series) -> pl.DataFrame:
    """Heads and value of one part by day, with the id that is the least when spelling is left out."""
    counted = part.group_by("day").agg(heads=pl.len(), worth=pl.sum("value"))
    if name in ("new", "gone"):
        named = part.select("day", id=ids.gather(part["place"]))
        counted = counted.join(named.group_by("day").agg(example=_least("id")), on="day")
    else:
        counted = counted.with_columns(example=pl.lit(None, pl.String))
    return pl.concat(
        counted.select(
            pl.lit(bucket, pl.Int32).alias("bucket"),
            pl.from_epoch("day", time_unit="d").alias("ds"),
            pl.lit(None, pl.String).alias("scenario_id"),
            pl.lit(f"{_COUNTED}{name}{suffix}").alias("counter"),
            pl.col(column).cast(pl.Float64).alias("value"),
            "example",
        )
        for suffix, column in (("", "heads"), (":value", "worth"))
    ).cast(REPORT)


def _least(column: str) -> pl.Expr:
    """The least id when spelling is left out: of the new and of the gone, it is then mostly the same advertiser."""
    plain = pl.col(column).str.strip_chars().str.to_lowercase().str.replace_all(r"^0+|\.0+$", "")
    return pl.col(column).sort_by(plain, column).first()


def turnover_counters(report: pl.DataFrame, staged: Collection[date], value: str, most: float) -> pl.DataFrame:
    """The report with, in place of its counts of turnover, the shares that are judged.

    Args:
        staged: the days that there are rows of, in the report and in the ``NEW_DAYS`` before it.
        most: the largest share that is allowed: beyond it, ids that changed are not said to be new as well.
    """
    ours = pl.col("counter").str.starts_with(_COUNTED)
    summed = report.filter(ours).group_by("ds", "counter").agg(pl.sum("value"), _least("example"))
    found: dict[date, dict[str, tuple[float, str]]] = {}
    for ds, counter, total, example in summed.iter_rows():
        found.setdefault(ds, {})[counter.removeprefix(_COUNTED)] = total, example
    shares = []
    for ds, parts in sorted(found.items()):
        known = [day for day in staged if ds - timedelta(days=NEW_DAYS) <= day < ds]
        if not known or "here" not in parts:
            continue
        nothing = 0.0, ""
        (here, _), (new, new_id), (recent, _), (gone, gone_id) = (
            parts.get(name, nothing) for name in ("here", "new", "recent", "gone")
        )
        worth = {name: parts.get(f"{name}:value", nothing)[0] for name in ("here", "new", "recent", "gone")}
        came = new / here, _share(worth["new"], worth["here"])
        went = _share(gone, recent), _share(worth["gone"], worth["recent"])
        both = max(map(min, came, went))
        words = f'{new:.0f} of {here:.0f} advertisers, with {came[1]:.0%} of {value}, are new, such as "{new_id}"'
        left = f'{gone:.0f} of {recent:.0f} of the week before, with {went[1]:.0%}, are gone, such as "{gone_id}"'
        young = (ds - min(known)).days < GONE_DAYS
        if min(new, gone) >= _LEAST and (not young or both > _FIRST_WEEK):
            shares.append((None, ds, None, "changed_ids", both, f"{words}; {left}"))
        if new >= _LEAST and not young and (both <= most or gone < _LEAST):
            shares.append((None, ds, None, "new_advertisers", max(came), words))
    return pl.concat([report.filter(~ours), pl.DataFrame(shares, schema=REPORT, orient="row")])


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def turnover_rules(config: Config, daily: bool) -> list[Check]:
    """Checks on who is new and gone. In a load of many past days nothing can be asked of the source any more."""
    most = config.checks.new_max_ratio
    usual: Severity = "critical" if daily else "warning"
    swapped = f"at most {most:.0%} new while as many are gone: is an id spelled otherwise?"
    new = f"at most {most:.0%} new, without a row in the {NEW_DAYS} days before"
    return [
        settable(config, "changed_ids", swapped, "advertiser_id", severity=usual, max_value=most),
        settable(config, "new_advertisers", new, "advertiser_id", severity="warning", max_value=most),
    ]
