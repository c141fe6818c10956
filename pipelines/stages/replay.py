"""The work of `replay`: pipelines/replay.py says what it reads, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date
from functools import cache, partial
from typing import Literal

import polars as pl
import torch
from pyiceberg.table.snapshots import Snapshot
from pyspark.sql import SparkSession

from pipelines.chain import CHAMPION
from pipelines.cli import Run, code_version
from pipelines.config import Config
from pipelines.errors import EXIT_DATA, ConfigError, DataError
from pipelines.kernels.replayed import (
    ADDED,
    COMPARED,
    FOUND,
    LOST,
    MISSING,
    TOLERANCE,
    TWICE,
    UNREADABLE,
    Replaying,
    Wanted,
    compare_bucket,
)
from pipelines.life.cells import BROKE, Cell, cells_of, newest
from pipelines.life.cells import TABLE as CELLS
from pipelines.life.evaluation import differs
from pipelines.life.registry import ModelVersion, Registry
from pipelines.quality.forecasts import TABLE
from pipelines.reading.rows import bucket_of
from pipelines.reading.terminal import plural
from pipelines.spark import buckets
from pipelines.spark.session import spark_session
from pipelines.stages.score import serving
from pipelines.toml_tables import nearest
from pipelines.warehouse import configurations
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.days import in_words
from pipelines.warehouse.files import DataFile, by_bucket, read_files
from pipelines.warehouse.pins import Pin, Recorded, properties_of
from pipelines.warehouse.sequences import open_sequences

Kind = Literal["commit expired", "input expired", "input damaged", "model", "configuration", "code", "rows", "values"]
HERE = 20_000  # series that are forecast in this process sooner than Spark starts
_WORDS = {
    MISSING: "are made again and not published any more",
    ADDED: "are published and not made again",
    TWICE: "are published more than once",
    LOST: "cannot be read as they were published",
}


@dataclass(frozen=True)
class Difference:
    """Something that is not as it was when the day was published."""

    kind: Kind
    words: str


@dataclass(frozen=True)
class Replay:
    """What came of a day: how many forecasts were compared, who made them, what differs; ``near`` figures are not the
    same to the last bit, and nearer than TOLERANCE. ``notes``: what is otherwise now and changed nothing."""

    ds: date
    rows: int = 0
    by: str = ""
    near: int = 0
    largest: float = 0.0
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def identical(self) -> bool:
        return not self.differences

    @property
    def lines(self) -> list[str]:
        """What is said of it."""
        if self.identical:
            how = "to the last bit"
            if self.near:
                of = f"{plural(self.near, 'figure')} by up to {self.largest:.1g} of itself"
                how = f"to {TOLERANCE:g}, other in the last bits: {of}"
            return [f"identical: {plural(self.rows, 'forecast')} by {self.by}, {how}", *self.notes]
        return [f"different, {found.kind}: {found.words}" for found in self.differences] + [*self.notes]


def replay(
    run: Run, spark: Callable[[], SparkSession], warehouse: Warehouse, registry: Registry, wanted: Wanted | None = None
) -> Replay:
    """Make the forecasts of ``run.ds`` again and compare; ``spark`` is asked for one only where it is needed.

    Raises:
        ConfigError: nothing was forecast as of the day, or nothing that is ``wanted``.
    """
    ds, now, wanted = run.ds, warehouse.pin(TABLE), wanted or Wanted()
    commit, files = now.writers().get(ds), now.files_on([ds])
    if commit is None and not files:
        raise ConfigError(f"{TABLE} ds={ds}: never forecast; {_days_there(now)}")
    if commit is None:
        words = f"what the forecasts of {ds} were made from was in their commit, and that has expired{_kept(run)}"
        return Replay(ds, differences=(Difference("commit expired", words),))
    said, altered = properties_of(commit), _altered(now, commit, files, ds)
    recorded = Recorded(warehouse, said)
    stopped = [*altered, *_expired(run, recorded)]
    if not recorded.needed:
        words = f"their newest commit, {said.get('m2m.run-id', commit.snapshot_id)}, is none of score: it does not say "
        return Replay(ds, differences=(Difference("rows", f"{words}what they were made from"),))
    served = None if len(stopped) > len(altered) else _opened(registry, recorded.model(CHAMPION))
    if isinstance(served, Difference):
        stopped.append(served)
    if len(stopped) > len(altered) or isinstance(served, Difference):
        return Replay(ds, differences=tuple(stopped))
    with _configuration(run, warehouse, said.get("m2m.config-hash", "")) as (config, other_settings):
        sequences = open_sequences(config, recorded, ds)
        causes = [*other_settings, *_other_code(said)]
        if served and (other := differs(served.packed, sequences.spec)):
            words = f"version {served.version} was trained with other {other} than are declared now"
            return Replay(ds, differences=(*altered, Difference("configuration", words), *causes))
        of_buckets = by_bucket(files)
        chosen = sorted({*sequences.buckets, *of_buckets})
        if wanted.advertiser is not None:
            chosen = [bucket_of(wanted.advertiser, config.dataset.buckets)]
        unsound = _unsound([file for file in files if file.bucket in chosen], now)
        cells = cells_of(newest(recorded.pin(CELLS), served.version)) | unsound if served else None
        job = serving(replace(run, config=config), spark, sequences, served, warehouse.scratch, cells=cells)
        job = replace(job, run_id=said.get("m2m.run-id", ""))
        # Why no champion served is what score met that day: it is not made again.
        apart = () if served else tuple(name for name in ("reason",) if name in now.schema.names)
        added = tuple(column.name for column in warehouse.declared(TABLE).columns if column.added)
        kernel = partial(compare_bucket, Replaying(job, of_buckets, now.schema, wanted, apart, added))
        if len(chosen) == 1 or sequences.series <= HERE:
            with _as_workers_count():
                found = pl.concat([kernel(bucket) for bucket in chosen])
        else:
            found = buckets.map_buckets(spark(), chosen, kernel, FOUND)
    if wanted.named and found["rows"].sum() == 0:
        _refuse_unknown(files, now, wanted, ds)
    differences = [*altered, *_differences(found)]
    notes = tuple(f"({cause.words})" for cause in causes) if not differences else ()
    columns = found.filter(~pl.col("what").str.ends_with(":"))
    largest = columns.filter(pl.col("near") > 0)["largest"].max()
    return Replay(
        ds,
        int(found.filter(what=COMPARED)["rows"].sum()),
        job.by,
        int(columns["near"].sum()),
        float(largest) if isinstance(largest, float) else 0.0,
        (*differences, *causes) if differences else (),
        notes,
    )


@contextmanager
def _as_workers_count() -> Iterator[None]:
    """One thread, as Spark gives its workers: with several, sums differ in their last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _days_there(pin: Pin) -> str:
    days = pin.days_written()
    return f"there is {in_words(days, 5)}" if days else "nothing was forecast yet"


