"""From sequence rows to what the network reads: panels, windows, targets, bins and vocabularies.

Shapes: N series (advertiser x scenario), T days of a panel, B windows, L days of a window, P performance metrics,
F behavior columns, M tasks, D dense features. A window is a (series, cutoff) pair of indices, cut when it is needed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from functools import cached_property, reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from m2m_model.config import ACTIVE, Task

Floats = NDArray[Any]  # float32 or float64; the name says the shape
Ints = NDArray[Any]

# A day of a sequence is one of these, or FIRST_BIN + its value's bin. Days that are not registered are padding.
NOT_REGISTERED, MISSING, ZERO, FIRST_BIN = 0, 1, 2, 3

COLD_START_DAYS = 7  # a series younger than this is served by the cold-start rule
LEVEL_DAYS = (7, 14, 28)  # the recent level is the mean of these daily rates
RECENT_DAYS = (1, 2, 3, 5, 56)  # further rates among the dense features
DAYS_SEEN = 7  # single days among the dense features
WEEKS = 8  # weekly totals among the dense features
ADVERTISER_DAYS = (7, 28, 56)  # rates of the advertiser over all its scenarios
VOCABULARY_SIZE = 1000

_EPOCH = date(1970, 1, 1)
_ABSURD = 1e30  # larger magnitudes are cut here: float32 sums stay finite
_CHUNK = 4096  # series held in memory at a time when a whole panel is walked

# Value counts are kept on a fine logarithmic grid: 16 buckets per doubling, 2^-24 .. 2^60.
_GRID_LOW, _GRID_PER_DOUBLING, _GRID_SIZE = -24, 16, 84 * 16


@dataclass(frozen=True)
class SequenceSpec:
    """The names and lengths that a data set declares; ``eligible_days`` is how recent a row makes a series eligible."""

    metrics: tuple[str, ...]
    behaviors: tuple[str, ...]
    advertiser_attributes: tuple[str, ...]
    scenario_attributes: tuple[str, ...]
    tasks: tuple[Task, ...]
    horizon_days: int
    window_days: int
    eligible_days: int = 28

    def __post_init__(self) -> None:
        for task in self.tasks:
            if task.metric != ACTIVE and task.metric not in self.metrics:
                raise ValueError(f'task {task.name}: metric "{task.metric}" is not one of {", ".join(self.metrics)}')
        for name in ("horizon_days", "window_days", "eligible_days"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")

    @property
    def lookback_days(self) -> int:
        """Days before a cutoff that a forecast reads: panels for scoring need no more."""
        return max(self.window_days, self.eligible_days, max(LEVEL_DAYS), 7 * WEEKS)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SequenceSpec:
        tasks = tuple(Task(**task) for task in values["tasks"])
        names = {key: tuple(value) for key, value in values.items() if isinstance(value, list | tuple)}
        return cls(**{**values, **names, "tasks": tasks})


@dataclass(frozen=True)
class Panel:
    """N series over T days that end at ``last_day``.

    ``performance_NTP`` and ``behavior_NTF`` are float32 with NaN where there is no row; ``registered_N`` is the index
    of each series' first possible day (below 0: before the panel). ``keys`` holds advertiser_id, scenario_id and the
    attributes, one row per series.
    """

    spec: SequenceSpec
    last_day: date
    performance_NTP: Floats
    behavior_NTF: Floats
    registered_N: Ints
    keys: pa.Table

    def __len__(self) -> int:
        return int(self.performance_NTP.shape[0])

    @property
    def days(self) -> int:
        return int(self.performance_NTP.shape[1])

    @cached_property
    def advertiser_index_N(self) -> Ints:
        """Row of each series' advertiser in ``advertiser_total_ATM``."""
        return np.asarray(np.unique(self.advertiser_N.astype(str), return_inverse=True)[1])

    @cached_property
    def advertiser_total_ATM(self) -> Floats:
        """Daily totals of A advertisers over all their scenarios. A bucket holds all series of an advertiser."""
        advertisers = int(self.advertiser_index_N.max(initial=-1)) + 1
        total_ATM = np.zeros((advertisers, self.days, len(self.spec.tasks)), np.float32)
        for start in range(0, len(self), _CHUNK):
            rows = slice(start, start + _CHUNK)
            daily_NTM = daily_totals(self.performance_NTP[rows], self.spec).astype(np.float32)
            np.add.at(total_ATM, self.advertiser_index_N[rows], daily_NTM)
        return total_ATM

    @property
    def first_day(self) -> date:
        return self.last_day - timedelta(days=self.days - 1)

    @property
    def advertiser_N(self) -> NDArray[Any]:
        return _strings(self.keys, "advertiser_id")

    @property
    def scenario_N(self) -> NDArray[Any]:
        return _strings(self.keys, "scenario_id")

    def index_of(self, day: date) -> int:
        """The day's index in T.

        Raises:
            ValueError: the day is outside the panel.
        """
        index = (day - self.first_day).days
        if not 0 <= index < self.days:
            raise ValueError(f"{day} is outside the panel {self.first_day} .. {self.last_day}")
        return index

    def day_of(self, index: int) -> date:
        """The inverse of ``index_of``."""
        return self.first_day + timedelta(days=index)

    @classmethod
    def from_sequences(cls, table: pa.Table, spec: SequenceSpec, last_day: date, days: int) -> Panel:
        """Scatter sequence rows (features.advertiser_sequence) into a dense block; rows outside it are ignored.

        Raises:
            ValueError: a metric's list is not as long as its list of days.
        """
        first = (last_day - _EPOCH).days - days + 1
        series, position = _list_positions(table, "day", first)
        first_row_N = np.full(table.num_rows, np.iinfo(np.int32).max, np.int64)
        np.minimum.at(first_row_N, series, position)
        registered_N = _registered(table, first)
        registered_N = np.minimum(registered_N, first_row_N)
        performance_NTP = _scatter(table, spec.metrics, "day", series, position, days)
        if spec.behaviors:
            series, position = _list_positions(table, "behavior_day", first)
        behavior_NTF = _scatter(table, spec.behaviors, "behavior_day", series, position, days)
        names = ["advertiser_id", "scenario_id", *spec.advertiser_attributes, *spec.scenario_attributes]
        keys = pa.table({name: table[name].cast(pa.string()) for name in dict.fromkeys(names)})
        limit = np.iinfo(np.int32)
        registered_N = np.clip(registered_N, limit.min, limit.max).astype(np.int32)
        return cls(spec, last_day, performance_NTP, behavior_NTF, registered_N, keys)

    def save(self, folder: Path | str) -> Path:
        """Write the panel as .npy files that ``open`` maps into memory; the folder appears whole or not at all."""
        folder = Path(folder)
        partial = folder.with_name(folder.name + ".partial")
        partial.mkdir(parents=True, exist_ok=True)
        np.save(partial / "performance.npy", self.performance_NTP)
        np.save(partial / "behavior.npy", self.behavior_NTF)
        np.save(partial / "registered.npy", self.registered_N)
        np.save(partial / "advertiser_total.npy", self.advertiser_total_ATM)
        with pa.OSFile(str(partial / "keys.arrow"), "wb") as sink, pa.ipc.new_file(sink, self.keys.schema) as writer:
            writer.write_table(self.keys)
        header = {"spec": self.spec.to_dict(), "last_day": self.last_day.isoformat()}
        (partial / "panel.json").write_text(json.dumps(header), encoding="utf-8")
        if folder.exists():
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
        partial.rename(folder)
        return folder

    @classmethod
    def open(cls, folder: Path | str) -> Panel:
        """Map a saved panel; nothing but the keys is read until it is used."""
        folder = Path(folder)
        header = json.loads((folder / "panel.json").read_text(encoding="utf-8"))
        with pa.memory_map(str(folder / "keys.arrow")) as source:
            keys = pa.ipc.open_file(source).read_all()
        performance_NTP, behavior_NTF, registered_N = (
            _mapped(folder / f"{name}.npy") for name in ("performance", "behavior", "registered")
        )
        panel = cls(
            SequenceSpec.from_dict(header["spec"]),
            date.fromisoformat(header["last_day"]),
            performance_NTP,
            behavior_NTF,
            registered_N,
            keys,
        )
        # Mapped instead of computed: at a million advertisers this is a gigabyte.
        vars(panel)["advertiser_total_ATM"] = _mapped(folder / "advertiser_total.npy")
        return panel


