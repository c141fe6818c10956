"""Every table of the warehouse, declared once: columns, types, units, key, partitions; who writes it is the chain's.

Writers, readers, ``pipelines.show`` and ``docs/data_dictionary.md`` all use these declarations. Columns that
a data set brings (metrics, behaviors, attributes) come from its configuration, so a declaration is a function
of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import (
    BooleanType,
    DateType,
    DoubleType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    NestedField,
    StringType,
    TimestampType,
)

from pipelines import chain
from pipelines.config import Config

_TYPES: dict[str, IcebergType] = {
    "string": StringType(),
    "date": DateType(),
    "int": IntegerType(),
    "long": LongType(),
    "double": DoubleType(),
    "boolean": BooleanType(),
    "timestamp": TimestampType(),
}


@dataclass(frozen=True)
class Column:
    """One column. ``type`` is an Iceberg type name or ``list<...>`` of one; ``null`` says what a null means. One that
    was ``added`` later stands last: a table that is stored without it gets it, null in rows of before."""

    name: str
    type: str
    doc: str
    null: str | None = None
    added: bool = False

    @property
    def kind(self) -> IcebergType:
        """The Iceberg type of one that is no list."""
        return _TYPES[self.type]


@dataclass(frozen=True)
class Table:
    """One table. ``partition`` columns are identity partitions; the first, ``ds``, is what a stage overwrites."""

    name: str
    doc: str
    key: tuple[str, ...]
    partition: tuple[str, ...]
    columns: tuple[Column, ...]

    def schema(self) -> Schema:
        """Iceberg schema; field ids are given in the declared order, list elements after all columns."""
        fields, element_id = [], len(self.columns) + 1
        for number, column in enumerate(self.columns, start=1):
            if column.type.startswith("list<"):
                kind: IcebergType = ListType(element_id, _TYPES[column.type[5:-1]], element_required=True)
                element_id += 1
            else:
                kind = column.kind
            fields.append(NestedField(number, column.name, kind, required=column.null is None, doc=column.doc))
        return Schema(*fields)

    def partition_spec(self) -> PartitionSpec:
        position = {column.name: number for number, column in enumerate(self.columns, start=1)}
        return PartitionSpec(
            *(
                PartitionField(position[name], 1000 + i, IdentityTransform(), name)
                for i, name in enumerate(self.partition)
            )
        )


_DS = Column("ds", "date", "Day of the row, UTC")
_AS_OF = Column("ds", "date", "As-of date: the last day whose rows were used, UTC")
_BUCKET = Column("bucket", "int", "Hash of advertiser_id modulo [dataset] buckets; all rows of an advertiser share it")
_ADVERTISER = Column("advertiser_id", "string", "Advertiser, as the platform names it")
_SCENARIO = Column("scenario_id", "string", "Scenario (search, display, feed ads, a placement, a market)")
_TASK = Column("task", "string", "Task name, as declared in pipeline.toml")
_RUN = Column("run_id", "string", "Run that wrote the row")
_HORIZON = Column(
    "horizon_days",
    "int",
    "Days after the as-of date that it is about",
    null="written before the column was added: [dataset] horizon_days of then",
    added=True,
)
_DAILY_PARTITION = ("ds", "bucket")


def _attributes(names: tuple[str, ...], of: str) -> list[Column]:
    return [Column(name, "string", f"Attribute of the {of}", null="unknown") for name in names]


def _of_series(name: str, doc: str, *columns: Column) -> Table:
    """A table with a row a day for every advertiser in every scenario."""
    return Table(name, doc, ("ds", "advertiser_id", "scenario_id"), _DAILY_PARTITION, columns)


def performance_daily(config: Config) -> Table:
    metrics = [
        Column(m.name, "double", f"Performance metric ({m.kind}), {m.unit or 'no unit'}") for m in config.performance
    ]
    return _of_series(
        "staged.performance_daily",
        "What each advertiser achieved in each scenario on each day. A day without a row is missing, not zero.",
        _DS,
        _BUCKET,
        _ADVERTISER,
        _SCENARIO,
        *metrics,
    )


def behavior_daily(config: Config) -> Table:
    behaviors = [Column(b.name, "double", "Behavior, events of the day") for b in config.behavior]
    scenario = Column("scenario_id", "string", _SCENARIO.doc, null="all scenarios of the advertiser")
    return _of_series(
        "staged.behavior_daily",
        "What each advertiser did on each day. Empty where the data set declares no behavior.",
        _DS,
        _BUCKET,
        _ADVERTISER,
        scenario,
        *behaviors,
    )


def known_future(config: Config) -> Table:
    return Table(
        "staged.known_future",
        "What was known at the end of each day of the days after it: a day's plans as they stood then, all of them. A "
        "plan that is changed is another row of a later day. Of a series' plans its own counts, else its advertiser's, "
        "else its scenario's, else the one for all. Empty where the data set declares no plans.",
        ("ds", "advertiser_id", "scenario_id", "for_day"),
        _DAILY_PARTITION,
        (
            Column("ds", "date", "Day at whose end the plan was known, UTC"),
            _BUCKET,
            Column("advertiser_id", "string", _ADVERTISER.doc, null="every advertiser; the row is in all buckets"),
            Column("scenario_id", "string", _SCENARIO.doc, null="every scenario"),
            Column("for_day", "date", "Day that the plan is for, after ds"),
            *(Column(c.name, "double", f"What is planned ({c.kind})", null="nothing known") for c in config.planned),
        ),
    )


def advertiser(config: Config) -> Table:
    return Table(
        "staged.advertiser",
        "Advertiser profiles as known at the end of each staged day; a range of days has those of its last day alone.",
        ("ds", "advertiser_id"),
        _DAILY_PARTITION,
        (
            _AS_OF,
            _BUCKET,
            _ADVERTISER,
            Column("registered_on", "date", "Day the advertiser joined", null="unknown: its first row counts"),
            *_attributes(config.attributes.advertiser, "advertiser"),
        ),
    )


def scenario(config: Config) -> Table:
    return Table(
        "staged.scenario",
        "Scenarios as known at the end of each staged day; a range of days has those of its last day alone.",
        ("ds", "scenario_id"),
        ("ds",),
        (_AS_OF, _SCENARIO, *_attributes(config.attributes.scenario, "scenario")),
    )


def advertiser_sequence(config: Config) -> Table:
    return _of_series(
        "features.advertiser_sequence",
        "Each advertiser in each scenario with a row in the [history] keep_days up to ds: since when, with which "
        "attributes. An advertiser without a row that by its profile registered in the last 182 days is listed in "
        "every scenario that anyone of its bucket uses. Their days are in features.sequence_week; "
        "`pipelines.warehouse.sequences` puts them together.",
        _AS_OF,
        _BUCKET,
        _ADVERTISER,
        _SCENARIO,
        Column(
            "registered_on", "date", "First day the series could have acted: the profile's date, else its first row"
        ),
        *_attributes(config.attributes.advertiser, "advertiser"),
        *_attributes(config.attributes.scenario, "scenario"),
    )


def day_lists(config: Config) -> tuple[Column, ...]:
    """The columns that hold a series' days, in features.sequence_week and in what readers put together."""
    known = config.sequence_spec.listed_plans
    plans = [
        Column("plan_day", "list<int>", "Days at whose end a plan was known, as days since 1970-01-01, ascending"),
        *(
            Column(
                plan.column,
                "list<double>",
                f"{'Mean' if plan.covariate.kind == 'ratio' else 'Total'} planned for the {plan.days} days after each "
                "day of `plan_day`, as known at its end; NaN: no plan",
            )
            for plan in known
        ),
    ]
    return (
        Column("day", "list<int>", "Days with a performance row, as days since 1970-01-01, ascending"),
        *(Column(m.name, "list<double>", f"{m.unit or m.kind} on each day of `day`") for m in config.performance),
        Column("behavior_day", "list<int>", "Days with a behavior row, as days since 1970-01-01, ascending"),
        *(Column(b.name, "list<double>", "Events on each day of `behavior_day`") for b in config.behavior),
        *(plans if known else ()),
    )


