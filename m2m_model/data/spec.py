"""What a data set declares: names, tasks and lengths; and what a day adds to each task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, reduce
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from m2m_model.arrays import Floats
from m2m_model.config import ACTIVE, Aggregate, KnownFuture, Task

Number = TypeVar("Number", bound=np.generic)

LEVEL_DAYS = (7, 14, 28)  # the recent level is the mean of these daily rates
WEEKS = 8  # weekly totals among the dense features


@dataclass(frozen=True)
class Target:
    """What is forecast: a task's total over the ``horizon_days`` days after the cutoff."""

    name: str
    metric: str
    aggregate: Aggregate
    horizon_days: int


@dataclass(frozen=True)
class Plan:
    """What a covariate says, at the end of a day, of the next ``days`` days: a column of panels, and of sequences where
    it is no calendar's."""

    covariate: KnownFuture
    days: int

    @property
    def column(self) -> str:
        return f"{self.covariate.name}_next_{self.days}"

    @property
    def past_days(self) -> range:
        """Days before a cutoff whose plans are over at it: of four weeks, one after the other, or of one such time. Of
        holidays the last ones alone: what matters is that they were just now."""
        longest = 0 if self.covariate.is_holidays else max(LEVEL_DAYS)
        return range(self.days, max(longest, self.days) + 1, self.days)


@dataclass(frozen=True)
class SequenceSpec:
    """The names and lengths that a data set declares; ``eligible_days`` is how recent a row makes a series eligible.

    A panel has a column a task. Forecasts, and what comes of them, have a column a target: (task, horizon) pairs, the
    horizons of a task beside each other, the shortest first.

    ``not_above`` are pairs (small, large) of metrics: no day has more of the one than of the other. They bind what is
    published and nothing that is learned, so specs that differ in them alone are equal: the panel's, today's, count.
    """

    metrics: tuple[str, ...]
    behaviors: tuple[str, ...]
    advertiser_attributes: tuple[str, ...]
    scenario_attributes: tuple[str, ...]
    tasks: tuple[Task, ...]
    horizons_days: tuple[int, ...]  # ascending
    window_days: int
    eligible_days: int = 28
    not_above: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    known_future: tuple[KnownFuture, ...] = ()

    def __post_init__(self) -> None:
        for task in self.tasks:
            if task.metric != ACTIVE and task.metric not in self.metrics:
                raise ValueError(f'task {task.name}: metric "{task.metric}" is not one of {", ".join(self.metrics)}')
        for covariate in self.known_future:
            if covariate.of and covariate.of not in self.metrics:
                raise ValueError(f'known_future {covariate.name}: "{covariate.of}" is not one of {self.metrics}')
        for name in {name for pair in self.not_above for name in pair}:
            if name not in self.metrics:
                raise ValueError(f'not_above: "{name}" is not one of {", ".join(self.metrics)}')
        for name in ("window_days", "eligible_days"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        days = self.horizons_days
        if not days or days[0] < 1 or any(day >= after for day, after in pairwise(days)):
            raise ValueError(
                f"horizons_days = {list(days)}: must be at least one number from 1 on, each above the last"
            )

    @property
    def horizon_days(self) -> int:
        """The longest horizon: it decides which cutoffs have labels, and where those of training end."""
        return self.horizons_days[-1]

    @cached_property
    def targets(self) -> tuple[Target, ...]:
        """What is forecast, in the order of columns."""
        return targets_of(self.tasks, self.horizons_days)

    @property
    def titles(self) -> tuple[str, ...]:
        """A name for each target: the task's, and where it has several horizons its days."""
        several = len(self.horizons_days) > 1
        return tuple(f"{target.name} {target.horizon_days}d" if several else target.name for target in self.targets)

    @property
    def longest(self) -> slice:
        """The columns of the longest horizon, one a task."""
        return slice(len(self.horizons_days) - 1, None, len(self.horizons_days))

    def by_horizon(self, of: Callable[[int], NDArray[Number]]) -> NDArray[Number]:
        """(N, targets) of what a function says of each horizon, (N, tasks)."""
        parts = [of(days) for days in self.horizons_days]
        rows, tasks = parts[0].shape
        return parts[0] if len(parts) == 1 else np.stack(parts, 2).reshape(rows, tasks * len(parts))

    @property
    def lookback_days(self) -> int:
        """Days before a cutoff that a forecast reads: panels for scoring need no more."""
        plans = max((plan.days + 1 for plan in self.plans), default=0)  # the newest of a time that is over
        return max(self.window_days, self.eligible_days, max(LEVEL_DAYS), 7 * WEEKS, plans)

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The columns of what is known of days to come, a horizon each."""
        return tuple(Plan(covariate, days) for covariate in self.known_future for days in self.horizons_days)

    @property
    def listed_plans(self) -> tuple[Plan, ...]:
        """Those that sequences list: a calendar is asked when a panel is made."""
        return tuple(plan for plan in self.plans if not plan.covariate.is_holidays)

    @property
    def plan_columns(self) -> tuple[str, ...]:
        return tuple(plan.column for plan in self.listed_plans)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SequenceSpec:
        tasks = tuple(Task(**task) for task in values["tasks"])
        names = {key: tuple(value) for key, value in values.items() if isinstance(value, list | tuple)}
        pairs = tuple((small, large) for small, large in values.get("not_above", ()))
        known = tuple(KnownFuture(**covariate) for covariate in values.get("known_future", ()))
        return cls(**{**values, **names, "tasks": tasks, "known_future": known, "not_above": pairs})


def targets_of(tasks: Iterable[Task], horizons_days: Sequence[int]) -> tuple[Target, ...]:
    """Each task over each horizon."""
    return tuple(Target(task.name, task.metric, task.aggregate, days) for task in tasks for days in horizons_days)


def daily_totals(performance_xP: Floats, spec: SequenceSpec) -> Floats:
    """Each day's contribution to each task, float64; a day without a row, or below zero, contributes 0."""
    # Column by column: a reduction over an axis of a few metrics is twenty times slower.
    return np.stack(daily_columns(list(np.moveaxis(performance_xP, -1, 0)), spec), -1)


def daily_columns(performance: Sequence[Floats], spec: SequenceSpec) -> list[Floats]:
    """``daily_totals`` of a column a metric, a column a task."""
    columns = list[Floats]()
    for task in spec.tasks:
        active = task.metric == ACTIVE
        if task.aggregate == "days":
            metrics = range(len(spec.metrics)) if active else [spec.metrics.index(task.metric)]
            columns.append(reduce(np.logical_or, (performance[metric] > 0 for metric in metrics)).astype(np.float64))
        else:
            value_x = performance[spec.metrics.index(task.metric)].astype(np.float64, copy=False)
            columns.append(np.fmax(value_x, 0.0))  # NaN is 0 too
    return columns