def daily_totals(performance_xP: Floats, spec: SequenceSpec) -> Floats:
    """Each day's contribution to each task, float64; a day without a row, or below zero, contributes 0."""
    value_xP = np.where(performance_xP > 0, performance_xP, 0).astype(np.float64)  # NaN > 0 is False
    columns = []
    for task in spec.tasks:
        active = task.metric == ACTIVE
        # Column by column: a reduction over an axis of a few metrics is twenty times slower.
        metrics = range(len(spec.metrics)) if active else [spec.metrics.index(task.metric)]
        value_x = reduce(np.maximum, (value_xP[..., metric] for metric in metrics))
        columns.append(value_x if task.aggregate == "sum" else (value_x > 0).astype(np.float64))
    return np.stack(columns, -1)


def targets_Nm(panel: Panel, cutoff: int, series: Ints | None = None) -> Floats:
    """Task totals over the days cutoff+1 .. cutoff+h, float64.

    Raises:
        ValueError: the horizon ends after the panel.
    """
    end = cutoff + 1 + panel.spec.horizon_days
    if not 0 <= cutoff < end <= panel.days:
        raise ValueError(
            f"cutoff {panel.day_of(cutoff)}: its horizon must lie in {panel.first_day} .. {panel.last_day}"
        )
    block = panel.performance_NTP[:, cutoff + 1 : end]
    block = block if series is None else block[series]
    return np.asarray(daily_totals(block, panel.spec).sum(1))


