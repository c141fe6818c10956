"""``pipeline.toml``: everything a deployment declares, typed, frozen and read once.

A data set is described here and in its own SQL files, and nowhere else: no metric, task or attribute name is
written in Python. ``docs/bring_your_data.md`` explains every key. An unknown key is an error that names the
nearest known one; a number has its range where it is declared.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import tomllib
from collections.abc import Sequence
from dataclasses import field
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from m2m_model.config import (
    ACTIVE,
    Days,
    Kind,
    KnownFuture,
    Matching,
    ModelConfig,
    Name,
    Task,
    TrainConfig,
    Within,
    settings,
)
from pipelines import catalog, source_config
from pipelines.errors import ConfigError
from pipelines.paths import check_location, sqlite_uri
from pipelines.toml_tables import Entries, Keys, Text, build

if TYPE_CHECKING:
    from m2m_model.data.spec import SequenceSpec

Severity = Literal["critical", "warning"]

# Columns of our own tables that stand beside those of a data set, and what its SQL says of a row.
RESERVED = frozenset(
    "ds bucket advertiser_id scenario_id registered_on day behavior_day plan_day for_day source_rows dirt".split()
)
# Every check whose severity [checks] severity may set.
CHECKS = (
    "other_day null_id empty_id padded_id number_id long_id control_characters lost_characters not_ascii"
    " unknown_scenario plan_of_the_past duplicate_key null nan infinite absurd negative not_above long_attribute"
    " empty_day volume changed_ids new_advertisers freshness day_completeness attributes_known"
).split()
ALL_SCENARIOS = "*"  # scenario_id of a row that sums over scenarios

_LARGEST = 2**20  # bytes of a configuration
_NEIGHBOURS = frozenset("airflow logs mlartifacts mlflow mlruns".split())  # of a data set's folder under M2M_HOME
_TRACKING = ("sqlite", "postgresql", "mysql", "mssql", "databricks", "http", "https")
MASTER = r"local(\[(\*|[1-9]\d{0,3})(,\s*\d+)?\])?|local-cluster\[.+\]|yarn|spark://\S+:\d+|k8s://\S+"
# Spark settings that what is published hangs on.
_OURS = (
    ("spark.master", "is [spark] master"),
    ("spark.sql.session.timeZone", "is UTC: a day is a UTC day"),
    ("spark.sql.files.ignoreCorruptFiles", "is false: a file that cannot be read stops the run"),
    ("spark.sql.files.ignoreMissingFiles", "is false: a file that is missing stops the run"),
    ("spark.sql.ansi.enabled", "is true: a value that does not fit stops the run"),
)
# Stages that start Spark.
SPARK_STAGES = (
    "stage_sources",
    "build_sequences",
    "train",
    "backtest",
    "score",
    "monitor",
    "explain",
    "replay",
    "drift",
    "restatements",
)

Horizon = Annotated[int, Within(1, 366, "a year")]
Length = Annotated[int, Within(1, 1024, "characters")]
Ratio = Annotated[float, Within(0.01, 100)]
_PATH = source_config.PATH
SqlFile = Annotated[str, _PATH]
Page = Annotated[str, Matching(r"(https?://[^\s/]\S*)?", "an address that begins with https:// or http://")]
_SparkConf = Annotated[dict[str, Text], Keys(prefixes=("spark.",), refused=_OURS)]


@settings
class Dataset:
    """What is forecast. ``name`` also names the folder under M2M_HOME, the MLflow experiment and the model.

    ``horizons_days`` instead of ``horizon_days``: totals over several horizons, of which the longest decides what
    ``horizon_days`` alone would.
    ``late_days``: how many days before its own a daily run stages again, for rows that came late or were restated.
    ``mature_days``: how old a day must be before its rows count as final: no label of training, backtest or monitoring
    holds a younger one (`restatements` shows how much they still change).
    ``eligible_days``: a series without a row in so many days is silent: forecast by rule, and not judged.
    """

    name: Name
    first_day: Annotated[date, Within(date(1970, 1, 1), date(2199, 12, 31))]
    horizon_days: Horizon = 7
    horizons_days: Annotated[tuple[Horizon, ...], Entries(1, 12)] | None = None
    buckets: Annotated[int, Within(1, 4096, "each is a file and a Spark task a day")] = 4
    late_days: Annotated[int, Within(0, 366, "a year")] = 0
    mature_days: Annotated[int, Within(0, 366, "a year")] = 0
    eligible_days: Annotated[int, Within(1, 366, "a year")] = 28

    def __post_init__(self) -> None:
        if self.name.lower() in _NEIGHBOURS:
            raise ValueError(f'name = "{self.name}": something else lies there in M2M_HOME; choose another name')
        if self.horizons_days is not None:
            for shorter, longer in pairwise(self.horizons_days):
                if shorter >= longer:
                    words = "expected each to be above the one before it"
                    raise ValueError(f"horizons_days = {list(self.horizons_days)}: {longer} after {shorter}; {words}")
            object.__setattr__(self, "horizon_days", self.horizons_days[-1])  # frozen, and not said twice

    @property
    def horizons(self) -> tuple[int, ...]:
        """All horizons, the longest last."""
        return self.horizons_days or (self.horizon_days,)

    @property
    def label_days(self) -> int:
        """Days after a cutoff until its label is final."""
        return self.horizon_days + self.mature_days


@settings
class Staging:
    """The data set's own SELECTs, one file a table, relative to pipeline.toml."""

    performance_daily: SqlFile
    behavior_daily: SqlFile | None = None
    known_future: SqlFile | None = None
    advertiser: SqlFile | None = None
    scenario: SqlFile | None = None


