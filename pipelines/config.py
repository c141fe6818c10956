"""``pipeline.toml``: everything a deployment declares, typed, frozen and read once.

A data set is described here and in its own SQL files, and nowhere else: no metric, task or attribute name is
written in Python. ``docs/bring_your_data.md`` explains every key. An unknown key is an error that names the
nearest known one.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import os
import tomllib
import types
import typing
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

from m2m_model.config import ModelConfig, Task, TrainConfig
from m2m_model.data.spec import SequenceSpec
from pipelines.errors import ConfigError

Kind = Literal["count", "money", "ratio"]
Severity = Literal["critical", "warning"]

# Columns of our own tables that a metric, behavior or attribute must not be named after.
RESERVED = frozenset(
    [
        "ds",
        "bucket",
        "advertiser_id",
        "scenario_id",
        "registered_on",
        "day",
        "behavior_day",
        "source_rows",
        "dirt",
        "task",
        "horizon_days",
        "active",
    ]
)
# Every check whose severity [checks] severity may set.
CHECKS = frozenset(
    "other_day null_id empty_id padded_id long_id control_characters not_ascii unknown_scenario duplicate_key null nan"
    " infinite absurd negative not_above empty_day volume freshness day_completeness".split()
)
ALL_SCENARIOS = "*"  # scenario_id of a row that sums over scenarios


@dataclass(frozen=True)
class Dataset:
    """What is forecast. ``name`` also names the folder under M2M_HOME, the MLflow experiment and the model.

    ``late_days``: how many days before its own a daily run stages again, for rows that came late or were restated.
    ``mature_days``: how old a day must be before its rows count as final: no label of training, backtest or monitoring
    holds a younger one (`restatements` shows how much they still change).
    """

    name: str
    first_day: date
    horizon_days: int = 7
    buckets: int = 4
    late_days: int = 0
    mature_days: int = 0

    @property
    def label_days(self) -> int:
        """Days after a cutoff until its label is final."""
        return self.horizon_days + self.mature_days


@dataclass(frozen=True)
class Source:
    """One raw input; ``name`` is the view that the staging SQL reads.

    ``path`` is relative to pipeline.toml; with ``{ds}`` in it there is one file or folder a day, and ``{home}`` is the
    data set's folder under M2M_HOME. ``columns`` maps each raw column to the Spark type that it must have.
    """

    name: str
    format: Literal["csv", "json", "parquet", "orc", "jdbc", "table"]
    path: str = ""
    options: dict[str, str] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Staging:
    """The data set's own SELECTs, one file a table, relative to pipeline.toml."""

    performance_daily: str
    behavior_daily: str | None = None
    advertiser: str | None = None
    scenario: str | None = None


@dataclass(frozen=True)
class Performance:
    """A performance metric: what may be forecast. ``unit`` is for people (usd, clicks)."""

    name: str
    kind: Kind
    unit: str = ""


@dataclass(frozen=True)
class Behavior:
    """A behavior column: what the advertiser did that day (budget changes, top-ups, ...), as a count."""

    name: str


@dataclass(frozen=True)
class Attributes:
    """Categorical profile columns of advertiser.sql and scenario.sql."""

    advertiser: tuple[str, ...] = ()
    scenario: tuple[str, ...] = ()


@dataclass(frozen=True)
class History:
    """``window_days`` is what the model sees before a cutoff; ``keep_days`` is what a sequence row keeps, so that
    training can look back at many cutoffs."""

    window_days: int = 56
    keep_days: int = 400


@dataclass(frozen=True)
class Checks:
    """Rules on the data. ``not_above`` lists pairs [small, large] with small <= large in every row."""

    not_above: tuple[tuple[str, str], ...] = ()
    volume_min_ratio: float = 0.5
    id_max_length: int = 256
    severity: dict[str, Severity] = field(default_factory=dict)


@dataclass(frozen=True)
class Distributor:
    """How TorchDistributor runs training. ``local`` = on the driver's machine; ``threads`` 0 = cores / processes."""

    processes: int = 1
    local: bool = True
    use_gpu: bool = False
    threads: int = 0
    attempts: int = 2


@dataclass(frozen=True)
class Backtest:
    """Held-out cutoffs: the last whose label is final, then every ``every_days`` back, ``cutoffs`` of them."""

    cutoffs: int = 4
    every_days: int = 7
    eligible_days: int = 28


@dataclass(frozen=True)
class Gate:
    """Promotion: the challenger's mean NMAE over tasks, divided by the champion's and by the best baseline's, must not
    be above these."""

    max_ratio_to_champion: float = 1.0
    max_ratio_to_baseline: float = 1.0


@dataclass(frozen=True)
class Maintenance:
    """What `maintain` keeps: snapshots for replays and time travel; files that a running stage may yet commit."""

    keep_snapshots_days: int = 30
    keep_files_hours: int = 24