def history_days(panel: Panel, cutoff: int) -> Ints:
    """Registered days up to and with the cutoff, per series; 0 or less = not registered yet."""
    return cutoff + 1 - panel.registered_N.astype(np.int64)


def eligible(panel: Panel, cutoff: int) -> NDArray[np.bool_]:
    """Series with any row in the last ``eligible_days``."""
    block = panel.performance_NTP[:, max(0, cutoff + 1 - panel.spec.eligible_days) : cutoff + 1]
    return np.asarray((~np.isnan(block)).any((1, 2)) & (panel.registered_N <= cutoff))


def silent(panel: Panel, cutoff: int) -> NDArray[np.bool_]:
    """Registered series without a row in the last ``eligible_days``."""
    return np.asarray((panel.registered_N <= cutoff) & ~eligible(panel, cutoff))


def trainable_NT(panel: Panel, last_cutoff: int, min_history_days: int) -> NDArray[np.bool_]:
    """True at (series, cutoff) pairs that may train: eligible, old enough, cutoff <= ``last_cutoff``."""
    mask_NT = np.zeros((len(panel), panel.days), bool)
    for start in range(0, len(panel), _CHUNK):
        rows = slice(start, start + _CHUNK)
        row_NT = (~np.isnan(panel.performance_NTP[rows])).any(-1)
        seen_NT = np.cumsum(row_NT, 1, dtype=np.int32)
        seen_NT[:, panel.spec.eligible_days :] -= seen_NT[:, : -panel.spec.eligible_days].copy()
        # Days before the panel do not count: their values are not known.
        age_NT = np.arange(panel.days) + 1 - np.maximum(panel.registered_N[rows, None].astype(np.int64), 0)
        mask_NT[rows] = (seen_NT > 0) & (age_NT >= min_history_days)
    mask_NT[:, max(0, last_cutoff + 1) :] = False
    return mask_NT