def sequence_columns(config: Config) -> tuple[Column, ...]:
    """A sequence as readers get it: a series, its days, its attributes."""
    series = [c for c in advertiser_sequence(config).columns if c not in (_AS_OF, _BUCKET)]
    return (*series[:3], *day_lists(config), *series[3:])


def sequence_week(config: Config) -> Table:
    return _of_series(
        "features.sequence_week",
        "What each advertiser did and achieved in each scenario from a Monday to ds. The history as of a day is that "
        "day's partition and those of the Sundays before it. Only days with a row are listed: a listed 0 is a zero, an "
        "unlisted day since registered_on is missing.",
        Column("ds", "date", "Last day of the part of the week, UTC"),
        _BUCKET,
        Column("advertiser_id", "string", _ADVERTISER.doc, null="plans of every advertiser")
        if config.planned
        else _ADVERTISER,
        Column("scenario_id", "string", _SCENARIO.doc, null="behavior in all scenarios of the advertiser"),
        *day_lists(config),
    )


def forecast_daily(config: Config) -> Table:
    *shorter, longest = map(str, config.dataset.horizons)
    horizons = f"{', '.join(shorter)} and {longest}" if shorter else longest
    levels = {"median": 50, "p05": 5, "p25": 25, "p75": 75, "p95": 95}
    quantiles = [Column(name, "double", f"{level} % quantile of the total") for name, level in levels.items()]
    return Table(
        "marts.forecast_daily",
        f"Forecast of each task's total over the {horizons} days after ds, for every advertiser and scenario.",
        ("ds", "advertiser_id", "scenario_id", "task", "horizon_days"),
        _DAILY_PARTITION,
        (
            _AS_OF,
            _BUCKET,
            _ADVERTISER,
            _SCENARIO,
            _TASK,
            Column("horizon_days", "int", "Days that the total covers"),
            Column(
                "point",
                "double",
                "The single figure to act on: near the least expected absolute error, the one with the least expected "
                "relative error; a baseline's own forecast. Days are whole",
            ),
            Column("mean", "double", "Expected total"),
            Column("p_zero", "double", "Probability of a total of 0; for active days, of leaving"),
            *quantiles,
            Column(
                "method",
                "string",
                "Who made the figures: m2m (the network alone); blend:<baseline>@<w> (both: w is the network's weight, "
                "the rest is the baseline's); baseline:<name> (a baseline alone: the champion gives the network no "
                "part, or no champion serves); cold_start (the rule for under 7 days of history; blend:cold_start@<w>: "
                "the network and the rule); silent (the rule for no recent row)",
            ),
            Column(
                "model_version",
                "string",
                "Registered version of the champion that decided who makes the figures, whoever that is",
                null="no champion serves",
            ),
            Column("sequence_snapshot_id", "long", "Snapshot of features.advertiser_sequence that was scored"),
            _RUN,
            Column(
                "reason",
                "string",
                "Why this method made the row: champion (... gives the network no part: it chose a baseline in "
                "training); young or silent (a rule's); cell: ... (a baseline serves the scenario, task and horizon in "
                "the champion's place: it loses to it in the backtest, or broke a rule against the day before); no "
                "champion, and why",
                null="written before the column was added",
                added=True,
            ),
        ),
    )


