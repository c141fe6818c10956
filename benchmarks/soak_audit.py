"""What must hold after a soak, asked of the tables, the registry and the sources: not of what the soak noted of itself.

Every check is a function of frames that returns what it found wrong, in words, a few of a kind; nothing is good.
"""

from __future__ import annotations

import fcntl
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from pyspark.sql import SparkSession

from benchmarks.soak_world import AMOUNTS, World
from pipelines.chain import CHAMPION
from pipelines.cli import Run
from pipelines.config import Config
from pipelines.life.champions import BY_HAND, OUTSIDE
from pipelines.life.registry import Registry
from pipelines.stages.replay import replay
from pipelines.stages.status import Aliases, commands, status
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.tables import DECLARATIONS

SERIES = ["ds", "advertiser_id", "scenario_id"]
PLANTED = "soak.planted"  # tag of an MLflow run whose version is none that training made
SHOWN = 3  # examples of a kind


@dataclass(frozen=True)
class Finding:
    """One thing that was asked: what was looked at, and what is wrong."""

    check: str
    looked_at: str
    wrong: Sequence[str]


def named(what: str, rows: pl.DataFrame, columns: Sequence[str]) -> list[str]:
    """Rows that are wrong, in a line; none if there is none."""
    if rows.is_empty():
        return []
    examples = ", ".join(" ".join(map(str, row)) for row in rows.select(columns).sort(columns).head(SHOWN).iter_rows())
    return [f"{rows.height} {what}, such as {examples}"]


def rows_wrong(staged: pl.DataFrame, truth: pl.DataFrame, amounts: Sequence[str]) -> list[str]:
    """Rows that are staged, beside those that there are."""
    counted = staged.group_by(SERIES).agg(pl.len(), pl.first(*amounts))
    both = counted.join(truth, on=SERIES, how="full", coalesce=True, suffix="_true", nulls_equal=True)
    there, true = pl.col("len").is_not_null(), pl.col(f"{amounts[0]}_true").is_not_null()
    other = pl.any_horizontal((pl.col(name) - pl.col(f"{name}_true")).abs() > 1e-6 for name in amounts)
    return [
        *named("rows lost", both.filter(~there), SERIES),
        *named("rows of no source", both.filter(~true), SERIES),
        *named("rows doubled", both.filter(pl.col("len") > 1), SERIES),
        *named("rows with other figures", both.filter(there & true & other), SERIES),
    ]


def keys_repeated(rows: pl.DataFrame, key: Sequence[str]) -> list[str]:
    """Rows of a table whose key another one has."""
    return named("keys repeated", rows.group_by(key).len().filter(pl.col("len") > 1), list(key))


def forecasts_wrong(
    forecasts: pl.DataFrame, series: pl.DataFrame, active: pl.DataFrame, targets: pl.DataFrame, days: Collection[date]
) -> list[str]:
    """One forecast for each series, task and horizon of every day; and a series for whoever was active of late.

    Args:
        active: advertisers and scenarios with a row in the weeks up to each day, by the sources.
        targets: task, horizon_days.
    """
    key = [*SERIES, "task", "horizon_days"]
    wanted = series.filter(pl.col("ds").is_in(list(days))).join(targets, how="cross")
    counted = forecasts.filter(pl.col("ds").is_in(list(days))).group_by(key).len()
    missing = pl.DataFrame({"ds": sorted(set(days) - set(forecasts["ds"]))}, {"ds": pl.Date})
    return [
        *named("days without forecasts", missing, ["ds"]),
        *named("active series unknown", active.join(series, on=SERIES, how="anti"), SERIES),
        *named("forecasts missing", wanted.join(counted, on=key, how="anti"), key),
        *named("forecasts of nobody", counted.join(wanted, on=key, how="anti"), key),
        *named("forecasts doubled", counted.filter(pl.col("len") > 1), key),
    ]


def champions_unexplained(served: pl.DataFrame, ledger: pl.DataFrame, alias: str | None) -> list[str]:
    """Forecasts whose champion is not the one that the ledger had when they were committed.

    Args:
        served: ds, model_version, committed_at, and where none served, the reason.
        alias: the version that the registry calls champion.
    """
    moves, wrong = ledger.filter("promoted").sort("decided_at"), []
    before: str | None = None
    for line in moves.iter_rows(named=True):
        if line["champion"] != before:
            wrong.append(f"version {line['challenger']} follows {line['champion']}, but {before} was champion")
        if not (line["reason"] or "").strip() or line["decided_by"] == OUTSIDE:
            wrong.append(f"nobody says why version {line['challenger']} is champion: {line['reason']}")
        before = line["challenger"]
    if alias != before:
        wrong.append(f"the registry calls version {alias} champion, the ledger {before}")
    for ds, version, at, reason in served.select("ds", "model_version", "committed_at", "reason").iter_rows():
        past = moves.filter(pl.col("decided_at") <= at)["challenger"]
        known = past[-1] if len(past) else None
        if version != known and not (version is None and reason):
            wrong.append(f"forecasts of {ds} are by version {version}; by the ledger {known} was champion at {at}")
    return wrong