@dataclass
class PanelStatistics:
    """What bin edges, vocabularies and scales are made from. Bounded in size; add them up over panels."""

    spec: SequenceSpec
    value_counts: Ints  # (P + F, grid) positive values per metric, then per behavior
    scenario_counts: Counter[str] = field(default_factory=Counter)
    attribute_counts: dict[str, Counter[str]] = field(default_factory=dict)
    target_sum_M: Floats = field(default_factory=lambda: np.zeros(0))
    target_count: int = 0

    @classmethod
    def of(cls, panel: Panel, train_end: date) -> PanelStatistics:
        """Statistics of the rows up to ``train_end``, which may lie after the panel's last day."""
        spec, horizon = panel.spec, panel.spec.horizon_days
        end = min((train_end - panel.first_day).days, panel.days - 1) + 1
        columns = len(spec.metrics) + len(spec.behaviors)
        counts = np.zeros((columns, _GRID_SIZE), np.int64)
        total_M, rows = np.zeros(len(spec.tasks)), 0
        known_N = panel.registered_N < end
        cutoffs = range(end - 1 - horizon, -1, -7) if end > 0 else range(0)
        for start in range(0, len(panel) if end > 0 else 0, _CHUNK):
            part = slice(start, start + _CHUNK)
            performance_NTP = np.asarray(panel.performance_NTP[part, :end])
            values = [*np.moveaxis(performance_NTP, -1, 0), *np.moveaxis(panel.behavior_NTF[part, :end], -1, 0)]
            for column, value_NT in enumerate(values):
                grid = _grid_bucket(value_NT[value_NT > 0])
                counts[column] += np.bincount(grid, minlength=_GRID_SIZE)
            running_NTM = np.cumsum(daily_totals(performance_NTP, spec), 1)
            row_NT = (~np.isnan(performance_NTP)).any(-1)
            for cutoff in cutoffs:
                recent_N = row_NT[:, max(0, cutoff + 1 - spec.eligible_days) : cutoff + 1].any(1)
                total_M += (running_NTM[recent_N, cutoff + horizon] - running_NTM[recent_N, cutoff]).sum(0)
                rows += int(recent_N.sum())
        known = panel.keys.filter(pa.array(known_N))
        attributes = dict.fromkeys((*spec.advertiser_attributes, *spec.scenario_attributes))
        return cls(
            spec,
            counts,
            _top(known["scenario_id"]),
            {name: _top(known[name]) for name in attributes},
            total_M,
            rows,
        )

    def __add__(self, other: PanelStatistics) -> PanelStatistics:
        if self.spec != other.spec:
            raise ValueError("statistics of different data sets cannot be added")
        return PanelStatistics(
            self.spec,
            self.value_counts + other.value_counts,
            self.scenario_counts + other.scenario_counts,
            {name: counts + other.attribute_counts[name] for name, counts in self.attribute_counts.items()},
            self.target_sum_M + other.target_sum_M,
            self.target_count + other.target_count,
        )