def churn_risk(config: Config) -> Table:
    return Table(
        "marts.churn_risk",
        "Who may leave, and with how much: read from marts.forecast_daily. Empty where no task counts active days.",
        ("ds", "advertiser_id", "scenario_id", "horizon_days"),
        _DAILY_PARTITION,
        (
            _AS_OF,
            _BUCKET,
            _ADVERTISER,
            _SCENARIO,
            Column("probability", "double", "Probability of no active day in the horizon"),
            Column(
                "value_at_risk",
                "double",
                f"probability x mean of {config.money_task or 'the first task that adds up money'}",
                null="no task adds up money",
            ),
            _RUN,
            _HORIZON,
        ),
    )


def forecast_path(config: Config) -> Table:
    cumulated = [
        Column(f"cumulated_p{level:02}", "double", f"{level} % quantile of the sum up to this day; of days: whole")
        for level in (5, 50, 95)
    ]
    return Table(
        "marts.forecast_path",
        f"The way to the totals of marts.forecast_daily, over the {config.dataset.horizon_days} days after ds: what "
        "each day is expected to bring, and the sums up to it. On the last day of each horizon these are that total's "
        "mean and quantiles. Weekdays are those of the scenario and, as far as it was active, of the series; baselines "
        "have such paths too. With a model of before there were paths all days are alike (docs/model.md).",
        ("ds", "advertiser_id", "scenario_id", "task", "day"),
        _DAILY_PARTITION,
        (
            _AS_OF,
            _BUCKET,
            _ADVERTISER,
            _SCENARIO,
            _TASK,
            Column("day", "date", "Day of the horizon, UTC"),
            Column("expected", "double", "Expected on this day; of days: the probability that it is one"),
            Column("cumulated", "double", "Expected from the first day through this one: the sum of `expected`"),
            *cumulated,
            _RUN,
        ),
    )