@settings
class Performance:
    """A performance metric: what may be forecast. ``unit`` is for people (usd, clicks)."""

    name: Name
    kind: Kind
    unit: Annotated[str, Matching(r"[^\x00-\x1f]{0,64}", "at most 64 characters, none of them a control one")] = ""


@settings
class Behavior:
    """A behavior column: what the advertiser did that day (budget changes, top-ups, ...), as a count."""

    name: Name


@settings
class Attributes:
    """Categorical profile columns of advertiser.sql and scenario.sql."""

    advertiser: tuple[Name, ...] = ()
    scenario: tuple[Name, ...] = ()


@settings
class History:
    """``window_days`` is what the model sees before a cutoff; ``keep_days`` is what a sequence row keeps, so that
    training can look back at many cutoffs."""

    window_days: Annotated[int, Within(1, 1100, "three years")] = 56
    keep_days: Days = 400

    def __post_init__(self) -> None:
        if self.keep_days < self.window_days:
            raise ValueError(f"keep_days = {self.keep_days}: must not be below window_days = {self.window_days}")


@settings
class Checks:
    """Rules on the data. ``not_above``: pairs [small, large] with small <= large in every row. ``new_max_ratio``: the
    largest share of a day's advertisers, or of its money, that may have no row in the four weeks before.
    ``forecast_max_jump``: by what factor a champion's forecasts may leave the level of the data since the day before,
    or their intervals shrink, in a scenario and task (``pipelines.kernels.sound``)."""

    not_above: tuple[tuple[str, str], ...] = ()
    volume_min_ratio: Annotated[float, Within(0, 1)] = 0.6
    new_max_ratio: Annotated[float, Within(0, 1)] = 0.3
    forecast_max_jump: Annotated[float, Within(1, 1000)] = 3.0
    id_max_length: Length = 256
    attribute_max_length: Length = 256
    severity: Annotated[dict[str, Severity], Keys(CHECKS)] = field(default_factory=dict)


@settings
class Distributor:
    """How TorchDistributor runs training. ``local`` = on the driver's machine; ``threads`` 0 = the cores of the machine
    or executor / its processes. ``use_gpu`` also decides for scoring.

    An attempt waits ``wait_s`` for executors with ``processes`` slots, and then does with ``min_processes`` (0: all).
    """

    processes: Annotated[int, Within(1, 1024)] = 1
    min_processes: Annotated[int, Within(0, 1024)] = 0
    local: bool = True
    use_gpu: bool = False
    threads: Annotated[int, Within(0, 1024)] = 0
    attempts: Annotated[int, Within(1, 20)] = 2
    wait_s: Annotated[int, Within(1, 86_400, "a day")] = 45

    def __post_init__(self) -> None:
        if self.min_processes > self.processes:
            raise ValueError(f"min_processes = {self.min_processes}: must not be above processes = {self.processes}")


@settings
class Backtest:
    """Held-out cutoffs: the last whose label is final, then every ``every_days`` back, ``cutoffs`` of them."""

    MOVED: ClassVar[dict[str, str]] = {"eligible_days": "[dataset] eligible_days"}

    cutoffs: Annotated[int, Within(1, 100)] = 4
    every_days: Annotated[int, Within(1, 366, "a year")] = 7