@dataclass(frozen=True)
class Spark:
    """``master`` and any Spark setting; the DAGs' spark-submit decides the master when it starts the stage."""

    master: str = "local[2]"
    conf: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """One deployment. ``home`` is this data set's own folder under M2M_HOME."""

    path: Path
    home: Path
    dataset: Dataset
    source: tuple[Source, ...]
    staging: Staging
    performance: tuple[Performance, ...]
    task: tuple[Task, ...]
    behavior: tuple[Behavior, ...] = ()
    attributes: Attributes = Attributes()
    history: History = History()
    checks: Checks = Checks()
    model: ModelConfig = ModelConfig()
    training: TrainConfig = TrainConfig()
    distributor: Distributor = Distributor()
    backtest: Backtest = Backtest()
    gate: Gate = Gate()
    maintenance: Maintenance = Maintenance()
    spark: Spark = Spark()
    warehouse: dict[str, str] = field(default_factory=dict)
    mlflow: dict[str, str] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """Short hash of the configuration file and its SQL files: what a snapshot was made with."""
        digest = hashlib.sha256(self.path.read_bytes())
        for name in dataclasses.astuple(self.staging):
            if name:
                digest.update((self.path.parent / name).read_bytes())
        return digest.hexdigest()[:12]

    @property
    def metric_names(self) -> tuple[str, ...]:
        return tuple(metric.name for metric in self.performance)

    @property
    def behavior_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.behavior)

    @property
    def money_task(self) -> str | None:
        """The first task that adds up money, if there is one."""
        money = [metric.name for metric in self.performance if metric.kind == "money"]
        return next((task.name for task in self.task if task.aggregate == "sum" and task.metric in money), None)

    @property
    def sequence_spec(self) -> SequenceSpec:
        """What the model package needs to know of this data set."""
        return SequenceSpec(
            metrics=self.metric_names,
            behaviors=self.behavior_names,
            advertiser_attributes=self.attributes.advertiser,
            scenario_attributes=self.attributes.scenario,
            tasks=self.task,
            horizon_days=self.dataset.horizon_days,
            window_days=self.history.window_days,
            eligible_days=self.backtest.eligible_days,
        )

    @property
    def catalog_properties(self) -> dict[str, str]:
        """PyIceberg catalog properties: SQLite and local files unless [warehouse] says otherwise."""
        return {
            "type": "sql",
            "uri": f"sqlite:///{self.home}/catalog.db",
            "warehouse": f"file://{self.home}/warehouse",
        } | self.warehouse

    @property
    def mlflow_uri(self) -> str:
        return self.mlflow.get("tracking_uri", f"sqlite:///{m2m_home()}/mlflow.db")


def m2m_home() -> Path:
    """Folder of everything that is not code: $M2M_HOME, or .m2m beside this package."""
    return Path(os.environ.get("M2M_HOME") or Path(__file__).resolve().parents[1] / ".m2m").absolute()


def load_config(path: Path | str) -> Config:
    """Read and check ``pipeline.toml``.

    Raises:
        ConfigError: the file is missing or not TOML; a key is unknown, missing or of the wrong type; a name is used
            twice, reserved or refers to nothing; a number is out of range.
    """
    path = Path(path).absolute()
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; name a pipeline.toml with --config or M2M_CONFIG") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    name = raw.get("dataset", {}).get("name", "") if isinstance(raw.get("dataset"), dict) else ""
    fixed = {"path": path, "home": m2m_home() / str(name)}
    config: Config = _build(Config, raw, str(path), fixed)
    _check(config)
    return config


