"""A warehouse to look at: made-up rows in the tables' own schemas, committed as the stages do it, without Spark.

    python -m benchmarks.console_bed --advertisers 1000000 --folder /tmp/bed

For timings and tests: the figures mean nothing, the sizes, files and commits are those of a home that ran for a while.
An advertiser has one to four scenarios, 1.75 on average, as in examples/simulated.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.measure import ROOT
from pipelines.config import Config, load_config
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.files import DataFile, write_file
from pipelines.warehouse.sequences import week_ends
from pipelines.warehouse.store import Folder
from pipelines.warehouse.tables import DECLARATIONS

ADVERTISERS_A_BUCKET = 12_500  # as in benchmarks/scale.py
SCENARIOS = np.array(["banner", "feed", "search", "video"])
INDUSTRIES = np.array(["apps", "education", "fashion", "finance", "food", "games", "retail", "travel"])
TIERS = np.array(["small", "medium", "large"])
HOW_MANY = [0.52, 0.27, 0.15, 0.06]  # of 1, 2, 3 and 4 scenarios
METHODS = np.array(["m2m", "blend:last_h_days@0.7", "baseline:lightgbm_l1", "silent"])
TASKS = ("spend", "clicks", "active_days")
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Bed:
    """How large, and as of when; ``past`` are earlier days with a forecast."""

    advertisers: int
    weeks: int
    past: tuple[date, ...]
    last: date

    @property
    def first(self) -> date:
        return self.last - timedelta(days=7 * self.weeks - 1)


def series_of(bed: Bed, buckets: int, bucket: int) -> dict[str, NDArray[Any]]:
    """The series of a bucket in key order: id, scenario, attributes, size a day."""
    ids = np.arange(bucket, bed.advertisers, buckets)
    random = np.random.default_rng(bucket)
    counts = random.choice(4, len(ids), p=HOW_MANY) + 1
    chosen = np.argsort(random.random((len(ids), 4)), 1) < counts[:, None]
    owner, scenario = np.nonzero(chosen)
    size = 20 * random.lognormal(0, 1.5, len(ids))
    industry, tier = random.integers(len(INDUSTRIES), size=len(ids)), random.choice(3, len(ids), p=[0.7, 0.24, 0.06])
    names = np.array([f"adv_{number:07d}" for number in ids])
    return {
        "advertiser_id": names[owner],
        "scenario_id": SCENARIOS[scenario],
        "industry": INDUSTRIES[industry][owner],
        "tier": TIERS[tier][owner],
        "size": size[owner] * random.uniform(0.4, 1.0, len(owner)),
    }


def sequences(bed: Bed, of: Mapping[str, NDArray[Any]], ds: date) -> pl.DataFrame:
    placement = np.where(of["scenario_id"] == "search", "results", "page")
    columns = {name: of[name] for name in ("advertiser_id", "scenario_id", "industry", "tier")}
    return pl.DataFrame({**columns, "placement": placement, "format": placement}).with_columns(
        registered_on=pl.lit(bed.first)
    )


def weeks(bed: Bed, of: Mapping[str, NDArray[Any]], ds: date) -> pl.DataFrame:
    """A week's part: lists of days up to ``ds``, and behaviors on one of them."""
    days = ds.weekday() + 1
    random = np.random.default_rng(ds.toordinal())
    series, day = np.nonzero(random.random((len(of["size"]), days)) < 0.85)
    season = 1 + 0.25 * np.sin(2 * np.pi * (day / 7))
    spend = np.round(of["size"][series] * season * random.uniform(0.6, 1.4, len(day)), 2)
    epoch = (ds - date(1970, 1, 1)).days - days + 1
    rows = pl.DataFrame(
        {
            "series": series,
            "day": (day + epoch).astype(np.int32),
            "impressions": np.floor(spend * 40),
            "clicks": np.floor(spend * 2),
            "spend": spend,
            "conversions": np.floor(spend / 10),
        }
    )
    lists = rows.group_by("series", maintain_order=True).agg(pl.all())
    keys = pl.DataFrame({name: of[name] for name in ("advertiser_id", "scenario_id")}).with_row_index("series")
    return keys.with_columns(pl.col("series").cast(pl.Int64)).join(lists, on="series").drop("series")


def figures(mean: Numbers, task: str, random: np.random.Generator) -> dict[str, Numbers]:
    """Quantiles about a mean, in order; days stay within the horizon."""
    if task == "active_days":
        mean = np.minimum(7.0, 7 * mean / (mean + 1))
    spread = {"p05": 0.45, "p25": 0.75, "median": 0.95, "p75": 1.2, "p95": 1.8}
    found: dict[str, Numbers] = {name: np.round(mean * factor, 2) for name, factor in spread.items()}
    if task == "active_days":
        found = {name: np.minimum(7.0, np.round(value)) for name, value in found.items()}
    p_zero: Numbers = np.where(random.random(len(mean)) < 0.05, random.random(len(mean)).round(3), 0.01)
    return {
        "point": found["median"],
        "mean": np.round(mean, 3),
        "p_zero": p_zero,
        **found,
    }