@settings
class Gate:
    """Promotion: the most that the challenger's error may be beside the champion's and the best baseline's, in the mean
    over tasks and in cells (``pipelines.life.gate``); and how long a person is asked before it (0: nobody is)."""

    max_ratio_to_champion: Ratio = 1.0
    max_ratio_to_baseline: Ratio = 1.0
    tolerance: Annotated[float, Within(0, 10)] = 0.02
    effect: Annotated[float, Within(0, 10)] = 0.05
    false_discoveries: Annotated[float, Within(0, 1)] = 0.05
    cell_rows: Annotated[int, Within(1, 10**9)] = 300
    approval_hours: Annotated[int, Within(0, 168, "a week")] = 0


@settings
class Explain:
    """``top``: how many forecasts of each task and horizon `explain` looks at for having moved the most, and how many
    more of each horizon for being the most valuable that may leave. 0: none."""

    top: Annotated[int, Within(0, 10_000)] = 100


@settings
class Drift:
    """Rules of drift (``pipelines.quality.drift``). ``limits``: how many times as wide as measured they are.
    ``ignore``: signals, or how they begin, that nobody is told of. ``holds_promotion``: while a scenario's last days
    are in doubt (silent, other units), the gate promotes nobody."""

    limits: Annotated[float, Within(0.25, 20)] = 1.0
    ignore: tuple[Annotated[str, Matching(r"[^\x00-\x1f]{1,128}", "the name of a signal")], ...] = ()
    holds_promotion: bool = True


@settings
class Maintenance:
    """What `maintain` keeps: snapshots for replays and time travel; files that a running stage may yet commit."""

    keep_snapshots_days: Days = 30
    keep_files_hours: Annotated[int, Within(1, 8784, "a year")] = 24


@settings
class Alerts:
    """Who is told of an incident by Airflow's notifiers, when, and which pages a message links to. Nobody unless said.

    ``mail``: addresses, through Airflow's connection smtp_default. ``chat``: addresses of Apprise; each holds a token,
    so each refers to the environment. ``{date}`` in ``report`` is the day.
    """

    mail: tuple[Annotated[str, Matching(r"[^@\s,;]+@[^@\s,;]+", "an address, as oncall@example.com")], ...] = ()
    chat: tuple[Text, ...] = ()
    refusal_days: Annotated[int, Within(1, 366, "a year")] = 3
    deadline_hours: Annotated[int, Within(1, 168, "a week")] = 4
    drift_ratio: Annotated[float, Within(1, 100)] = 1.5
    min_coverage: Annotated[float, Within(0, 1)] = 0.75
    console: Page = ""
    report: Page = ""

    def __post_init__(self) -> None:
        for address in self.chat:
            if not address.refers:
                raise ValueError(
                    "chat: an address of Apprise holds a token, and pipeline.toml is kept with every training run; "
                    'write "${NAME}" and set NAME in the environment'
                )


@settings
class Spark:
    """``master`` and any Spark setting, for all stages (``conf``) and for one (``stages``); the DAGs' spark-submit
    decides the master when it starts the stage."""

    master: Text = Text("local[2]", "[spark] master")
    conf: _SparkConf = field(default_factory=dict)
    stages: Annotated[dict[str, _SparkConf], Keys(SPARK_STAGES)] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.master.refers and not re.fullmatch(MASTER, str(self.master)):
            raise ValueError("master: expected local[2], spark://host:port, yarn or k8s://address")

    def given(self, stage: str) -> dict[str, Text]:
        """What is said for all stages, and over it what is for this one."""
        return {**self.conf, **self.stages.get(stage, {})}


@settings
class Storage:
    """``scratch`` is the folder, by its URI, of what a run keeps for a while: training's shards and checkpoints.
    Workers on other machines must reach it; unless said otherwise it is the home. The credentials of [warehouse] open
    it."""

    scratch: Annotated[Text | None, _PATH] = None

    def __post_init__(self) -> None:
        if self.scratch and not self.scratch.refers:
            check_location("scratch", str(self.scratch))