@dataclass(frozen=True)
class Inputs:
    """How values become codes: learned once on the training window, saved with the weights.

    Edges are log1p of the value, ascending, per metric and behavior. Vocabularies are sorted by frequency; code 0 is
    "unknown". ``task_scales`` is each task's mean total per eligible series: what makes tasks comparable in the loss.
    """

    spec: SequenceSpec
    metric_edges: tuple[tuple[float, ...], ...]
    behavior_edges: tuple[tuple[float, ...], ...]
    scenarios: tuple[str, ...]
    attributes: dict[str, tuple[str, ...]]
    task_scales: tuple[float, ...]

    @property
    def codes(self) -> int:
        """Size of the code book of one metric: three kinds of nothing, and the bins."""
        return FIRST_BIN + 1 + max(map(len, (*self.metric_edges, *self.behavior_edges)), default=0)

    @property
    def dense_features(self) -> int:
        """D: weeks, rates, single days, advertiser's rates, level and active share per task; age, silence, weekday."""
        per_task = WEEKS + len(LEVEL_DAYS) + len(RECENT_DAYS) + DAYS_SEEN + len(ADVERTISER_DAYS) + 1 + 2
        return len(self.spec.tasks) * per_task + 2 + 7

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Inputs:
        return cls(
            SequenceSpec.from_dict(values["spec"]),
            tuple(map(tuple, values["metric_edges"])),
            tuple(map(tuple, values["behavior_edges"])),
            tuple(values["scenarios"]),
            {name: tuple(known) for name, known in values["attributes"].items()},
            tuple(values["task_scales"]),
        )

    def profile(self, panel: Panel) -> Profile:
        """Vocabulary codes of every series of a panel; an id or attribute that training never saw is 0."""
        spec = self.spec
        advertiser = [_encode(panel.keys[name], self.attributes[name]) for name in spec.advertiser_attributes]
        scenario = [_encode(panel.keys[name], self.attributes[name]) for name in spec.scenario_attributes]
        empty = np.zeros((len(panel), 0), np.int64)
        return Profile(
            _encode(panel.keys["scenario_id"], self.scenarios),
            np.stack(scenario, 1) if scenario else empty,
            np.stack(advertiser, 1) if advertiser else empty,
        )

    def windows(self, panel: Panel, profile: Profile, series_B: Ints, cutoff_B: Ints) -> Windows:
        """Cut the windows that end at each (series, cutoff). Reads nothing after a cutoff."""
        spec = self.spec
        look = spec.lookback_days
        day_BL = cutoff_B[:, None] - np.arange(look - 1, -1, -1)
        registered_BL = (day_BL >= panel.registered_N[series_B, None]) & (day_BL >= 0)
        index_BL = np.maximum(day_BL, 0)
        performance_BLP = panel.performance_NTP[series_B[:, None], index_BL]
        performance_BLP[~registered_BL] = np.nan
        behavior_BLF = panel.behavior_NTF[series_B[:, None], index_BL]
        seen = slice(look - spec.window_days, None)
        age_B = cutoff_B + 1 - panel.registered_N[series_B].astype(np.int64)
        weekday_B = (cutoff_B + panel.first_day.weekday()) % 7
        advertiser_BLM = panel.advertiser_total_ATM[panel.advertiser_index_N[series_B, None], index_BL]
        advertiser_BLM[day_BL < 0] = 0
        level_BM, dense_BD = self._dense(performance_BLP, advertiser_BLM, age_B, weekday_B)
        return Windows(
            _codes(performance_BLP[:, seen], registered_BL[:, seen], self.metric_edges),
            _codes(behavior_BLF[:, seen], registered_BL[:, seen], self.behavior_edges),
            registered_BL[:, seen],
            dense_BD,
            level_BM,
            profile.scenario_N[series_B],
            profile.scenario_attributes_NS[series_B],
            profile.advertiser_attributes_NA[series_B],
        )

    def _dense(
        self, performance_BLP: Floats, advertiser_BLM: Floats, age_B: Ints, weekday_B: Ints
    ) -> tuple[Floats, Floats]:
        """The recent level in units of the task's scale, and features that are relative to it."""
        spec, horizon = self.spec, self.spec.horizon_days
        scale_M = np.asarray(self.task_scales)
        newest_BLM = daily_totals(performance_BLP[:, ::-1], spec)
        running_BLM = np.cumsum(newest_BLM, 1)
        # An age beyond any rate's days must not matter: a panel that starts earlier gives the same forecast.
        age_B1 = np.maximum(age_B, 1)[:, None]

        def total(days: int) -> Floats:
            return np.asarray(running_BLM[:, days - 1] / np.minimum(days, age_B1) * horizon / scale_M)

        rate_KBM = np.stack([total(days) for days in LEVEL_DAYS])
        level_BM = rate_KBM.mean(0)
        floor = LEVEL_FLOOR
        week_BWM = np.diff(running_BLM[:, 6 : 7 * WEEKS : 7], axis=1, prepend=0) / 7 * horizon / scale_M
        week_BWM = np.where((age_B1 >= 7 * np.arange(1, WEEKS + 1))[:, :, None], week_BWM, level_BM[:, None])
        base_BM = np.log(level_BM + floor)
        row_BL = np.asarray((~np.isnan(performance_BLP[:, ::-1])).any(-1))
        silence_B = np.where(row_BL.any(1), row_BL.argmax(1), row_BL.shape[1])
        active_BM = (newest_BLM[:, :28] > 0).sum(1) / np.minimum(28, age_B1)
        weekday_BD = np.eye(7)[weekday_B]
        recent_KBM = [running_BLM[:, days - 1] / days * horizon / scale_M for days in RECENT_DAYS]
        day_BKM = newest_BLM[:, :DAYS_SEEN] * horizon / scale_M
        advertiser_running_BLM = np.cumsum(advertiser_BLM[:, ::-1], 1, dtype=np.float64)
        advertiser_KBM = [
            np.log(advertiser_running_BLM[:, days - 1] / days * horizon / scale_M + floor) for days in ADVERTISER_DAYS
        ]
        columns = [
            (np.log(week_BWM + floor) - base_BM[:, None]).reshape(len(age_B), -1),
            *(np.log(rate_BM + floor) - base_BM for rate_BM in (*rate_KBM, *recent_KBM)),
            (np.log(day_BKM + floor) - base_BM[:, None]).reshape(len(age_B), -1),
            # The advertiser's size beside this series', and its trend over all scenarios.
            *(advertiser_BM - base_BM for advertiser_BM in advertiser_KBM[:2]),
            *(new_BM - old_BM for new_BM, old_BM in pairwise(advertiser_KBM)),
            base_BM / 2,
            active_BM,
            np.log(np.minimum(age_B1, spec.lookback_days)) / 4,
            silence_B[:, None] / 28,
            weekday_BD,
        ]
        return level_BM.astype(np.float32), np.concatenate(columns, 1).astype(np.float32)