def forecast_total(config: Config) -> Table:
    quantiles = [Column(f"p{level:02}", "double", f"{level} % quantile of the total") for level in (5, 25, 75, 95)]
    return Table(
        "marts.forecast_total",
        "What the series of marts.forecast_daily come to together: an advertiser over its scenarios, a scenario, each "
        "value of each attribute, the platform. Means are the sums of the series' means. Quantiles are not sums of "
        "quantiles: series are joined as they were seen to go wrong together (docs/model.md).",
        ("ds", "level", "name", "value", "task", "horizon_days"),
        _DAILY_PARTITION,
        (
            _AS_OF,
            Column("bucket", "int", "Of an advertiser as in its forecasts; -1: of what has several"),
            Column("level", "string", "platform, scenario, attribute or advertiser"),
            Column("name", "string", "The attribute", null="the level is no attribute"),
            Column(
                "value",
                "string",
                "Advertiser, scenario, or value of the attribute",
                null="the platform; or the attribute is unknown, or its value not among the 1,000 most frequent",
            ),
            Column("task", "string", f"{_TASK.doc}. Days are summed too: an active day in two scenarios is two"),
            Column("horizon_days", "int", "Days that the total covers"),
            Column("series", "long", "Series that it is the total of, silent ones too"),
            Column("point", "double", "The median; of a single series its own point. Days are whole"),
            Column("mean", "double", "Expected total: the sum of the series' means"),
            Column("p_zero", "double", "Probability of a total of 0; an advertiser's active days: of leaving"),
            Column("median", "double", "50 % quantile of the total"),
            *quantiles,
            Column("model_version", "string", "As in marts.forecast_daily", null="no champion serves"),
            Column("sequence_snapshot_id", "long", "Snapshot of features.advertiser_sequence that was scored"),
            _RUN,
        ),
    )


def forecast_change(config: Config) -> Table:
    return Table(
        "marts.forecast_change",
        "The means of marts.forecast_daily that moved the most since the newest day before, and by what: by_restated + "
        "by_new_days + by_model + by_calibration = after - before. [explain] top of each task and horizon.",
        ("ds", "advertiser_id", "scenario_id", "task", "horizon_days"),
        _DAILY_PARTITION,
        (
            _AS_OF,
            _BUCKET,
            _ADVERTISER,
            _SCENARIO,
            _TASK,
            Column("horizon_days", "int", "Days that the total covers"),
            Column("compared_with", "date", "As-of date of the earlier forecast"),
            Column("before", "double", "Its mean, as published"),
            Column("after", "double", "The mean of ds, as published"),
            Column("by_restated", "double", "What served then, on the days up to then as they are known now, - before"),
            Column("by_new_days", "double", "What served then, with the days since (and the profile of now)"),
            Column("by_model", "double", "The network of now; 0 where the same version served"),
            Column(
                "by_calibration", "double", "Its levels and its blend; of a baseline what was learned of its errors"
            ),
            Column("rank", "int", "1 = largest |after - before| of the task and horizon"),
            Column(
                "note",
                "string",
                "How the change was split where not all of it could be: what served then is gone, or reads other "
                "inputs (then by_restated is 0, by_new_days is by what serves now, and by_model has the rest), or a "
                "model took over from a baseline or the other way round (then by_model has by_calibration's part)",
                null="all four causes are told apart",
            ),
            _RUN,
        ),
    )


def forecast_reason(config: Config) -> Table:
    return Table(
        "marts.forecast_reason",
        "Why forecasts are what they are: of the movers of marts.forecast_change, and of the most valuable of "
        "marts.churn_risk (their active days). A cause is taken away and the forecast made again; effects are of one "
        "cause at a time and do not add up. The strongest few, none below 3 % of the forecast.",
        ("ds", "advertiser_id", "scenario_id", "task", "horizon_days", "kind", "rank"),
        _DAILY_PARTITION,
        (
            _AS_OF,
            _BUCKET,
            _ADVERTISER,
            _SCENARIO,
            _TASK,
            Column("horizon_days", "int", "Days that the total covers"),
            Column("kind", "string", "at_risk (of marts.churn_risk) or mover (of marts.forecast_change)"),
            Column("rank", "int", "1 = strongest cause"),
            Column(
                "cause",
                "string",
                "last_days:<metric> (7, or as many as it was 0 for), weeks_before:<metric>, silence (7 days or more "
                "without anything), behavior:<name>, attribute:<name>, scenario, plan:<name>",
            ),
            Column("words", "string", "The cause and its effect in a sentence, with figures"),
            Column("effect", "double", "Mean of the forecast - mean with the cause taken away"),
            _RUN,
        ),
    )