def forecasts(bed: Bed, of: Mapping[str, NDArray[Any]], ds: date) -> pl.DataFrame:
    parts = []
    for task in TASKS:
        random = np.random.default_rng(ds.toordinal() * 7 + len(task))
        mean = (
            of["size"]
            * 6
            * random.uniform(0.8, 1.2, len(of["size"]))
            * {"spend": 1, "clicks": 2, "active_days": 1}[task]
        )
        keys = {name: of[name] for name in ("advertiser_id", "scenario_id")}
        method = METHODS[random.choice(4, len(mean), p=[0.5, 0.3, 0.15, 0.05])]
        parts.append(
            pl.DataFrame({**keys, **figures(mean, task, random), "method": method}).with_columns(task=pl.lit(task))
        )
    return pl.concat(parts).with_columns(
        horizon_days=pl.lit(7, pl.Int32), model_version=pl.lit("3"), sequence_snapshot_id=pl.lit(1)
    )


def risks(made: pl.DataFrame) -> pl.DataFrame:
    keys = ["advertiser_id", "scenario_id", "horizon_days"]
    days, money = made.filter(task="active_days"), made.filter(task="spend")
    both = days.select(*keys, probability="p_zero").join(money.select(*keys, "mean"), on=keys)
    return both.with_columns(value_at_risk=pl.col("probability") * pl.col("mean")).drop("mean")


def totals(made: pl.DataFrame, by: str, level: str, name: str | None = None) -> pl.DataFrame:
    """Sums, with an interval narrower than its parts'."""
    value = pl.lit(None, pl.String) if not by else pl.col(by)
    sums = (
        made.with_columns(value=value)
        .group_by("value", "task", "horizon_days")
        .agg(
            pl.len().cast(pl.Int64).alias("series"),
            pl.sum("point", "mean", "median"),
            pl.min("p_zero"),
            *(
                (pl.col("mean").sum() + 0.4 * (pl.col(q) - pl.col("mean")).sum()).alias(q)
                for q in ("p05", "p25", "p75", "p95")
            ),
        )
    )
    return sums.with_columns(
        level=pl.lit(level), name=pl.lit(name, pl.String), model_version=pl.lit("3"), sequence_snapshot_id=pl.lit(1)
    )


def paths(made: pl.DataFrame, ds: date) -> pl.DataFrame:
    days = pl.DataFrame({"n": range(1, 8)}).with_columns(
        day=pl.lit(ds) + pl.duration(days=pl.col("n")), share=pl.col("n") / 7
    )
    rows = made.join(days, how="cross")
    spread = {"cumulated": "mean", "cumulated_p05": "p05", "cumulated_p50": "median", "cumulated_p95": "p95"}
    return rows.with_columns(
        expected=pl.col("mean") / 7 * pl.when(pl.col("day").dt.weekday() > 5).then(0.7).otherwise(1.12),
        **{name: pl.col(of) * pl.col("share") for name, of in spread.items()},
    )


def made_of(
    bed: Bed, config: Config, folders: Mapping[str, Folder], schemas: Mapping[str, pa.Schema], bucket: int
) -> dict[str, list[DataFile]]:
    """Write the files of a bucket."""
    of = series_of(bed, config.dataset.buckets, bucket)
    found: dict[str, list[DataFile]] = {name: [] for name in folders}

    def write(name: str, ds: date, rows: pl.DataFrame) -> None:
        if name not in folders:
            return
        schema = schemas[name]
        rows = rows.with_columns(ds=pl.lit(ds), bucket=pl.lit(bucket, pl.Int32), run_id=pl.lit("made up"))
        missing = {field.name: pl.lit(None) for field in schema if field.name not in rows.columns}
        lists = {name: pl.lit([]) for name in missing if pa.types.is_nested(schema.field(name).type)}
        rows = rows.with_columns(**{**missing, **lists}).sort(
            *(k for k in DECLARATIONS[name](config).key if k in rows.columns)
        )
        found[name].append(write_file(rows, schema, folders[name], ds, bucket))

    write("features.advertiser_sequence", bed.last, sequences(bed, of, bed.last))
    for ds in week_ends(bed.first, bed.last):
        write("features.sequence_week", ds, weeks(bed, of, ds))
    for ds in (*bed.past, bed.last):
        made = forecasts(bed, of, ds)
        write("marts.forecast_daily", ds, made)
        write("marts.churn_risk", ds, risks(made))
        write("marts.forecast_total", ds, totals(made, "advertiser_id", "advertiser"))
    write("marts.forecast_path", bed.last, paths(made, bed.last))
    change = (
        made.filter(pl.col("task") == "spend")
        .sort("mean", descending=True)
        .head(20)
        .with_columns(
            compared_with=pl.lit(bed.past[-1]),
            before=pl.col("mean") * 0.8,
            after="mean",
            by_restated=pl.col("mean") * 0.02,
            by_new_days=pl.col("mean") * 0.15,
            by_model=pl.col("mean") * 0.04,
            by_calibration=-pl.col("mean") * 0.01,
            rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int32) + bucket,
        )
    )
    write("marts.forecast_change", bed.last, change)
    risky = (
        risks(made)
        .sort("value_at_risk", descending=True)
        .head(20)
        .with_columns(
            task=pl.lit("active_days"),
            kind=pl.lit("at_risk"),
            rank=pl.lit(1, pl.Int32),
            cause=pl.lit("fewer active days"),
            words=pl.lit("active on 2 of the last 7 days, on 6 of those before"),
            effect=pl.col("probability") / 2,
        )
    )
    write("marts.forecast_reason", bed.last, risky)
    return found