LEVEL_FLOOR = 0.02  # added to the level (in units of the task's scale): a series that sold nothing is not hopeless


@dataclass(frozen=True)
class Profile:
    """Vocabulary codes per series: scenario id, S scenario attributes, A advertiser attributes."""

    scenario_N: Ints
    scenario_attributes_NS: Ints
    advertiser_attributes_NA: Ints


@dataclass(frozen=True)
class Windows:
    """One batch for the network: codes per day (0 = not registered), dense features, recent level, profile codes."""

    performance_BLP: Ints
    behavior_BLF: Ints
    registered_BL: NDArray[np.bool_]
    dense_BD: Floats
    level_BM: Floats
    scenario_B: Ints
    scenario_attributes_BS: Ints
    advertiser_attributes_BA: Ints


def fit_inputs(statistics: PanelStatistics, bins: int = 32) -> Inputs:
    """Learn bin edges, vocabularies and task scales. Works on empty statistics (one bin, no vocabulary, scale 1)."""
    spec = statistics.spec
    edges = [_edges(counts, bins) for counts in statistics.value_counts]
    mean_M = statistics.target_sum_M / max(statistics.target_count, 1)
    return Inputs(
        spec,
        tuple(edges[: len(spec.metrics)]),
        tuple(edges[len(spec.metrics) :]),
        _vocabulary(statistics.scenario_counts),
        {name: _vocabulary(counts) for name, counts in statistics.attribute_counts.items()},
        tuple(float(mean) if mean > 0 else 1.0 for mean in mean_M),
    )