_ERROR_COLUMNS = (
    Column("n", "long", "Forecasts compared"),
    Column("nmae", "double", "sum |actual - point| / sum actual", null="sum actual is 0"),
    Column("smape", "double", "mean of 2|actual - point| / (|actual| + |point|), 0/0 = 0"),
    Column("pinball", "double", "Mean pinball loss over the published quantiles", null="points only (LightGBM)"),
    Column("coverage_50", "double", "Share of actuals within p25..p75", null="points only (LightGBM)"),
    Column("coverage_90", "double", "Share of actuals within p05..p95", null="points only (LightGBM)"),
    Column("bias", "double", "sum point / sum actual - 1", null="sum actual is 0"),
)
_CELL = Column("scenario_id", "string", f"{_SCENARIO.doc}; * = all together")


def backtest(config: Config) -> Table:
    return Table(
        "marts.backtest",
        "Error of each forecaster at held-out cutoffs, on the same series: challenger, champion, baselines.",
        ("ds", "cutoff", "forecaster", "scenario_id", "task", "horizon_days"),
        ("ds",),
        (
            _AS_OF,
            Column("cutoff", "date", "Last day of history the forecaster saw", null="all cutoffs together"),
            Column("forecaster", "string", "challenger, champion or a baseline's name"),
            Column("model_version", "string", "Registered model version", null="a baseline"),
            _CELL,
            _TASK,
            *_ERROR_COLUMNS,
            Column(
                "level_50",
                "double",
                "Share of actuals at levels 25..75 % of their forecast; a mass at zero counts evenly over its levels",
                null="points only (LightGBM)",
            ),
            Column("level_90", "double", "The same for 5..95 %", null="points only (LightGBM)"),
            _RUN,
            Column(
                "method",
                "string",
                "Who makes the points of a challenger or champion here, as in marts.forecast_daily, for series with 7 "
                "days of history; for all scenarios together each, without weights",
                null="a baseline makes its own",
            ),
            Column(
                "broken",
                "string",
                "Rules of marts.forecast_daily that a model's forecasts broke, with counts and an example: such a "
                "challenger is not promoted, such a champion no bar. In its rows of all cutoffs and scenarios together",
                null="none, or not looked at",
            ),
            _HORIZON,
        ),
    )


_PAIR_COLUMNS = (
    Column("other", "string", "What it is held against: champion, or the best baseline's name"),
    _CELL,
    Column("task", "string", f"{_TASK.doc}; * = the mean over tasks"),
    Column("horizon_days", "int", _HORIZON.doc),
    Column("n", "long", "Forecasts judged", null="none"),
    Column("nmae", "double", "Its own, over all cutoffs", null="not known"),
    Column("other_nmae", "double", "The other's, on the same series and cutoffs", null="not known"),
    Column("ratio", "double", "The one over the other", null="not known"),
    Column(
        "ratio_low", "double", "From where its 95 % interval goes, by a bootstrap over advertisers", null="not known"
    ),
    Column("ratio_high", "double", "To where", null="not known"),
    Column("spread", "double", "Standard deviation of the ratio's logarithm in the bootstrap", null="not known"),
)


def backtest_pair(config: Config) -> Table:
    return Table(
        "marts.backtest_pair",
        "The challenger beside the champion and the best baseline, cell by cell, and how sure the difference is: "
        "what the gate decides by. And challenger and champion beside the best baseline of each cell: by that it is "
        "decided who serves there (ops.serving_cell).",
        ("ds", "forecaster", "other", "scenario_id", "task", "horizon_days"),
        ("ds",),
        (
            _AS_OF,
            *_PAIR_COLUMNS,
            _RUN,
            Column(
                "forecaster",
                "string",
                "Whose comparison it is: challenger or champion",
                null="the challenger's: written before the column was added",
                added=True,
            ),
        ),
    )