def planted_wrong(ledger: pl.DataFrame, cells: pl.DataFrame, planted: Collection[str]) -> list[str]:
    """The gate refuses each planted version and says in which cells; once somebody made one champion all the same, the
    next challenger that the gate sees is promoted."""
    wrong = []
    lines = ledger.filter(dry_run=False).sort("decided_at").with_columns(
        by_hand=pl.col("reason").str.starts_with(BY_HAND)
    )  # fmt: skip
    for version in planted:
        asked = lines.filter(~pl.col("by_hand"), challenger=version)
        if asked.is_empty() or asked["promoted"].any():
            wrong.append(
                f"planted version {version}: refused {asked.height - asked['promoted'].sum()} of {asked.height} times"
            )
        failed = cells.filter(pl.col("run_id").is_in(asked["run_id"].to_list())).filter(
            pl.col("verdict").str.starts_with("failed")
        )
        if failed.is_empty() or any("NMAE" not in reason for reason in asked["reason"]):
            wrong.append(f"planted version {version}: no cell or no words say why it was refused")
        for at in lines.filter("by_hand", challenger=version)["decided_at"]:
            younger = pl.col("challenger").cast(int) > newest_known(lines, at)
            after = lines.filter(~pl.col("by_hand"), pl.col("decided_at") > at, younger).head(1)
            if not after["promoted"].any():
                wrong.append(f"after planted version {version} was made champion at {at}, no better one was promoted")
    return wrong


def newest_known(ledger: pl.DataFrame, at: datetime) -> int:
    """The newest version that the ledger knew at a time."""
    known = ledger.filter(pl.col("decided_at") <= at)
    return max(map(int, {*known["challenger"], *known["champion"].drop_nulls()}))


def undone(ledger: pl.DataFrame) -> list[str]:
    """Moves by hand that the gate took back: it promoted a version that was known then, and not one made after."""
    lines, wrong = ledger.filter("promoted").sort("decided_at"), []
    by_hand = lines.filter(pl.col("reason").str.starts_with(BY_HAND))
    for at, chosen, replaced in by_hand.select("decided_at", "challenger", "champion").iter_rows():
        newest = newest_known(ledger, at)
        for line in lines.filter(pl.col("decided_at") > at).iter_rows(named=True):
            if not line["reason"].startswith(BY_HAND) and int(line["challenger"]) <= newest:
                wrong.append(
                    f"version {chosen} in place of {replaced} by hand; then the gate took {line['challenger']}"
                )
    return wrong


def bad_days_unseen(validation: pl.DataFrame, bad: Collection[date], table: str) -> list[str]:
    """Days whose rows were refused: the checks say so, and were passed in the end; no other day was refused."""
    judged = validation.filter(table=table, severity="critical").drop_nulls("ds")
    failed = set(judged.filter(~pl.col("passed"))["ds"])
    runs = judged.group_by("ds", "run_id").agg(pl.all("passed").all())
    passed = set(runs.filter("passed")["ds"])
    return [
        *(f"{ds}: no check failed" for ds in sorted(set(bad) - failed)),
        *(f"{ds}: no run of it passed" for ds in sorted(set(bad) - passed)),
        *(f"{ds}: refused, and nothing was wrong with it" for ds in sorted(failed - set(bad))),
    ]


def judged_wrong(
    quality: pl.DataFrame, targets: pl.DataFrame, days: Collection[date], last: date, label_days: int
) -> list[str]:
    """Every day of forecasts that has matured is judged once, and no other."""
    key = ["ds", "task", "horizon_days"]
    due = [day for day in days if day + timedelta(days=label_days) <= last]
    wanted = pl.DataFrame({"ds": due}, {"ds": pl.Date}).join(targets, how="cross")
    counted = quality.filter(method="*", scenario_id="*").group_by(key).agg(pl.len(), pl.first("matured_on"))
    early = pl.col("matured_on") != pl.col("ds") + pl.duration(days="horizon_days")
    return [
        *named("matured forecasts not judged", wanted.join(counted, on=key, how="anti"), key),
        *named("forecasts judged before they matured", counted.join(wanted, on=key, how="anti"), key),
        *named("forecasts judged more than once", counted.filter(pl.col("len") > 1), key),
        *named("forecasts judged over other days", counted.filter(early), key),
    ]


