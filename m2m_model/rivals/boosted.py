"""LightGBM on window sums: the learned baseline that is hardest to beat, in three forms.

One booster a target; its forecasts are points. ``lightgbm_l1`` and ``lightgbm_tweedie`` forecast totals of sums and
single days. ``lightgbm_level`` forecasts the ratio to the recent level, as the network does, from amounts relative to
it; a row weighs its level, so that absolute errors are what is learned, and what is hardly more than nothing is called
nothing. N windows, X features, M targets (of daily totals: tasks), W amounts of the past.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import lightgbm
import numpy as np

from m2m_model.arrays import Floats, Ints
from m2m_model.data.features import ADVERTISER_DAYS, LEVEL_FLOOR, RECENT_DAYS, Inputs
from m2m_model.data.panel import Panel, lead, recent
from m2m_model.data.served_by import eligible, history_days
from m2m_model.data.spec import LEVEL_DAYS, WEEKS
from m2m_model.data.targets import targets_Nm
from m2m_model.network.plans import planned
from m2m_model.rivals import MODULES

L1 = {"objective": "l1"}
TWEEDIE = {"objective": "tweedie", "tweedie_variance_power": 1.5}
# What each form minimises, and whether it forecasts the ratio to the level.
FORMS: Mapping[str, tuple[Mapping[str, Any], bool]] = dict(
    zip(MODULES[__name__], ((L1, False), (TWEEDIE, False), (L1, True)), strict=True)
)
SETTINGS = {
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 50,
    "seed": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
SOME = {"feature_fraction": 0.4}  # of the many features of the relative form: a quarter less time, and as good
TREES = 300
CUTOFFS, EVERY_DAYS = 42, 3  # training cutoffs, and the days between them
MAX_ROWS = 200_000
ALONE_ROWS = 20_000  # up to so many one thread is as quick, and where a machine is busy much quicker
WINDOWS = (1, 2, 3, 7, 14, 28)  # and the whole look back
SINGLE_DAYS = 7
NOTHING_TRIED = 60  # thresholds below which a forecast becomes 0: so many of validation's own forecasts
NOTHING_COSTS = 0.005  # of the absolute error, given up for the least SMAPE


@dataclass(frozen=True)
class Boosted:
    """One form: a booster a target (by number; some may be left out), and the scenarios it knows."""

    boosters: Mapping[int, lightgbm.Booster]
    scenarios: tuple[str, ...]
    floor_M: tuple[float, ...]  # added to the level that ratios refer to; all 0: totals are forecast, not ratios
    nothing_M: tuple[float, ...]  # forecasts below are 0

    def __call__(self, panel: Panel, cutoff: int, series: Ints) -> Floats:
        """(N, M) totals; ``cutoff`` is a day index, ``series`` row indices."""
        own_NM = np.zeros((len(series), len(self.floor_M)))
        if not len(series):
            return own_NM
        feature_NX, level_NM = look(panel, cutoff, series, self.scenarios, self.floor_M)
        for m, booster in self.boosters.items():
            own_NM[:, m] = booster.predict(feature_NX, num_threads=1)
        own_NM = np.maximum(own_NM * level_NM, 0)
        return np.asarray(np.where(own_NM < np.asarray(self.nothing_M), 0.0, own_NM))

    @property
    def targets(self) -> int:
        return len(self.floor_M)

    def parts(self) -> dict[str, bytes]:
        """A text file a target, and what else it knows."""
        known = {"scenarios": self.scenarios, "floor": self.floor_M, "nothing": self.nothing_M}
        boosters = {f"{m}.txt": booster.model_to_string().encode() for m, booster in self.boosters.items()}
        return boosters | {_KNOWN: json.dumps(known).encode()}

    def of_targets(self, targets: Collection[int]) -> Boosted:
        """With the boosters of some targets alone."""
        return replace(self, boosters={m: booster for m, booster in self.boosters.items() if m in targets})


_KNOWN = "known.json"


def opened(parts: Mapping[str, bytes]) -> Boosted:
    """The inverse of ``Boosted.parts``.

    Raises:
        ValueError: LightGBM does not read it, or its parts do not fit together.
    """
    known = json.loads(parts[_KNOWN])
    try:
        boosters = {
            int(name.removesuffix(".txt")): lightgbm.Booster(model_str=part.decode())
            for name, part in parts.items()
            if name != _KNOWN
        }
    except lightgbm.basic.LightGBMError as error:
        raise ValueError(str(error)) from error
    found = Boosted(boosters, *(tuple(known[name]) for name in ("scenarios", "floor", "nothing")))
    if len(found.nothing_M) != found.targets or not boosters.keys() <= set(range(found.targets)):
        raise ValueError(f"{_KNOWN} is of {found.targets} targets, boosters and thresholds are of others")
    return found


def fit(panels: Sequence[Panel], inputs: Inputs, last_label: date, seen: Sequence[date]) -> dict[str, Boosted]:
    """Every form, from labels that end by ``last_label``, with what is nothing learned at the cutoffs ``seen``. None
    where there is no row to learn from."""
    found = fit_boosted(panels, inputs, _up_to(panels, last_label))
    if "lightgbm_level" in found:
        found["lightgbm_level"] = _with_nothing(found["lightgbm_level"], panels, seen)
    return found


def refit(
    panels: Sequence[Panel], inputs: Inputs, last_label: date, fitted: Mapping[str, Boosted]
) -> dict[str, Boosted]:
    """The same from other labels; what is nothing stays as it was ``fitted``."""
    found = fit_boosted(panels, inputs, _up_to(panels, last_label))
    return {
        name: replace(model, nothing_M=fitted[name].nothing_M) if name in fitted else model
        for name, model in found.items()
    }


def fit_boosted(panels: Iterable[Panel], inputs: Inputs, cutoffs: Mapping[int, list[int]]) -> dict[str, Boosted]:
    """Fit every form on the eligible series of each panel at its ``cutoffs`` (day indices, by panel number)."""
    chosen = [(panel, cutoff) for number, panel in enumerate(panels) for cutoff in cutoffs[number]]
    rows = thinned(chosen, MAX_ROWS)
    if not rows:
        return {}
    target_NM = np.concatenate([targets_Nm(*row) for row in rows])
    none_M = (0.0,) * target_NM.shape[1]
    own_floor_M = tuple(LEVEL_FLOOR * scale for scale in inputs.target_scales)
    found = {}
    for relative in (False, True):
        floor_M = own_floor_M if relative else none_M
        looks = [look(*row, inputs.scenarios, floor_M) for row in rows]
        feature_NX, level_NM = np.concatenate([f for f, _ in looks]), np.concatenate([level for _, level in looks])
        data = lightgbm.Dataset(feature_NX, categorical_feature=[feature_NX.shape[1] - 2], free_raw_data=False)
        for name in (name for name, form in FORMS.items() if form[1] == relative):
            boosters = {}
            for m in range(target_NM.shape[1]):
                data.set_label(target_NM[:, m] / level_NM[:, m])
                data.set_weight(level_NM[:, m] if relative else None)
                # Tweedie refuses a target that has not begun: every total 0.
                objective = FORMS[name][0] if target_NM[:, m].any() else L1
                settings = {**SETTINGS, **objective, **(SOME if relative else {})}
                settings["num_threads"] = 1 if len(target_NM) <= ALONE_ROWS else 0
                boosters[m] = lightgbm.train(settings, data, TREES)
            found[name] = Boosted(boosters, inputs.scenarios, floor_M, none_M)
    return found


def thinned(chosen: Sequence[tuple[Panel, int]], most: int) -> list[tuple[Panel, int, Ints]]:
    """The eligible series of panels at cutoffs, evenly thinned to about ``most`` before features are made of them:
    memory does not grow with the series."""
    counts = [int(eligible(panel, cutoff).sum()) for panel, cutoff in chosen]
    every = max(1.0, sum(counts) / most)
    found = list[tuple[Panel, int, Ints]]()
    for (panel, cutoff), count in zip(chosen, counts, strict=True):
        kept = (np.arange(int(count / every)) * every).astype(np.int64)
        if len(kept):
            found.append((panel, cutoff, np.flatnonzero(eligible(panel, cutoff))[kept]))
    return found


def training_cutoffs(panel: Panel, last_label: int) -> list[int]:
    """Up to ``CUTOFFS`` day indices, latest first, whose labels end by ``last_label``."""
    latest = min(last_label, panel.days - 1) - panel.spec.horizon_days
    return list(range(latest, 0, -EVERY_DAYS))[:CUTOFFS]


def _up_to(panels: Sequence[Panel], last_label: date) -> dict[int, list[int]]:
    return {k: training_cutoffs(panel, (last_label - panel.first_day).days) for k, panel in enumerate(panels)}


def _with_nothing(model: Boosted, panels: Sequence[Panel], seen: Sequence[date]) -> Boosted:
    """The same that says 0 where its forecast is below a threshold, learned at cutoffs after its labels: a median that
    is hardly above 0 costs SMAPE all of a likely zero, and saves hardly any absolute error."""
    chosen = []
    for panel in panels:
        days = [(cutoff - panel.first_day).days for cutoff in seen]
        chosen += [(panel, day) for day in days if 0 <= day < panel.days - panel.spec.horizon_days]
    rows = thinned(chosen, MAX_ROWS // 4)
    if not rows:
        return model
    said_NM = np.concatenate([model(*row) for row in rows])
    actual_NM = np.concatenate([targets_Nm(*row) for row in rows])
    return replace(model, nothing_M=tuple(map(nothing_below, said_NM.T, actual_NM.T)))


def nothing_below(said_N: Floats, actual_N: Floats) -> float:
    """The threshold with the least SMAPE whose absolute error is nearly the least."""
    tried = np.concatenate([[0.0], np.unique(np.quantile(said_N, np.linspace(0, 1, NOTHING_TRIED)))])
    cut_TN = np.where(said_N < tried[:, None], 0.0, said_N)
    absolute_T = np.abs(cut_TN - actual_N).sum(1)
    gap_TN, size_TN = np.abs(cut_TN - actual_N), cut_TN + actual_N
    relative_T = np.divide(gap_TN, size_TN, out=np.zeros_like(gap_TN), where=size_TN > 0).sum(1)
    near_T = absolute_T <= absolute_T.min() * (1 + NOTHING_COSTS)
    return float(tried[int(np.argmin(np.where(near_T, relative_T, np.inf)))])


def look(
    panel: Panel, cutoff: int, series: Ints, scenarios: tuple[str, ...], floor_M: Sequence[float]
) -> tuple[Floats, Floats]:
    """Features (N, X) and the level (N, M) that the forecast is in units of; 1 for totals."""
    if any(floor_M):
        return relative_features(panel, cutoff, series, scenarios, np.asarray(floor_M))
    return features(panel, cutoff, series, scenarios), np.ones((len(series), len(panel.spec.targets)))


def features(panel: Panel, cutoff: int, series: Ints, scenarios: tuple[str, ...]) -> Floats:
    """(N, X): plans, window sums and single days of every task, days since activity, age, scenario, weekday."""
    newest_NDM = recent(panel, cutoff, series, panel.spec.lookback_days)[:, ::-1]
    running_NDM = np.cumsum(newest_NDM, 1)
    sums = [running_NDM[:, days - 1] for days in (*WINDOWS, panel.spec.lookback_days)]
    days = [newest_NDM[:, day] for day in range(SINGLE_DAYS)]
    columns = [planned(panel, cutoff, series), *sums, *days]
    return np.column_stack([*columns, *_of_series(panel, cutoff, series, scenarios, newest_NDM)]).astype(np.float32)


def relative_features(
    panel: Panel, cutoff: int, series: Ints, scenarios: tuple[str, ...], floor_M: Floats
) -> tuple[Floats, Floats]:
    """(N, X): plans; logarithms of rates, weeks, single days and the advertiser's rates over the series' recent level,
    of every task; the level, its activity, and what ``features`` has of the series. And each target's level, (N, M)."""
    spec, horizon, look_back = panel.spec, panel.spec.horizon_days, 7 * WEEKS
    newest_NDM = recent(panel, cutoff, series, look_back)[:, ::-1]
    running_NDM = np.cumsum(newest_NDM, 1)
    age_N1 = np.clip(history_days(panel, cutoff)[series], 1, None)[:, None]
    rates = [running_NDM[:, days - 1] / np.minimum(age_N1, days) for days in LEVEL_DAYS]
    rate_NM, floor_m = np.mean(rates, 0), floor_M[spec.longest]  # a task's own
    level_NM = spec.by_horizon(lambda days: np.asarray(rate_NM * days)) + floor_M
    weeks_NWM = np.diff(running_NDM[:, 6::7], axis=1, prepend=0)
    advertiser = advertiser_rates(panel, cutoff, series)
    amounts_NWM = np.stack(
        [
            *rates,
            *(running_NDM[:, days - 1] / days for days in RECENT_DAYS),
            *np.moveaxis(weeks_NWM / 7, 1, 0),
            *(newest_NDM[:, day] for day in range(SINGLE_DAYS)),
            *advertiser,
        ],
        1,
    )
    base_NM = rate_NM * horizon + floor_m
    ratio_NWM = np.log((amounts_NWM * horizon + floor_m) / base_NM[:, None])
    active_NDM = newest_NDM > 0
    active = [active_NDM[:, :days].sum(1) / np.minimum(age_N1, days) for days in (7, 28, look_back)]
    columns = [
        planned(panel, cutoff, series),
        ratio_NWM.reshape(len(series), -1),
        np.log(base_NM / floor_m),
        *active,
        *_of_series(panel, cutoff, series, scenarios, newest_NDM),
    ]
    return np.column_stack(columns).astype(np.float32), level_NM


