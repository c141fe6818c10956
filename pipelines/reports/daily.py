"""The report of a day: what was gathered, as a page. Pure: frames and names in, sections out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from pipelines.reading.terminal import plural
from pipelines.reports.checks import FAILED, Kept, failed_row
from pipelines.reports.day import Day, age, promoted, served_by
from pipelines.reports.forecasts import MOST, accuracy, drift, last_total, leaving, movers, platform, totals
from pipelines.reports.page import (
    Block,
    Code,
    Flag,
    Folded,
    Kind,
    Link,
    Note,
    Page,
    Section,
    Table,
    number,
    share,
)

_MIB = 2**20


def page(day: Day) -> Page:
    """The whole report."""
    sections = [
        Section("ran", "What ran", _ran(day)),
        Section("checks", "Checks and dirt", _checks(day)),
        Section("totals", "Totals", totals(day)),
        Section("movers", "Movers", movers(day)),
        Section("leaving", "Who may leave", leaving(day)),
        Section("accuracy", "Accuracy", accuracy(day)),
        Section("champion", "Champion and gate", _champion(day)),
        Section("drift", "Drift", drift(day)),
        Section("cost", "Cost", _cost(day)),
    ]
    said, kind = verdict(day)
    return Page(f"{day.name}, {day.ds}", said, kind, sections, foot=day.foot, address=day.address)


def verdict(day: Day) -> tuple[str, Kind]:
    """The day in a sentence or two."""
    failed = [result for result in _published(day) if not result.passed]
    critical = sum(result.severity == "critical" for result in failed) or sum(
        r.severity == "critical" and not r.passed for r in _unpublished(day)
    )
    missing = [f"{table} has no {ds}" for table, ds, _ in day.holes]
    parts = [f"Incomplete: {'; '.join(missing)}." if missing else "Complete."]
    forecasts = sum(commit.rows for commit in day.commits if commit.table == "marts.forecast_daily")
    told = [f"{forecasts:,} forecasts"] if forecasts else []
    measure, horizon = day.main, max(day.horizons)
    row = platform(day, measure, horizon)
    if row:
        fan = f"90 %: {number(row['p05'])} to {number(row['p95'])}"
        told.append(f"{measure.name} of the next {horizon} days {measure.words(row['mean'])} ({fan})")
        before = last_total(day, measure, horizon)
        if before:
            told[-1] += f", {share(row['mean'] / before - 1, signed=True)} on the last {horizon}"
    version = served_by(day)
    if forecasts:
        told.append(f"model version {version}{age(day, version)}" if version else "by the best baseline, no champion")
    told.append(plural(len(failed) - sum(r.severity == "critical" for r in failed), "warning"))
    if critical:
        told.append(plural(critical, "critical failure"))
    kind: Kind = "bad" if missing or critical else "warn" if failed or not version else "good"
    return f"{parts[0]} {'; '.join(told)}.", kind


def _published(day: Day) -> list[Kept]:
    """Judgements of the runs that published last."""
    mine = {*day.runs.values()}
    return [result for result in day.judged if result.run_id in mine]


def _unpublished(day: Day) -> list[Kept]:
    """Of stages that have published nothing of the day: their newest run's are the last word."""
    return [result for result in day.judged if result.stage not in day.runs]