def promotion_cell(config: Config) -> Table:
    return Table(
        "ops.promotion_cell",
        "What the gate asked of every cell, and what it found: a decision of ops.promotion in full.",
        ("ds", "run_id", "other", "scenario_id", "task", "horizon_days"),
        ("ds",),
        (
            _AS_OF,
            _RUN,
            *_PAIR_COLUMNS,
            Column("rule", "string", "What was asked"),
            Column(
                "verdict",
                "string",
                "passed; failed (refuses the promotion); worse than the baseline (told), or: served by <baseline> "
                "there, if it is promoted; too few rows; no bar (the champion's forecasts broke rules)",
            ),
        ),
    )


def serving_cell(config: Config) -> Table:
    return Table(
        "ops.serving_cell",
        "Who serves each cell of a model version, as of the last backtest that judged it: the model, or the best "
        "baseline of the cell, which it surely loses to. Scenarios that are not named go with *, all together: they "
        "had fewer than [gate] cell_rows rows, or none. Score reads the newest set of its champion's version.",
        ("ds", "run_id", "model_version", "scenario_id", "task", "horizon_days"),
        ("ds",),
        (
            Column("ds", "date", "As-of date of the backtest, UTC"),
            _RUN,
            Column("model_version", "string", "Registered version that was judged"),
            _CELL,
            _TASK,
            Column("horizon_days", "int", _HORIZON.doc),
            Column("n", "long", "Forecasts judged", null="none"),
            Column("baseline", "string", "The baseline with the least error in the cell"),
            Column("nmae", "double", "The model's, over all cutoffs", null="not known"),
            Column("baseline_nmae", "double", "The baseline's, on the same series and cutoffs", null="not known"),
            Column("ratio", "double", "The one over the other", null="not known"),
            Column("ratio_low", "double", "From where its 95 % interval goes", null="not known"),
            Column("ratio_high", "double", "To where", null="not known"),
            Column("falls_back", "boolean", "Whether the baseline serves in the model's place"),
            Column("since", "date", "Backtest from which on a baseline has served here", null="the model serves"),
            Column("reason", "string", "As in marts.forecast_daily, cell: ...", null="the model serves"),
        ),
    )


def backtest_value(config: Config) -> Table:
    return Table(
        "marts.backtest_value",
        "What each forecaster of marts.backtest is worth, all cutoffs together: does its mean rank advertisers by what "
        "they then spent, whom does it fail, did it know who would leave? One figure a row.",
        ("ds", "forecaster", "scenario_id", "task", "horizon_days", "figure", "part"),
        ("ds",),
        (
            _AS_OF,
            Column("forecaster", "string", "challenger, champion or a baseline's name"),
            Column("model_version", "string", "Registered model version", null="a baseline"),
            _CELL,
            Column("task", "string", f"{_TASK.doc}; for churn_*, the one that counts active days: 0 = left"),
            Column(
                "figure",
                "string",
                "gini (actuals ranked by forecast; 1 = as they rank themselves, 0 = chance), top_decile_capture (share "
                "of the actual total within the tenth with the highest forecasts), perfect_capture (the most it can "
                "be); by size: size_nmae and size_bias of the mean, size_actual_share; churn_rate, churn_auc, "
                "churn_brier, churn_brier_base (Brier of the constant rate); by probability: churn_predicted (mean), "
                "churn_observed (share that left). No churn_* where only points are forecast (LightGBM). By activity "
                "and size of the series, all scenarios together: group_nmae, group_bias, group_zero_points (share that "
                "is 0) of the point, group_zeros (share of actuals that are 0), group_p_zero (mean probability of "
                "it), group_level_50 and group_level_90 (0.5 and 0.9 are right), group_coverage_50 and "
                "group_coverage_90",
            ),
            Column(
                "part",
                "int",
                "size_*: decile by the mean of 28 days, 1 = smallest; churn_predicted, churn_observed: bin, 0..49; "
                "group_*: 10 x activity + size. Activity: 0 = under 7 days of history, else by the share of days above "
                "0 in the last 28: 1 = under 10 %, 2 = 25, 3 = 50, 4 = 75, 5 = more. Size, by the mean of 28 days: 1 = "
                "under a tenth of the mean series, 2 = up to it, 3 = above",
                null="the whole",
            ),
            Column("n", "double", "Forecasts compared; a tenth need not be whole"),
            Column("value", "double", "The figure", null="undefined: nothing happened, or all or none left"),
            _RUN,
            _HORIZON,
        ),
    )