def advertiser_rates(panel: Panel, cutoff: int, series: Ints) -> list[Floats]:
    """(N, M) daily rates of each series' advertiser over all its scenarios, over ``ADVERTISER_DAYS``."""
    total_ATM = panel.advertiser_total_YM[lead(panel.spec) :].reshape(-1, panel.days, len(panel.spec.tasks))
    most, index_N = max(ADVERTISER_DAYS), panel.advertiser_index_N[series]
    newest_NDM = total_ATM[index_N, max(0, cutoff + 1 - most) : cutoff + 1][:, ::-1].astype(np.float64)
    return [newest_NDM[:, :days].sum(1) / days for days in ADVERTISER_DAYS]


def _of_series(
    panel: Panel, cutoff: int, series: Ints, scenarios: tuple[str, ...], newest_NDM: Floats
) -> tuple[Floats, ...]:
    """Days since activity, age, scenario, weekday: (N,) each."""
    most = panel.spec.lookback_days
    active_ND = np.asarray((newest_NDM > 0).any(-1))
    silence_N = np.where(active_ND.any(1), active_ND.argmax(1), most)
    age_N = np.minimum(history_days(panel, cutoff)[series], most)
    code = {name: number for number, name in enumerate(scenarios)}
    names, inverse = np.unique(panel.scenario_N[series].astype(str), return_inverse=True)
    code_N = np.array([code.get(str(name), -1) for name in names])[inverse]
    weekday_N = np.full(len(series), (cutoff + panel.first_day.weekday()) % 7)
    return silence_N, age_N, code_N, weekday_N