@settings
class Mlflow:
    """Where runs and models are kept: SQLite and files under M2M_HOME unless said otherwise. ``artifacts`` is the
    folder of the models' files, by its URI; a tracking server has its own."""

    tracking_uri: Text | None = None
    artifacts: Annotated[Text | None, _PATH] = None

    def __post_init__(self) -> None:
        if self.artifacts and not self.artifacts.refers:
            check_location("artifacts", str(self.artifacts))
        if self.tracking_uri is None or self.tracking_uri.refers:
            return
        uri = str(self.tracking_uri)
        if re.split("[+:]", uri)[0] not in _TRACKING:
            raise ValueError(f"tracking_uri: expected an address that begins with {', '.join(_TRACKING)}")
        if catalog.relative_sqlite(uri):
            raise ValueError("tracking_uri: write an absolute path, sqlite:////folder/mlflow.db")


@settings
class Config:
    """One deployment. ``home`` is this data set's own folder under M2M_HOME."""

    path: Path
    home: Path
    dataset: Dataset
    source: Annotated[tuple[source_config.Source, ...], Entries(1, 50)]
    staging: Staging
    performance: Annotated[tuple[Performance, ...], Entries(1, 200)]
    task: Annotated[tuple[Task, ...], Entries(1, 50)]
    behavior: Annotated[tuple[Behavior, ...], Entries(0, 200)] = ()
    known_future: Annotated[tuple[KnownFuture, ...], Entries(0, 50)] = ()
    attributes: Attributes = Attributes()
    history: History = History()
    checks: Checks = Checks()
    model: ModelConfig = ModelConfig()
    training: TrainConfig = TrainConfig()
    distributor: Distributor = Distributor()
    backtest: Backtest = Backtest()
    gate: Gate = Gate()
    explain: Explain = Explain()
    drift: Drift = Drift()
    maintenance: Maintenance = Maintenance()
    alerts: Alerts = Alerts()
    spark: Spark = Spark()
    warehouse: Annotated[dict[str, Text], catalog.CatalogTable()] = field(default_factory=dict)
    storage: Storage = Storage()
    mlflow: Mlflow = Mlflow()

    def __post_init__(self) -> None:
        _check_names(self)
        _check_references(self)
        _check_lengths(self)

    @property
    def files(self) -> list[tuple[str, bytes]]:
        """What it is made of: pipeline.toml, then its SQL files by their names."""
        sql = [(name, (self.path.parent / name).read_bytes()) for name in dataclasses.astuple(self.staging) if name]
        return [("pipeline.toml", self.path.read_bytes()), *sql]

    @property
    def hash(self) -> str:
        """Short hash of the configuration file and its SQL files: what a snapshot was made with."""
        return hash_of(self.files)

    @property
    def model_name(self) -> str:
        """What MLflow calls the experiment and the registered model."""
        return f"m2m_{self.dataset.name}"

    @property
    def training_hash(self) -> str:
        """Short hash of what a training learns by: a checkpoint of it is gone on from, whatever else is changed."""
        learnt = (self.dataset, self.performance, self.task, self.behavior, self.attributes, self.history, self.model)
        future = self.known_future or ()
        return hashlib.sha256(repr((learnt, self.training, self.backtest, future)).encode()).hexdigest()[:12]

    @property
    def metric_names(self) -> tuple[str, ...]:
        return tuple(metric.name for metric in self.performance)

    @property
    def behavior_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.behavior)

    @property
    def planned(self) -> tuple[KnownFuture, ...]:
        """What known_future.sql returns; holidays are the calendar's."""
        return tuple(covariate for covariate in self.known_future if not covariate.is_holidays)

    @property
    def money_task(self) -> str | None:
        """The first task that adds up money, if there is one."""
        money = [metric.name for metric in self.performance if metric.kind == "money"]
        return next((task.name for task in self.task if task.aggregate == "sum" and task.metric in money), None)

    @property
    def sequence_spec(self) -> SequenceSpec:
        """What the model package needs to know of this data set."""
        from m2m_model.data.spec import SequenceSpec  # numpy, which a wrong key does not wait for

        return SequenceSpec(
            metrics=self.metric_names,
            behaviors=self.behavior_names,
            advertiser_attributes=self.attributes.advertiser,
            scenario_attributes=self.attributes.scenario,
            tasks=self.task,
            horizons_days=self.dataset.horizons,
            window_days=self.history.window_days,
            eligible_days=self.dataset.eligible_days,
            known_future=self.known_future,
            not_above=self.checks.not_above,
        )

    @property
    def catalog_properties(self) -> dict[str, Any]:
        """PyIceberg catalog properties: SQLite and local files unless [warehouse] says otherwise."""
        return catalog.properties(self.warehouse, self.home)

    @property
    def namespace_prefix(self) -> str:
        """What the catalog's namespaces begin with, so that data sets can share a catalog or a warehouse."""
        declared = self.warehouse.get(catalog.PREFIX)
        return f"{self.dataset.name}_" if declared is None else declared.resolve()

    @property
    def scratch(self) -> str:
        """URI of the data set's folder for what a run keeps for a while."""
        declared = self.storage.scratch
        return f"{_location(declared)}/{self.dataset.name}" if declared else str(self.home)

    @property
    def artifacts(self) -> str | None:
        """URI of the folder that the files of all data sets' models are in, if one is declared."""
        return _location(self.mlflow.artifacts) if self.mlflow.artifacts else None

    @property
    def mlflow_uri(self) -> str:
        declared = self.mlflow.tracking_uri
        return declared.resolve() if declared else sqlite_uri(m2m_home() / "mlflow.db")