def left_behind(home: Path, runs: Mapping[str, str]) -> list[str]:
    """What a run that died leaves, if nobody cleans up: locks that are held, claims, halves of files and folders, open
    MLflow runs.

    Args:
        runs: status by MLflow run.
    """
    wrong = [f"MLflow run {run} is {status}" for run, status in runs.items() if status in ("RUNNING", "SCHEDULED")]
    for lock in home.rglob("*.lock"):
        with lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                wrong.append(f"{lock} is held")
    for folder in ("training", "runs"):
        wrong += [f"{path} is left" for path in sorted((home / folder).glob("*"))]
    halves = [path for path in home.rglob("*") if path.name == "claim" or path.suffix in (".partial", ".part")]
    return wrong + [f"{path} is left" for path in halves]


def errors_by_day(forecasts: pl.DataFrame, truth: pl.DataFrame, task: str, metric: str) -> pl.DataFrame:
    """NMAE of each day's published forecasts of a task, and of its last days as the forecast, on the same series, where
    the horizon is over.

    Returns:
        ds, nmae, baseline_nmae.
    """
    rows = forecasts.filter(task=task)
    days, last = int(rows["horizon_days"].max()), truth["ds"].max()  # type: ignore[arg-type]
    amounts = truth.select("advertiser_id", "scenario_id", pl.col("ds").alias("day"), value=pl.col(metric))
    ahead = (pl.col("day") - pl.col("ds")).dt.total_days()
    total = rows.select(*SERIES, "point").join(amounts, on=["advertiser_id", "scenario_id"], how="left")
    total = total.group_by(*SERIES, "point").agg(
        actual=pl.col("value").filter(ahead.is_between(1, days)).sum(),
        before=pl.col("value").filter(ahead.is_between(1 - days, 0)).sum(),
    )
    off = [(pl.col("actual") - pl.col(name)).abs().sum() / pl.col("actual").sum() for name in ("point", "before")]
    over = pl.col("ds") + pl.duration(days=days) <= last
    return total.filter(over).group_by("ds").agg(nmae=off[0], baseline_nmae=off[1]).sort("ds")


def planted_versions(registry: Registry) -> list[str]:
    """The versions that no training made."""
    runs = registry.client.search_runs([registry.experiment_id()], f"tags.`{PLANTED}` != ''")
    made = {run.info.run_id for run in runs}
    versions = registry.client.search_model_versions(f"name='{registry.name}'")
    return [str(version.version) for version in versions if version.run_id in made]


def replays(config: Config, warehouse: Warehouse, registry: Registry, spark: SparkSession) -> Finding:
    """Every day of forecasts, made again."""
    wrong, rows, to_the_bit = list[str](), 0, 0
    days = warehouse.pin("marts.forecast_daily").days_written()
    for ds in days:
        found = replay(Run(f"replay-{ds}", "replay", config, ds, ds), lambda: spark, warehouse, registry)
        wrong += [] if found.identical else [f"{ds}: {line}" for line in found.lines]
        rows, to_the_bit = rows + found.rows, to_the_bit + (found.near == 0)
    looked_at = f"{rows:,} forecasts of {len(days)} days, {to_the_bit} of them to the last bit"
    return Finding("every forecast replays", looked_at, wrong)