def _edges(counts: Ints, bins: int) -> tuple[float, ...]:
    """Quantiles of the values seen, as log1p, without repeats."""
    total = counts.sum()
    if total == 0 or bins < 2:
        return ()
    wanted = np.arange(1, bins) / bins * total
    bucket = np.unique(np.searchsorted(np.cumsum(counts), wanted))
    value = 2.0 ** (_GRID_LOW + (bucket + 1) / _GRID_PER_DOUBLING)
    return tuple(np.log1p(value).tolist())


def _grid_bucket(value_x: Floats) -> Ints:
    bucket = np.floor((np.log2(value_x.astype(np.float64)) - _GRID_LOW) * _GRID_PER_DOUBLING)
    return np.asarray(np.clip(bucket, 0, _GRID_SIZE - 1), np.int64)


def _codes(value_BLC: Floats, registered_BL: NDArray[np.bool_], edges: Sequence[Sequence[float]]) -> Ints:
    code_BLC = np.where(np.isnan(value_BLC), MISSING, ZERO)
    for column, column_edges in enumerate(edges):
        value_BL, code_BL = value_BLC[..., column], code_BLC[..., column]
        positive_BL = value_BL > 0  # most days of most series are not
        log_X = np.log1p(value_BL[positive_BL])
        code_BL[positive_BL] = np.searchsorted(np.asarray(column_edges, np.float32), log_X) + FIRST_BIN
    code_BLC[~registered_BL] = NOT_REGISTERED
    return code_BLC


def _vocabulary(counts: Counter[str]) -> tuple[str, ...]:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(value for value, _ in ranked[:VOCABULARY_SIZE])


def _top(column: pa.ChunkedArray) -> Counter[str]:
    """The most frequent values; ten times the vocabulary is kept so that adding panels up stays right."""
    counted = pc.value_counts(column.drop_null()).to_pylist() if len(column) else []
    ranked = sorted(((row["values"], row["counts"]) for row in counted), key=lambda item: (-item[1], item[0]))
    return Counter(dict(ranked[: 10 * VOCABULARY_SIZE]))


def _encode(column: pa.ChunkedArray, vocabulary: Sequence[str]) -> Ints:
    index = pc.index_in(column, value_set=pa.array(vocabulary, pa.string()))
    codes = pc.add(pc.fill_null(index, -1), 1).to_numpy()
    return np.asarray(codes, np.int64)


def _strings(table: pa.Table, name: str) -> NDArray[Any]:
    return np.asarray(table[name].to_numpy(zero_copy_only=False), dtype=object)


def _mapped(file: Path) -> Floats:
    array = np.load(file, mmap_mode="r") if file.stat().st_size > 4096 else np.load(file)
    return np.asarray(array)


def _list_column(table: pa.Table, name: str) -> pa.Array:
    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return column


def _list_positions(table: pa.Table, name: str, first: int) -> tuple[Ints, Ints]:
    """(series, index in T) of every listed day; indices outside 0..T-1 are still among them."""
    column = _list_column(table, name)
    length_N = np.asarray(pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False), np.int64)
    series = np.repeat(np.arange(len(length_N)), length_N)
    return series, np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.int64) - first


def _scatter(
    table: pa.Table, names: Sequence[str], day_name: str, series: Ints, position: Ints, days: int
) -> NDArray[np.float32]:
    block = np.full((table.num_rows, days, len(names)), np.nan, np.float32)
    inside = (position >= 0) & (position < days) if names else np.zeros(0, bool)
    for column, name in enumerate(names):
        values = _list_column(table, name).flatten().to_numpy(zero_copy_only=False)
        if len(values) != len(position):
            raise ValueError(f"column {name} lists {len(values)} values for {len(position)} days in {day_name}")
        block[series[inside], position[inside], column] = np.clip(values[inside], -_ABSURD, _ABSURD)
    return block


def _registered(table: pa.Table, first: int) -> Ints:
    days = pc.cast(table["registered_on"], pa.date32()).cast(pa.int32())
    registered_N = np.asarray(pc.fill_null(days, np.iinfo(np.int32).max).to_numpy(), np.int64)
    return np.asarray(registered_N - first)