def _kept(run: Run) -> str:
    return f" ([maintenance] keep_snapshots_days = {run.config.maintenance.keep_snapshots_days})"


def _altered(now: Pin, commit: Snapshot, files: list[DataFile], ds: date) -> list[Difference]:
    """Whether the day has other files than the run that published it has committed."""
    then = {file.path: file for file in now.at(commit.snapshot_id).files_on([ds])}
    gone, new = then.keys() - {file.path for file in files}, [file for file in files if file.path not in then]
    if not gone and not new:
        return []
    words = f"{len(gone)} of the {plural(len(then), 'file')} that {properties_of(commit).get('m2m.run-id')} published "
    words += f"are not the table's any more, and {len(new)} are that no run of score published"
    return [Difference("rows", f"{words}, e.g. {min(gone or {file.path for file in new})}")]


def _expired(run: Run, recorded: Recorded) -> list[Difference]:
    gone = recorded.expired
    words = [f"snapshot {snapshot} of {name}" for name, snapshot in gone.items()]
    how = f"it was made from {' and '.join(words)}, which the table has no more{_kept(run)}"
    return [Difference("input expired", how)] if gone else []


def _unsound(files: list[DataFile], pin: Pin) -> dict[tuple[str, str, int], Cell]:
    """Cells whose forecasts broke a rule against the day before were found while the day was scored; of these, what was
    published says which."""
    names = ["scenario_id", "task", "horizon_days", "method", "reason"]
    by_rule = pl.col("reason").str.starts_with(BROKE) & pl.col("method").str.starts_with("baseline:")
    found = dict[tuple[str, str, int], Cell]()
    for file in files:
        with suppress(DataError):  # it is damaged, and named where its rows are compared
            rows = read_files([file], pin.schema, names).filter(by_rule).unique()
            found |= {
                (s, t, d): Cell(method.removeprefix("baseline:"), why) for s, t, d, method, why in rows.iter_rows()
            }
    return found