def _build(cls: Any, raw: Any, where: str, fixed: dict[str, Any] | None = None) -> Any:
    """Make dataclass ``cls`` from a TOML table, refusing unknown keys, missing keys and wrong types."""
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: expected a table, found {raw!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.name not in (fixed or {})}
    for key in raw:
        if key not in fields:
            nearest = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
            hint = f'did you mean "{nearest[0]}"?' if nearest else f"known keys: {', '.join(fields)}"
            raise ConfigError(f'{where}: unknown key "{key}"; {hint}')
    values = dict(fixed or {})
    for name, spec in fields.items():
        if name in raw:
            values[name] = _value(hints[name], raw[name], f"{where}: {name}")
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise ConfigError(f'{where}: missing key "{name}"')
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _value(hint: Any, raw: Any, where: str) -> Any:
    """Convert one TOML value to the type that the dataclass field declares."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _build(hint, raw, where)
    if origin is Literal:
        if raw not in args:
            raise ConfigError(f"{where}: expected one of {', '.join(map(repr, args))}, found {raw!r}")
        return raw
    if origin in (typing.Union, types.UnionType):
        return _value(next(a for a in args if a is not type(None)), raw, where)
    if origin is tuple:
        if not isinstance(raw, list):
            raise ConfigError(f"{where}: expected a list, found {raw!r}")
        if args[-1] is Ellipsis:
            return tuple(_value(args[0], item, f"{where}[{i}]") for i, item in enumerate(raw))
        if len(raw) != len(args):
            raise ConfigError(f"{where}: expected {len(args)} values, found {raw!r}")
        return tuple(_value(a, item, where) for a, item in zip(args, raw, strict=True))
    if origin is dict:
        if not isinstance(raw, dict):
            raise ConfigError(f"{where}: expected a table, found {raw!r}")
        return {key: _value(args[1], item, f"{where}.{key}") for key, item in raw.items()}
    if hint is float and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    if type(raw) is not hint:
        raise ConfigError(f"{where}: expected {hint.__name__}, found {raw!r} ({type(raw).__name__})")
    return raw


def _check(config: Config) -> None:
    """Refuse what is well-typed but cannot work."""

    def refuse(message: str) -> None:
        raise ConfigError(f"{config.path}: {message}")

    metrics, behaviors = config.metric_names, config.behavior_names
    columns = [*metrics, *behaviors, *config.attributes.advertiser, *config.attributes.scenario]
    for name in (config.dataset.name, *columns, *(t.name for t in config.task), *(s.name for s in config.source)):
        if not name.isidentifier():
            refuse(f'"{name}" must be letters, digits and underscores, not starting with a digit')
    for name in columns:
        if name in RESERVED:
            refuse(
                f'"{name}" is a column of the system\'s own tables; name the metric, behavior or attribute otherwise'
            )
    groups = (columns, [t.name for t in config.task], [s.name for s in config.source])
    for name in {name for group in groups for name in group if group.count(name) > 1}:
        refuse(f'"{name}" is declared twice')
    if not (metrics and config.task and config.source):
        refuse("at least one [[source]], one [[performance]] and one [[task]] are needed")
    kinds = {metric.name: metric.kind for metric in config.performance}
    for task in config.task:
        known = [*metrics, "active"] if task.aggregate == "days" else list(metrics)
        if task.metric not in known:
            refuse(f'[[task]] {task.name}: metric "{task.metric}" is not one of {", ".join(known)}')
        if kinds.get(task.metric) == "ratio":
            refuse(f'[[task]] {task.name}: "{task.metric}" is a ratio; a total of ratios means nothing')
    for name in config.checks.severity:
        if name not in CHECKS:
            nearest = difflib.get_close_matches(name, CHECKS, n=1)
            hint = f'did you mean "{nearest[0]}"?' if nearest else f"the checks are {', '.join(sorted(CHECKS))}"
            refuse(f'[checks] severity: "{name}" is no check; {hint}')
    for pair in config.checks.not_above:
        for name in pair:
            if name not in metrics:
                refuse(f'[checks] not_above: "{name}" is not one of {", ".join(metrics)}')
    if config.attributes.advertiser and not config.staging.advertiser:
        refuse("[attributes] advertiser needs [staging] advertiser")
    if config.attributes.scenario and not config.staging.scenario:
        refuse("[attributes] scenario needs [staging] scenario")
    if config.behavior and not config.staging.behavior_daily:
        refuse("[[behavior]] needs [staging] behavior_daily")
    if config.staging.behavior_daily and not config.behavior:
        refuse("[staging] behavior_daily needs at least one [[behavior]]")
    for source in config.source:
        if not source.columns:
            refuse(f"[[source]] {source.name}: columns are missing; list each raw column with its type")
        if source.format not in ("jdbc", "table") and not source.path:
            refuse(f'[[source]] {source.name}: missing key "path"')
    for file in dataclasses.astuple(config.staging):
        if file and not (config.path.parent / file).is_file():
            refuse(f"[staging] {file}: no such file beside pipeline.toml")
    positive = {
        "[dataset] horizon_days": config.dataset.horizon_days,
        "[dataset] buckets": config.dataset.buckets,
        "[history] window_days": config.history.window_days,
        "[backtest] cutoffs": config.backtest.cutoffs,
        "[backtest] every_days": config.backtest.every_days,
        "[distributor] processes": config.distributor.processes,
        "[distributor] attempts": config.distributor.attempts,
        "[maintenance] keep_snapshots_days": config.maintenance.keep_snapshots_days,
        "[maintenance] keep_files_hours": config.maintenance.keep_files_hours,
    }
    not_negative = {
        "[dataset] late_days": config.dataset.late_days,
        "[dataset] mature_days": config.dataset.mature_days,
    }
    for least, numbers in ((1, positive), (0, not_negative)):
        for key, number in numbers.items():
            if number < least:
                refuse(f"{key} = {number}: must be at least {least}")
    if config.history.keep_days < config.history.window_days:
        refuse("[history] keep_days must not be below window_days")