def hash_of(files: Sequence[tuple[str, bytes]]) -> str:
    """Short hash of the files that a configuration is made of."""
    digest = hashlib.sha256()
    for _, content in files:
        digest.update(content)
    return digest.hexdigest()[:12]


def _location(declared: Text) -> str:
    """A folder's address as the environment has it now.

    Raises:
        ConfigError: it is none.
    """
    location = declared.resolve()
    try:
        check_location(declared.key, location)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return location.rstrip("/")


def m2m_home() -> Path:
    """Folder of everything that is not code: $M2M_HOME; else .m2m in the checkout, or, where the package is installed,
    below the user's home folder.

    Raises:
        ConfigError: M2M_HOME is not set, and the user has no home folder.
    """
    if given := os.environ.get("M2M_HOME"):
        return Path(given).absolute()
    root = Path(__file__).resolve().parents[1]
    try:
        return (root if (root / "pyproject.toml").is_file() else Path.home()) / ".m2m"
    except RuntimeError:
        raise ConfigError("this user has no home folder to keep state in; set M2M_HOME") from None


def load_config(path: Path | str) -> Config:
    """Read and check ``pipeline.toml``.

    Raises:
        ConfigError: the file is missing or not TOML; a key is unknown, missing or of the wrong type; a name is used
            twice, reserved or refers to nothing; a number is out of range; a secret stands in it.
    """
    path = Path(path).absolute()
    try:
        raw = _read(path)
        dataset = raw.get("dataset", {})
        if isinstance(dataset, dict) and {"horizon_days", "horizons_days"} <= dataset.keys():
            raise ConfigError("[dataset]: horizon_days and horizons_days; expected one of the two")
        name = build(Dataset, dataset, "[dataset]").name if "dataset" in raw else ""
        config: Config = build(Config, raw, fixed={"path": path, "home": m2m_home() / name})
        return config
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: tables or lists lie too deep in each other") from None


def _read(path: Path) -> dict[str, Any]:
    """The file's own tables."""
    try:
        if not path.exists():
            raise ConfigError("no such file; name a pipeline.toml with --config or M2M_CONFIG")
        if not path.is_file():
            raise ConfigError("not a file; name the pipeline.toml itself")
        if path.stat().st_size > _LARGEST:
            raise ConfigError(f"{path.stat().st_size:,} bytes are no configuration; name a pipeline.toml")
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}") from None
    except ValueError as error:  # also not UTF-8, and a path with a null character in it
        raise ConfigError(f"not TOML: {error}") from None


def _check_names(config: Config) -> None:
    """No name is used twice, be it in another case (Spark and some catalogs see none), and none is ours."""
    columns = [
        *(("[[performance]]", name) for name in config.metric_names),
        *(("[[behavior]]", name) for name in config.behavior_names),
        *(("[[known_future]]", covariate.name) for covariate in config.known_future),
        *(("[attributes] advertiser", name) for name in config.attributes.advertiser),
        *(("[attributes] scenario", name) for name in config.attributes.scenario),
    ]
    for place, name in columns:
        if name.lower() in RESERVED:
            raise ValueError(f'{place} {name}: "{name}" is a column of the system\'s own tables; choose another name')
        if name.lower() == ACTIVE and place == "[[performance]]":
            raise ValueError(f'{place} {name}: "{ACTIVE}" is what tasks call a day with any metric above 0')
    tasks = [("[[task]]", task.name) for task in config.task]
    sources = [("[[source]]", source.name) for source in config.source]
    for group in (columns, tasks, sources):
        seen: dict[str, str] = {}
        for place, name in group:
            if other := seen.get(name.lower()):
                twice = "is declared twice" if other == name else f'differs from "{other}" in case alone'
                raise ValueError(f'{place} {name}: "{name}" {twice}')
            seen[name.lower()] = name