def _opened(registry: Registry, version: str | None) -> ModelVersion | Difference | None:
    """The version that served, its files proven; None where a baseline did."""
    try:
        return registry.version(version) if version else None
    except ConfigError as error:
        return Difference("model", f"version {version}, which served, is gone: {error}")
    except DataError as error:
        return Difference("model", error.lines[0])


@contextmanager
def _configuration(run: Run, warehouse: Warehouse, digest: str) -> Iterator[tuple[Config, list[Difference]]]:
    """What the day was made with, where it is kept, else what is there now; and what is otherwise now."""
    if digest == run.config.hash:
        yield run.config, []
        return
    with ExitStack() as stack:
        try:
            then = stack.enter_context(configurations.kept(warehouse.configurations, digest, run.config))
        except (FileNotFoundError, ConfigError, DataError) as error:
            why = "is not kept" if isinstance(error, FileNotFoundError) else f"cannot be used: {error}"
            words = f"configuration {digest or 'unknown'}, of then, {why}; {run.config.hash}, of now, was used"
            yield run.config, [Difference("configuration", words)]
            return
        words = f"configuration {digest}, of then, was used; now other: {configurations.differing(then, run.config)}"
        yield then, [Difference("configuration", words)]


def _other_code(said: dict[str, str]) -> list[Difference]:
    then, now = said.get("m2m.code-version", "unknown"), code_version()
    return [] if then == now else [Difference("code", f"published by {then}, made again by {now}")]


def _differences(found: pl.DataFrame) -> list[Difference]:
    """What the buckets found, by name; the columns together."""
    whole = int(found.filter(pl.col("what").is_in([COMPARED, MISSING, ADDED, LOST]))["rows"].sum())
    differences = []
    for what, words in _WORDS.items():
        if (rows := found.filter(what=what)).height:
            count, example = int(rows["rows"].sum()), rows["example"][0]
            differences.append(Difference("rows", f"{count:,} of {plural(whole, 'forecast')} {words}: {example}"))
    if (rows := found.filter(what=UNREADABLE)).height:
        differences.append(Difference("input damaged", str(rows["example"][0])))
    far = found.filter(~pl.col("what").str.ends_with(":"), pl.col("rows") > 0)
    for (column,), rows in far.group_by("what", maintain_order=True):
        rows = rows.sort("largest", descending=True)
        by, size = float(rows["largest"][0]), ""
        if by != float("inf"):
            size = f", by up to {by:.2%}" if by >= 1e-4 else f", by up to {by:.1g} of itself"
        of = f"{column} of {int(rows['rows'].sum()):,} of {plural(whole, 'forecast')}"
        differences.append(Difference("values", f"{of}{size}: {rows['example'][0]}"))
    return differences


def _refuse_unknown(files: list[DataFile], pin: Pin, wanted: Wanted, ds: date) -> None:
    """Nothing was compared: says which of the words is none of the day's.

    Raises:
        ConfigError: always.
    """
    keys = pl.concat([read_files([file], pin.schema, list(wanted.named)).unique() for file in files]).unique()
    for (column, asked), option in zip(wanted.named.items(), _options(wanted), strict=True):
        if asked not in (known := keys[column].unique().sort().to_list()):
            raise ConfigError(f'{option}: {TABLE} ds={ds} has no {column} "{asked}"; {nearest(asked, known[:10_000])}')
        keys = keys.filter(pl.col(column) == asked)
    raise ConfigError(f"{TABLE} ds={ds}: no forecast of {' and '.join(_options(wanted))} together")


def _options(wanted: Wanted) -> list[str]:
    return [f"--{name}" for name in ("advertiser", "scenario", "task") if getattr(wanted, name) is not None]


def work(run: Run, advertiser: str | None, scenario: str | None, task: str | None) -> int:
    """Replay each day of the run, say what came of it; the exit status."""
    warehouse = Warehouse.existing(run.config, run.ds)
    days, status = [run.ds], 0
    if run.first < run.last:
        pin = warehouse.pin(TABLE)
        days = [day for day in pin.days_written() if run.first <= day <= run.last]
        if not days:
            raise ConfigError(f"{TABLE}: nothing was forecast in {run.first}..{run.last}; {_days_there(pin)}")
    registry = Registry(run.config)
    with ExitStack() as stack:

        @cache
        def spark() -> SparkSession:
            return stack.enter_context(spark_session(run.config, run.run_id, run.stage))

        for day in days:
            of_day = replace(run, first=day, last=day)
            found = replay(of_day, spark, warehouse, registry, Wanted(advertiser, scenario, task))
            for line in found.lines:
                of_day.say(line)
            status = status if found.identical else EXIT_DATA
    return status