def audit(world: World, config: Config, spark: SparkSession) -> list[Finding]:
    """Everything, of the home as it is now."""
    warehouse, registry = Warehouse(config), Registry(config)
    lived = [world.date_of(day) for day in range(1, world.days + 1)]
    targets = pl.DataFrame({"task": [task.name for task in config.task]}).with_columns(
        horizon_days=pl.lit(config.dataset.horizon_days, pl.Int32)
    )
    truth = pl.concat(world.truth(day) for day in range(world.first, world.days + 1))
    staged, series, forecasts, ledger, cells, validation, quality = (
        warehouse.scan(name)
        for name in (
            "staged.performance_daily",
            "features.advertiser_sequence",
            "marts.forecast_daily",
            "ops.promotion",
            "ops.promotion_cell",
            "ops.validation",
            "marts.forecast_quality",
        )
    )
    back = pl.DataFrame({"back": range(config.dataset.eligible_days)})
    active = truth.select(SERIES).join(back, how="cross").with_columns(pl.col("ds") + pl.duration(days="back"))
    active = active.select(SERIES).unique().filter(pl.col("ds").is_in(lived))
    tables = [name for name in DECLARATIONS if warehouse.exists(name)]
    keys = {name: warehouse.declared(name).key for name in tables}
    repeated = [
        f"{name}: {words}"
        for name, key in keys.items()
        for words in keys_repeated(warehouse.scan(name, columns=key), key)
    ]
    runs = registry.client.search_runs([registry.experiment_id()], max_results=10_000)
    planted = planted_versions(registry)
    tables_now = status(warehouse, world.date_of(world.first), lived[-1])
    todo = [*Aliases.of(config, warehouse).lines, *commands(config, tables_now)]
    bad = [world.date_of(day) for day in world.events["bad"]]
    by_hand = ledger.filter(pl.col("reason").str.starts_with(BY_HAND))
    moves = ledger.filter("promoted")
    return [
        Finding(
            "no row is lost, doubled or other than its source's",
            f"{staged.height:,} rows of {staged['ds'].n_unique()} days",
            rows_wrong(staged, truth, AMOUNTS),
        ),
        Finding("keys are unique", f"{len(tables)} tables", repeated),
        Finding(
            "one forecast for every series, task, horizon and day",
            f"{forecasts.height:,} forecasts of {forecasts['ds'].n_unique()} days",
            forecasts_wrong(forecasts, series, active, targets, lived),
        ),
        replays(config, warehouse, registry, spark),
        Finding(
            "the ledger explains every champion that forecasts are by",
            f"{moves.height} moves, {forecasts['model_version'].n_unique()} champions in forecasts",
            champions_unexplained(served(warehouse, forecasts), ledger, registry.version_of(CHAMPION)),
        ),
        Finding(
            "the worse was refused with words, and a better one promoted after it",
            f"planted: {', '.join(f'version {version}' for version in planted) or 'none'}",
            planted_wrong(ledger, cells, planted),
        ),
        Finding("what was done by hand was not undone", f"{by_hand.height} moves by hand", undone(ledger)),
        Finding(
            "bad days were refused, then mended; no other was",
            ", ".join(map(str, bad)) or "none",
            bad_days_unseen(validation, bad, "staged.performance_daily"),
        ),
        Finding(
            "each matured day is judged once",
            f"{quality['ds'].n_unique()} days",
            judged_wrong(quality, targets, [*lived, world.date_of(0)], lived[-1], config.dataset.label_days),
        ),
        Finding("`status` is clean", f"{len(tables_now)} tables", todo),
        Finding(
            "no lock, claim, half of a file or open run is left",
            f"{len(runs)} MLflow runs",
            left_behind(config.home, {run.info.run_id: run.info.status for run in runs}),
        ),
    ]


def served(warehouse: Warehouse, forecasts: pl.DataFrame) -> pl.DataFrame:
    """By whom each day's forecasts are, and when they were committed."""
    writers = warehouse.pin("marts.forecast_daily").writers()
    at = {
        ds: datetime.fromtimestamp(writer.timestamp_ms / 1000, UTC).replace(tzinfo=None)
        for ds, writer in writers.items()
    }
    reason = pl.first("reason") if "reason" in forecasts.columns else pl.lit(None, pl.String).alias("reason")
    days = forecasts.group_by("ds", "model_version").agg(reason).sort("ds")
    return days.with_columns(committed_at=pl.Series([at[ds] for ds in days["ds"]], dtype=pl.Datetime("us")))


def outcome(world: World, config: Config, said: Mapping[int, str]) -> dict[str, Any]:
    """Day by day who served and how well, and what the gate decided."""
    warehouse, task = Warehouse(config), config.task[0]
    forecasts, ledger = warehouse.scan("marts.forecast_daily"), warehouse.scan("ops.promotion")
    truth = pl.concat(world.truth(day) for day in range(world.first, world.days + 1))
    errors = {ds: each for ds, *each in errors_by_day(forecasts, truth, task.name, task.metric).iter_rows()}
    champions = dict(forecasts.select("ds", "model_version").unique("ds").iter_rows())
    by_hand = pl.col("reason").str.starts_with(BY_HAND)
    of_gate = ledger.filter(~by_hand)
    lived = []
    for day in range(1, world.days + 1):
        ds = world.date_of(day)
        nmae, baseline = errors.get(ds, (None, None))
        lived.append(
            {
                "day": day,
                "ds": str(ds),
                "champion": champions.get(ds),
                "nmae": nmae,
                "baseline_nmae": baseline,
                "events": [kind for kind, on in world.events.items() if day in on],
                "said": said.get(day, ""),
            }
        )
    promoted = int(of_gate["promoted"].sum())
    decided = {"promoted": promoted, "refused": of_gate.height - promoted, "by_hand": ledger.filter(by_hand).height}
    return {"task": task.name, "lived": lived, "decided": decided}
