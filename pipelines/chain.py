"""The chain, declared once: every command, what it reads, of which days, what it writes, and when.

Data only, and nothing heavy to import. From it come the list of commands, the writers in the data dictionary, what
`status` expects, which snapshots a stage pins and records as its lineage, and the order that the DAGs must have.
A new stage is a line here, a module of its name, its tables in ``warehouse/tables.py`` and a place in a DAG.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.config import Config

STATE = "State is kept in $M2M_HOME (default: .m2m in the checkout; ~/.m2m where the package is installed)."
LEDGER = "ops.validation"  # written by every stage that judges what it wrote
MODEL = "model."  # not a table: an alias of the registry, of which a version is read or written
CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"
INPUT = "m2m.input."  # snapshot property: the snapshot of a table, or the version of a model, that a commit read


@dataclass(frozen=True)
class Days:
    """Which days of a table a stage reads: from ``first`` to ``last``, relative to the day that it writes.

    ``newest``: of all days that are there only one: the newest up to the day, or the oldest after it if there is none.
    """

    words: str
    first: Callable[[Config], int] = lambda config: 0
    last: Callable[[Config], int] = lambda config: 0
    newest: bool = False

    def of(self, config: Config, day: date, there: Collection[date]) -> list[date]:
        """The days read for ``day``; ``there`` are those that the table has."""
        if not self.newest:
            return [day + timedelta(days=n) for n in range(self.first(config), self.last(config) + 1)]
        past = [ds for ds in there if ds <= day]
        return [max(past)] if past else [min(there)] if there else []


THE_DAY = Days("the day")
HISTORY = Days("[history] keep_days up to the day", first=lambda config: 1 - config.history.keep_days)
HORIZON = Days("the horizon after the day", first=lambda config: 1, last=lambda config: config.dataset.horizon_days)
SINCE_BEFORE = Days("the day, and the newest before it", first=lambda config: -1)
WEEKS = Days("some weeks up to the day", first=lambda config: -70)
LAST_DAYS = Days("the last days up to the day", first=lambda config: -5)
LAST_WEEK = Days("the week up to the day", first=lambda config: -7)
JUDGED = Days(
    "some weeks up to the newest that is judged for good",
    first=lambda config: -70 - config.dataset.label_days,
    last=lambda config: -config.dataset.label_days,
)
NEWEST = Days("the newest up to the day", newest=True)
NOW = Days("now")
MODEL_INPUT = {"features.sequence_week": HISTORY, "features.advertiser_sequence": THE_DAY}


@dataclass(frozen=True)
class Stage:
    """One command. Its tables are committed in the order in which they stand here, those of every day last.

    ``writes``: tables that get what a run has for them. ``daily``: tables that must have every day since their first.
    ``lag``: its day D is written by the run of D + lag. ``dag`` runs it, after the stage of that DAG before it or,
    where they are named, ``after`` others.
    """

    name: str
    does: str
    reads: Mapping[str, Days] = field(default_factory=dict)
    writes: tuple[str, ...] = ()
    daily: tuple[str, ...] = ()
    lag: Callable[[Config], int] = lambda config: 0
    settings: str = ""
    dag: str = ""
    after: tuple[str, ...] = ()

    @property
    def tables(self) -> tuple[str, ...]:
        """All that it writes, in the order of its commits."""
        return self.writes + self.daily


CHAIN = (
    Stage(
        "stage_sources",
        "raw sources, through the data set's own SQL and its checks, to the staged tables",
        writes=("staged.scenario", "staged.advertiser"),
        daily=("staged.known_future", "staged.behavior_daily", "staged.performance_daily"),
        settings="[[source]], [staging], [checks], [dataset] late_days",
        dag="advertiser_sequences",
    ),
    Stage(
        "build_sequences",
        "staged tables to the history of every advertiser in every scenario",
        reads={
            "staged.performance_daily": HISTORY,
            "staged.behavior_daily": HISTORY,
            "staged.known_future": HISTORY,
            "staged.advertiser": NEWEST,
            "staged.scenario": NEWEST,
            "features.sequence_week": HISTORY,
        },
        writes=("features.sequence_week",),
        daily=("features.advertiser_sequence",),
        settings="[history], [checks]",
        dag="advertiser_sequences",
    ),
    Stage(
        "train",
        "sequences to a new model version, the challenger",
        reads=MODEL_INPUT,
        writes=("model.challenger",),
        settings="[model], [training], [distributor], [backtest]",
        dag="m2m_training",
    ),
    Stage(
        "backtest",
        "challenger, champion and baselines at held-out cutoffs",
        reads={**MODEL_INPUT, "model.challenger": NOW, "model.champion": NOW},
        writes=("marts.backtest_value", "marts.backtest_pair", "marts.backtest"),
        settings="[backtest]",
        dag="m2m_training",
    ),
    Stage(
        "promote",
        "the gate: the challenger becomes champion, or a line says why not",
        reads={
            "marts.backtest": THE_DAY,
            "marts.backtest_pair": THE_DAY,
            "ops.drift": LAST_DAYS,
            "ops.serving_cell": NOW,
            "model.challenger": NOW,
            "model.champion": NOW,
        },
        writes=("ops.serving_cell", "ops.promotion_cell", "ops.promotion", "model.champion", "model.previous"),
        settings="[gate], [drift]",
        dag="m2m_training",
    ),
    Stage(
        "score",
        "a forecast of every task for every advertiser and scenario, day by day; who may leave; totals",
        reads={
            **MODEL_INPUT,
            "model.champion": NOW,
            "ops.serving_cell": NOW,
            "marts.forecast_daily": SINCE_BEFORE,
        },
        daily=("marts.forecast_daily", "marts.churn_risk", "marts.forecast_path", "marts.forecast_total"),
        settings="[checks]",
        dag="advertiser_forecasts",
    ),
    Stage(
        "monitor",
        "forecasts whose horizon has passed, against what happened",
        reads={"marts.forecast_daily": THE_DAY, "staged.performance_daily": HORIZON},
        daily=("marts.forecast_quality",),
        lag=lambda config: config.dataset.label_days,
        settings="[dataset] mature_days",
        dag="advertiser_forecasts",
    ),
    Stage(
        "explain",
        "why forecasts moved since the day before, and what speaks for the most valuable who may leave",
        reads={
            "features.sequence_week": HISTORY,
            "features.advertiser_sequence": SINCE_BEFORE,
            "model.champion": NOW,
            "marts.forecast_daily": SINCE_BEFORE,
            "marts.churn_risk": THE_DAY,
        },
        daily=("marts.forecast_change", "marts.forecast_reason"),
        settings="[explain]",
        dag="advertiser_forecasts",
        after=("score",),
    ),
    Stage(
        "drift",
        "the day's rows and matured forecasts against the weeks before; the error that today's forecasts expect",
        reads={
            "features.sequence_week": HISTORY,
            "features.advertiser_sequence": LAST_WEEK,
            "marts.forecast_daily": THE_DAY,
            "marts.forecast_quality": JUDGED,
        },
        daily=("marts.forecast_expected", "ops.drift"),
        settings="[drift]",
        dag="advertiser_forecasts",
        after=("monitor",),
    ),
    Stage(
        "report",
        "a page about the day: what ran, checks, totals, movers, who may leave, accuracy, cost",
        reads={
            "staged.performance_daily": WEEKS,
            "marts.forecast_total": THE_DAY,
            "marts.churn_risk": THE_DAY,
            "marts.forecast_quality": WEEKS,
            "marts.backtest": NOW,
            "ops.promotion": NOW,
            "ops.drift": THE_DAY,
            "marts.forecast_change": THE_DAY,
            "marts.forecast_reason": THE_DAY,
        },
        dag="advertiser_forecasts",
        after=("drift", "explain"),
    ),
    Stage("day", "stage_sources, build_sequences, score, monitor, explain, drift and report of a day, in one process"),
    Stage("show", "rows of any table, of one day, one run or one snapshot"),
    Stage("export", "a day of any table, or some rows of it, to one Parquet or CSV file"),
    Stage("status", "which days of which table are missing, stale or damaged, and the commands that mend them"),
    Stage("console", "pages for people, in a browser: forecasts, movers, who may leave, totals, accuracy, operations"),
    Stage("lineage", "what a forecast was made from, down to source files; what a source file reached"),
    Stage("incidents", "what of a day somebody should know: warnings, a champion that is lost, drift, refusals"),
    Stage("replay", "a published forecast made again from what its commit recorded: identical, or what differs"),
    Stage("restatements", "how much a day's rows still change after it, and from what age they are final"),
    Stage("move_catalog", "the tables into another catalog, their files where they are"),
    Stage("maintain", "house-keeping: snapshots, files and folders that nobody needs", settings="[maintenance]"),
)
STAGES = {stage.name: stage for stage in CHAIN}
TABLES = (*(table for stage in CHAIN for table in stage.tables if not table.startswith(MODEL)), LEDGER)


def has(config: Config, table: str) -> bool:
    """Whether a data set has the table: a staged one needs SQL of its own."""
    schema, _, name = table.partition(".")
    return schema != "staged" or bool(getattr(config.staging, name))


def writer(table: str) -> str:
    """The stage that writes a table, for the data dictionary."""
    if table == LEDGER:
        return "every stage that judges what it wrote"
    return ", ".join(stage.name for stage in CHAIN if table in stage.tables)


def commands() -> str:
    """Every command with a line, for ``m2m --help``."""
    return "\n".join(f"  {stage.name:16} {stage.does}" for stage in CHAIN)


def table_of_stages() -> list[str]:
    """The chain in Markdown: stage by stage what is read, of which days, and written."""
    lines = ["| stage | reads | writes | settings | DAG |", "| --- | --- | --- | --- | --- |"]
    for stage in CHAIN:
        if stage.dag:
            reads = "<br>".join(f"{table}: {days.words}" for table, days in stage.reads.items())
            writes = "<br>".join([*stage.writes, *(f"{table}: every day" for table in stage.daily)])
            lines.append(
                f"| {stage.name} | {reads or 'the sources'} | {writes or 'a page'} | {stage.settings} | {stage.dag} |"
            )
    return lines