def _ran(day: Day) -> list[Block]:
    rows: list[Sequence[object]] = []
    failed_runs = {(r.stage, r.run_id) for r in day.judged if not r.passed and r.severity == "critical"} - set(
        day.runs.items()
    )
    for stage in day.stages:
        mine = [commit for commit in day.commits if commit.stage == stage]
        for _, run_id in sorted(run for run in failed_runs if run[0] == stage):
            rows.append((stage, Flag("failed", "bad"), Code(run_id), None, "nothing: a check failed", None))
        if mine:
            newest = max(mine, key=lambda commit: commit.at)
            wrote = "\n".join(
                f"{c.table}{'' if c.ds == day.ds else f' of {c.ds}'}: {plural(c.rows, 'row')}" for c in mine
            )
            read = {k.removeprefix("input."): v for c in mine for k, v in c.said.items() if k.startswith("input.")}
            models = ", ".join(
                f"{k.removeprefix('model.')} {v}" for k, v in read.items() if k.startswith("model.") and v != "None"
            )
            rows.append((stage, Flag("done", "good"), Code(newest.run_id), newest.at, wrote, models or None))
        elif any(hole[2] == stage for hole in day.holes):
            rows.append((stage, Flag("missing", "bad"), None, None, "nothing yet", None))
        else:
            rows.append((stage, Flag("nothing to do", ""), None, None, "nothing for this day", None))
    blocks: list[Block] = [Table(("Stage", "State", "Run", "Published (UTC)", "Wrote", "Model version"), rows)]
    for table, ds, stage in day.holes:
        blocks.append(
            Note(f"No {stage} run for {ds}: {table} misses it.", "bad", day.command(stage, _run_day(day, stage, ds)))
        )
    end = datetime.combine(day.ds + timedelta(days=1), datetime.min.time(), UTC)
    sources = [
        (table, newest, at, _late(at - end) if at and newest == day.ds else None) for table, newest, at in day.sources
    ]
    blocks.append(Table(("Source's table", "Newest day", "Published (UTC)", "After the day's end"), sources))
    behind = [(table, newest) for table, newest, _ in day.sources if newest is not None and newest < day.ds]
    blocks += [Note(f"{table} is {plural((day.ds - newest).days, 'day')} behind.", "warn") for table, newest in behind]
    inputs = [
        (
            c.stage,
            c.table,
            Code(str(c.snapshot_id)),
            Code(c.said.get("code-version", "")),
            Code(c.said.get("config-hash", "")),
            "\n".join(f"{k.removeprefix('input.')} @ {v}" for k, v in c.said.items() if k.startswith("input.")),
        )
        for c in day.commits
    ]
    head = ("Stage", "Table", "Snapshot", "Code", "Configuration", "Read")
    return [*blocks, Folded("Snapshots that were written and read, code, configuration", [Table(head, inputs)])]


def _run_day(day: Day, stage: str, ds: date) -> date:
    return day.ds if stage == "monitor" else ds


def _late(after: timedelta) -> str:
    hours = after.total_seconds() / 3600
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:,.0f} days"


def _checks(day: Day) -> list[Block]:
    if not day.judged:
        return [Note("No check of this day is in ops.validation.", "warn")]
    by_stage: dict[str, list[Kept]] = {}
    for result in [*_published(day), *_unpublished(day)]:
        by_stage.setdefault(result.stage, []).append(result)
    rows: list[Sequence[object]] = []
    for stage, results in by_stage.items():
        failed = [result for result in results if not result.passed]
        critical = sum(result.severity == "critical" for result in failed)
        flag = Flag("failed", "bad") if critical else Flag("warnings", "warn") if failed else Flag("held", "good")
        run_id = results[-1].run_id
        where = day.checks_page.get(run_id)
        link = Link("every check", where) if where else None
        told = sum(result.severity != "info" for result in results)
        rows.append((stage, flag, told, critical, len(failed) - critical, link))
    blocks: list[Block] = [Table(("Stage", "Result", "Judgements", "Critical", "Warnings", "Page"), rows)]
    failed = sorted(
        (r for of_stage in by_stage.values() for r in of_stage if not r.passed), key=lambda r: r.severity != "critical"
    )
    show = f"m2m show ops.validation --config {day.config} --date {day.ds}"
    rest = f"{len(failed) - MOST:,} more: {show}" if len(failed) > MOST else ""
    blocks.append(Table(FAILED, [failed_row(result) for result in failed[:MOST]], rest))
    dirt: dict[tuple[str, str], list[Kept]] = {}
    for result in day.judged:
        if result.severity == "info" and result.run_id in {*day.runs.values()}:
            dirt.setdefault((result.table, result.check.removeprefix("dirt:")), []).append(result)
    counted = sorted(
        ((*of, sum(r.found for r in found), found[0].example) for of, found in dirt.items()), key=lambda r: -r[2]
    )
    if counted:
        blocks.append(Note("Dirt that the staging SQL dropped, merged or repaired, in rows:"))
        rest = f"{len(counted) - MOST:,} more: {show}" if len(counted) > MOST else ""
        blocks.append(Table(("Table", "Rule", "Rows", "Example"), counted[:MOST], rest))
    return blocks