def ledgers(bed: Bed, config: Config, warehouse: Warehouse) -> None:
    """The tables that do not grow with advertisers."""
    random = np.random.default_rng(1)

    def commit(name: str, days: Sequence[date], rows: list[dict[str, Any]]) -> None:
        schema = warehouse.arrow_schema(name)
        frame = pl.from_arrow(pa.Table.from_pylist([{"run_id": "made up", **row} for row in rows], schema))
        assert isinstance(frame, pl.DataFrame)
        warehouse.commit(
            name, days, warehouse.write_rows(name, frame, "made-up"), {"run-id": "made-up", "stage": "bed"}
        )

    errors = {"n": 1000, "smape": 0.4, "pinball": 0.2, "bias": 0.02}
    who = ("challenger", "champion", "last_h_days", "mean_28", "lightgbm_l1")
    cells = [(scenario, task) for scenario in ("*", *SCENARIOS.tolist()) for task in TASKS]
    covers = {"coverage_50": 0.52, "coverage_90": 0.91, "level_50": 0.5, "level_90": 0.9}
    commit(
        "marts.backtest",
        [bed.last],
        [
            {
                "ds": bed.last,
                "cutoff": None,
                "forecaster": name,
                "scenario_id": scenario,
                "task": task,
                "horizon_days": 7,
                "nmae": 0.22 + 0.03 * place,
                **errors,
                **covers,
            }
            for place, name in enumerate(who)
            for scenario, task in cells
        ],
    )
    values = {"gini": 0.97, "top_decile_capture": 0.8, "churn_auc": 0.95, "churn_brier": 0.02}
    commit(
        "marts.backtest_value",
        [bed.last],
        [
            {
                "ds": bed.last,
                "forecaster": name,
                "scenario_id": "*",
                "task": "active_days" if "churn" in figure else "spend",
                "horizon_days": 7,
                "figure": figure,
                "part": None,
                "n": 1000.0,
                "value": value - 0.02 * place,
            }
            for place, name in enumerate(who)
            for figure, value in values.items()
        ],
    )
    days = [bed.last - timedelta(days=n) for n in range(8, 68)]
    commit(
        "marts.forecast_quality",
        days,
        [
            {
                "ds": ds,
                "matured_on": ds + timedelta(days=7),
                "method": method,
                "scenario_id": scenario,
                "task": task,
                "horizon_days": 7,
                "nmae": 0.25 + 0.03 * random.random(),
                **errors,
                "coverage_50": 0.5 + 0.04 * random.random(),
                "coverage_90": 0.88 + 0.04 * random.random(),
            }
            for ds in days
            for method in ("*", "m2m", "blend:last_h_days")
            for scenario, task in cells
        ],
    )
    commit(
        "ops.promotion",
        [bed.last],
        [
            {
                "ds": bed.last,
                "decided_at": datetime(2024, 3, 31, 6, tzinfo=UTC).replace(tzinfo=None),
                "challenger": "3",
                "champion": "2",
                "challenger_nmae": 0.22,
                "champion_nmae": 0.24,
                "baseline": "last_h_days",
                "baseline_nmae": 0.29,
                "promoted": True,
                "dry_run": False,
                "reason": "NMAE 0.2200 is 0.759 of best baseline last_h_days's 0.2900 (at most 1)",
            }
        ],
    )
    commit(
        "ops.validation",
        [bed.last],
        [
            {
                "ds": bed.last,
                "stage": "stage_sources",
                "table": "staged.performance_daily",
                "check": check,
                "column": "spend",
                "scenario": "search",
                "severity": severity,
                "expected": "at most 0",
                "found": 12.0,
                "example": "(adv_0000001, search)",
                "passed": passed,
            }
            for check, severity, passed in (
                ("not_negative", "critical", False),
                ("volume", "warning", False),
                ("unique", "critical", True),
            )
        ],
    )