def forecast_quality(config: Config) -> Table:
    return Table(
        "marts.forecast_quality",
        "Published forecasts against what happened, once their horizon has passed.",
        ("ds", "method", "scenario_id", "task", "horizon_days"),
        ("ds",),
        (
            Column("ds", "date", "As-of date of the forecasts that are judged"),
            Column("matured_on", "date", "Last day of their horizon"),
            Column("method", "string", "As in marts.forecast_daily, without the weight (@<w>); * = all together"),
            _CELL,
            _TASK,
            *_ERROR_COLUMNS,
            _RUN,
            _HORIZON,
        ),
    )


def forecast_expected(config: Config) -> Table:
    return Table(
        "marts.forecast_expected",
        "The error that the forecasts of a day expect of themselves, from their own distributions, before anything has "
        "happened. Beside marts.forecast_quality of the same ds, once that is judged, it says how well they knew.",
        ("ds", "method", "scenario_id", "task", "horizon_days"),
        ("ds",),
        (
            _AS_OF,
            Column("method", "string", "As in marts.forecast_daily, without the weight (@<w>); * = all together"),
            _CELL,
            _TASK,
            Column("horizon_days", "int", _HORIZON.doc),
            Column("n", "long", "Forecasts"),
            Column("expected_nmae", "double", "sum E|actual - point| / sum mean", null="sum mean is 0"),
            Column("sum_mean", "double", "Sum of their means"),
            _RUN,
        ),
    )


def drift(config: Config) -> Table:
    return Table(
        "ops.drift",
        "Each signal of each scenario on its day, against the eight weeks before: what was found, what is usual, and "
        "from where on it is drift.",
        ("ds", "scenario_id", "signal"),
        ("ds",),
        (
            _AS_OF,
            _CELL,
            Column(
                "signal",
                "string",
                "rows; absent and gone advertisers (of those with a row on most days: without one on the day, in three "
                "days), new advertisers (in three days), zeros of a metric (share of rows), level of a metric (rows "
                "above 0 beside their own past, as a ratio to what is usual), the same beside other metrics, acts of a "
                "behavior, new categories of an attribute; of forecasts: expected error (as a ratio to what is usual), "
                "and of those that matured on the day coverage and error over expected",
            ),
            Column("found", "double", "What was found", null="not judged"),
            Column("usual", "double", "What is usual", null="not judged"),
            Column("low", "double", "Below this it is drift", null="nothing is too low, or not judged"),
            Column("high", "double", "Above this it is drift", null="nothing is too high, or not judged"),
            Column(
                "verdict",
                "string",
                "usual; drift; critical (silent, a missing day, other units); told (no rule); not judged: too early, "
                "too few rows, no rows; ignored ([drift] ignore)",
            ),
            Column("words", "string", "The same in a sentence"),
            _RUN,
        ),
    )


def validation(config: Config) -> Table:
    return Table(
        "ops.validation",
        "Every check of every run, passed or not, and every count of dirt dropped, merged or repaired.",
        ("run_id", "table", "ds", "check", "column", "scenario"),
        ("ds",),
        (
            Column("ds", "date", "Day that was checked", null="the row carries no day"),
            _RUN,
            Column("stage", "string", "Stage that checked"),
            Column("table", "string", "Table or source that was checked"),
            Column(
                "check", "string", "Rule; dirt:<action>:<rule> counts what the staging SQL dropped, merged or repaired"
            ),
            Column("column", "string", "Column judged", null="the whole row or day"),
            Column("scenario", "string", "Scenario that failed", null="all scenarios, or none known"),
            Column("severity", "string", "critical stops the run, warning goes on, info only counts"),
            Column("expected", "string", "What had to hold"),
            Column("found", "double", "What was found: a count or a ratio"),
            Column("example", "string", "One offending row", null="none"),
            Column("passed", "boolean", "Whether it held"),
        ),
    )