def _champion(day: Day) -> list[Block]:
    blocks: list[Block] = []
    version = served_by(day)
    line = promoted(day, version) if version else None
    if version and line:
        since = f"champion since {line['decided_at']:%Y-%m-%d %H:%M} UTC, trained as of {line['ds']}{age(day, version)}"
        blocks.append(Note(f"Version {version} served this day: {since}."))
    elif version:
        blocks.append(Note(f"Version {version} served this day; ops.promotion has no line of its promotion.", "warn"))
    elif any(c.stage == "score" for c in day.commits):
        blocks.append(Note("No champion served this day: the best baseline did.", "warn", day.command("train")))
    if day.promotions is None or day.promotions.is_empty():
        return [*blocks, Note("The gate has not decided anything yet.")]
    rows = []
    for row in day.promotions.sort("decided_at", descending=True).head(8).iter_rows(named=True):
        word = Flag("promoted", "good") if row["promoted"] else Flag("dry run" if row["dry_run"] else "refused", "")
        rows.append(
            (
                row["decided_at"],
                row["ds"],
                f"version {row['challenger']}",
                word,
                row["challenger_nmae"],
                row["champion_nmae"],
                row["baseline_nmae"],
                row["reason"],
            )
        )
    head = ("Decided (UTC)", "As of", "Challenger", "Decision", "NMAE", "Champion's", "Baseline's", "Why")
    decided = day.promotions.sort("decided_at", descending=True)["promoted"].to_list()
    refused = decided.index(True) if True in decided else len(decided)
    if refused > 1:
        blocks.append(Note(f"The gate has refused {refused} challengers in a row.", "warn"))
    return [*blocks, Table(head, rows)]


def _cost(day: Day) -> list[Block]:
    if not day.costs:
        return [Note("No run of this day is kept.")]
    rows = []
    for cost in day.costs:
        usual = cost.wall_s / cost.usual_s if cost.wall_s and cost.usual_s else None
        slow = usual is not None and usual > 2 and (cost.wall_s or 0) > 30
        rows.append(
            (
                cost.stage,
                Code(cost.run_id),
                _seconds(cost.wall_s),
                _seconds(cost.cpu_s),
                _mib(cost.peak_mib),
                _size(cost.written_bytes),
                Flag(f"{usual:.1f} x", "warn" if slow else "") if usual else None,
            )
        )
    head = ("Stage", "Run", "Time", "CPU", "Memory", "Written", "Beside the usual time")
    told = "Up to the run's last commit, on the driver's machine: executors elsewhere are not in it. Memory: the most "
    told += "that each process had (Python, its JVM, workers), added up. Written: bytes of the files that were new."
    blocks: list[Block] = [Table(head, rows), Note(told)]
    if any(cost.wall_s is None for cost in day.costs):
        blocks.append(Note("Runs of before this was kept have no time."))
    return blocks


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min"


def _mib(value: float | None) -> str | None:
    return None if value is None else f"{value:,.0f} MiB" if value < 10_000 else f"{value / 1024:,.1f} GiB"


def _size(size: int) -> str:
    return (
        f"{size / 1024:,.0f} KiB"
        if size < _MIB
        else f"{size / _MIB:,.1f} MiB"
        if size < 1024 * _MIB
        else f"{size / 2**30:,.1f} GiB"
    )