def make(folder: Path, bed: Bed, workers: int = 1) -> Path:
    """The warehouse in ``folder``; returns its pipeline.toml. M2M_HOME is set to it."""
    config_path = folder / "simulated" / "pipeline.toml"
    shutil.copytree(ROOT / "examples" / "simulated", config_path.parent, ignore=shutil.ignore_patterns("__pycache__"))
    buckets = max(2, bed.advertisers // ADVERTISERS_A_BUCKET)
    text = config_path.read_text(encoding="utf-8")
    config_path.write_text(text.replace("buckets = 8", f"buckets = {buckets}"), encoding="utf-8")
    os.environ["M2M_HOME"] = str(folder / "home")
    config = load_config(config_path)
    warehouse = Warehouse(config)
    grown = (
        "features.advertiser_sequence",
        "features.sequence_week",
        "marts.forecast_daily",
        "marts.churn_risk",
        "marts.forecast_total",
        "marts.forecast_path",
        "marts.forecast_change",
        "marts.forecast_reason",
    )
    names = [name for name in grown if name in DECLARATIONS]
    folders = {name: warehouse.folder(name, f"score-{bed.last}-madeup") for name in names}
    schemas = {name: warehouse.arrow_schema(name) for name in names}
    write = partial(made_of, bed, config, folders, schemas)
    files: dict[str, list[DataFile]] = {name: [] for name in names}
    with _pool(workers) as each:
        for number, part in enumerate(each(write, range(buckets))):
            for name, found in part.items():
                files[name] += found
            if workers > 1:
                print(f"bucket {number + 1} of {buckets}", flush=True)
    for name, found in files.items():
        days = sorted({file.ds for file in found})
        groups = [days[:-1], days[-1:]] if name == "features.sequence_week" else [[day] for day in days]
        for group in filter(None, groups):  # the first load's weeks at once, then day by day
            of = [file for file in found if file.ds in group]
            if name == "marts.forecast_total":
                of += _platform(config, warehouse, files["marts.forecast_daily"], group[0], folders[name])
            warehouse.commit(
                name,
                group,
                of,
                {"run-id": f"made-up-{group[-1]}", "stage": "score", "days": f"{group[0]}..{group[-1]}"},
            )
    ledgers(bed, config, warehouse)
    return config_path


def _platform(config: Config, warehouse: Warehouse, made: list[DataFile], ds: date, folder: Folder) -> list[DataFile]:
    """The totals that no bucket has alone, from a bucket or two: what they are is all one here."""
    from pipelines.warehouse.files import read_files

    of = [file for file in made if file.ds == ds][:2]
    rows = read_files(of, warehouse.arrow_schema("marts.forecast_daily"))
    tiers = rows.with_columns(tier=pl.lit("small"))
    parts = [
        totals(rows, "", "platform"),
        totals(rows, "scenario_id", "scenario"),
        totals(tiers, "tier", "attribute", "tier"),
    ]
    schema = warehouse.arrow_schema("marts.forecast_total")
    every = pl.concat(parts).with_columns(ds=pl.lit(ds), bucket=pl.lit(-1, pl.Int32), run_id=pl.lit("made up"))
    return [write_file(every.sort("level", "name", "value", "task", nulls_last=True), schema, folder, ds, -1)]


def _pool(workers: int) -> Any:
    from contextlib import contextmanager

    @contextmanager
    def one() -> Iterator[Callable[..., Any]]:
        yield map

    @contextmanager
    def several() -> Iterator[Callable[..., Any]]:
        import multiprocessing

        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield pool.map

    return several() if workers > 1 else one()


def sized(advertisers: int, weeks: int = 13) -> Bed:
    """As of a Sunday's morrow, with a forecast of the day before and of five weeks before."""
    last = date(2024, 4, 1)
    past = (*(last - timedelta(days=7 * n) for n in range(5, 0, -1)), last - timedelta(days=1))
    return Bed(advertisers, weeks, past, last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--advertisers", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    started = time.perf_counter()
    made = make(arguments.folder, sized(arguments.advertisers), arguments.workers)
    print(f"{made} in {time.perf_counter() - started:.0f} s; M2M_HOME={arguments.folder / 'home'}")


if __name__ == "__main__":
    main()