def promotion(config: Config) -> Table:
    return Table(
        "ops.promotion",
        "The ledger of the champion alias: every decision of the gate, with its figures, and every move found.",
        ("ds", "run_id", "challenger"),
        ("ds",),
        (
            _AS_OF,
            _RUN,
            Column("decided_at", "timestamp", "When the decision was made, UTC"),
            Column("challenger", "string", "Version that asked to be promoted, or was found as champion"),
            Column("champion", "string", "Champion before the decision", null="there was none"),
            Column(
                "challenger_nmae",
                "double",
                "Mean over tasks and horizons of its NMAE, all cutoffs",
                null="found as champion",
            ),
            Column("champion_nmae", "double", "The same of the champion", null="there was none"),
            Column("baseline", "string", "Best single baseline", null="found as champion"),
            Column("baseline_nmae", "double", "The same of that baseline", null="found as champion"),
            Column("promoted", "boolean", "Whether the champion alias was moved to it: by this run, or found so"),
            Column("dry_run", "boolean", "True: the decision was only reported"),
            Column("reason", "string", "The decision in words, with its figures"),
            *(
                Column(name, kind, doc, null=f"{null}written before the column was added", added=True)
                for name, kind, doc, null in (
                    ("decided_by", "string", "Who decided: the gate, a person and where, or outside the ledger", ""),
                    ("config_hash", "string", "Configuration of the run that decided", ""),
                    ("code_version", "string", "Code of it", ""),
                    ("backtest_snapshot_id", "long", "Snapshot of marts.backtest that it read", "not the gate, or "),
                )
            ),
        ),
    )


DECLARATIONS: dict[str, Callable[[Config], Table]] = {
    "staged.performance_daily": performance_daily,
    "staged.behavior_daily": behavior_daily,
    "staged.known_future": known_future,
    "staged.advertiser": advertiser,
    "staged.scenario": scenario,
    "features.sequence_week": sequence_week,
    "features.advertiser_sequence": advertiser_sequence,
    "marts.forecast_daily": forecast_daily,
    "marts.churn_risk": churn_risk,
    "marts.forecast_path": forecast_path,
    "marts.forecast_total": forecast_total,
    "marts.forecast_change": forecast_change,
    "marts.forecast_reason": forecast_reason,
    "marts.backtest": backtest,
    "marts.backtest_value": backtest_value,
    "marts.backtest_pair": backtest_pair,
    "marts.forecast_quality": forecast_quality,
    "marts.forecast_expected": forecast_expected,
    "ops.validation": validation,
    "ops.drift": drift,
    "ops.promotion": promotion,
    "ops.promotion_cell": promotion_cell,
    "ops.serving_cell": serving_cell,
}


def declared(name: str, config: Config) -> Table:
    """The declaration of a table."""
    return DECLARATIONS[name](config)


def data_dictionary(config: Config) -> str:
    """``docs/data_dictionary.md``: the chain, then every table and column, in Markdown, for the given data set."""
    lines = [
        "# Data dictionary",
        "",
        "Made from `pipelines/chain.py` and `pipelines/warehouse/tables.py` for the data set",
        f"`{config.dataset.name}`; columns of metrics, behaviors and attributes are those that its `pipeline.toml`",
        "declares. Re-make it with `make dictionary`.",
        "",
        "How to read them, with questions and mistakes that come up most: [read_the_tables.md](read_the_tables.md).",
        "**Through Iceberg** (`m2m show`, `m2m export`, PyIceberg, `polars.scan_iceberg`, any engine with the",
        "catalog), never by a glob over their files: those of replaced days stay beside the new ones until `maintain`",
        "removes them.",
        "",
        "## The chain",
        "",
        "What each stage reads, of which days, and writes for a day; `model.*` are aliases of the registry. A stage",
        "reads the snapshots of the moment when it planned, and records them with what it writes.",
        "",
        *chain.table_of_stages(),
    ]
    for declare in DECLARATIONS.values():
        table = declare(config)
        lines += [
            "",
            f"## {table.name}",
            "",
            table.doc,
            "",
            f"Written by: {chain.writer(table.name)}. Key: {', '.join(table.key)}. "
            f"Partitions: {', '.join(table.partition)}.",
            "",
            "| column | type | meaning | null means |",
            "| --- | --- | --- | --- |",
        ]
        lines += [
            f"| {c.name} | {c.type} | {c.doc.replace('|', chr(92) + '|')} | {c.null or 'never'} |"
            for c in table.columns
        ]
    return "\n".join(lines) + "\n"