def _check_references(config: Config) -> None:
    """What one table says of another is there."""
    metrics, staging = config.metric_names, config.staging
    kinds = {metric.name: metric.kind for metric in config.performance}
    for task in config.task:
        known = [*metrics, ACTIVE] if task.aggregate == "days" else list(metrics)
        if task.metric not in known:
            raise ValueError(f'[[task]] {task.name}: metric "{task.metric}" is not one of {", ".join(known)}')
        if kinds.get(task.metric) == "ratio":
            raise ValueError(f'[[task]] {task.name}: "{task.metric}" is a ratio; a total of ratios means nothing')
    for pair in config.checks.not_above:
        for name in pair:
            if name not in metrics:
                raise ValueError(f'[checks] not_above: "{name}" is not one of {", ".join(metrics)}')
        if pair[0] == pair[1] or config.checks.not_above.count(pair) > 1:
            raise ValueError(f"[checks] not_above: {list(pair)} holds one metric twice, or stands there twice")
    if config.attributes.advertiser and not staging.advertiser:
        raise ValueError("[attributes] advertiser needs [staging] advertiser")
    if config.attributes.scenario and not staging.scenario:
        raise ValueError("[attributes] scenario needs [staging] scenario")
    if config.behavior and not staging.behavior_daily:
        raise ValueError("[[behavior]] needs [staging] behavior_daily")
    if staging.behavior_daily and not config.behavior:
        raise ValueError("[staging] behavior_daily needs at least one [[behavior]]")
    _check_known_future(config, kinds)
    for table, file in dataclasses.asdict(staging).items():
        if file is not None and not os.path.isfile(config.path.parent / file):
            raise ValueError(f"[staging] {table}: {file}: no such file beside pipeline.toml")


def _check_known_future(config: Config, kinds: dict[str, Kind]) -> None:
    """What is known of days to come is of a metric, of the plans, or of a country."""
    for covariate in config.known_future:
        at = f"[[known_future]] {covariate.name}"
        if covariate.of and kinds.get(covariate.of, "ratio") == "ratio":
            totals = ", ".join(name for name, kind in kinds.items() if kind != "ratio")
            raise ValueError(f'{at}: of = "{covariate.of}" is not one of {totals}')
        if covariate.country:
            from m2m_model.data.holidays import holidays_of  # of data sets with holidays alone

            try:
                holidays_of(covariate.country, config.dataset.first_day.year, config.dataset.first_day.year)
            except ValueError as error:
                raise ValueError(f"{at}: {error}") from None
        attributes = (*config.attributes.advertiser, *config.attributes.scenario)
        if covariate.country_attribute and covariate.country_attribute not in attributes:
            raise ValueError(f'{at}: country_attribute = "{covariate.country_attribute}" is not one of [attributes]')
    if config.planned and not config.staging.known_future:
        at = f"[[known_future]] {config.planned[0].name}"
        raise ValueError(f"{at} needs [staging] known_future, or a country, whose holidays it is")
    if config.staging.known_future and not config.planned:
        raise ValueError("[staging] known_future needs at least one [[known_future]] that is no country's holidays")
    listed = {name.lower() for name in (*config.metric_names, *config.behavior_names)}
    for plan in config.sequence_spec.plans if config.known_future else ():
        if plan.column.lower() in listed:
            name = plan.covariate.name
            raise ValueError(
                f'[[known_future]] {name}: "{plan.column}" is its column in sequences, and declared already'
            )


def _check_lengths(config: Config) -> None:
    """A length that is cut from another one is not longer."""
    kept, window, held_out = config.history.keep_days, config.history.window_days, config.backtest
    for place, length, within, longest in (
        ("[dataset] eligible_days", config.dataset.eligible_days, "[history] keep_days", kept),
        ("[training] min_history_days", config.training.min_history_days, "[history] keep_days", kept),
        ("[model] patch_days", config.model.patch_days, "[history] window_days", window),
        (
            "[dataset] horizon_days + mature_days + [backtest] every_days x (cutoffs - 1)",
            config.dataset.label_days + held_out.every_days * (held_out.cutoffs - 1),
            "[history] keep_days",
            kept,
        ),
    ):
        if length > longest:
            raise ValueError(f"{place} = {length}: must not be above {within} = {longest}")
