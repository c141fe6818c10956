"""LightGBM on window sums: the baseline that is hardest to beat. It is judged in every backtest and never serves.

It may learn from labels up to the first held-out cutoff, later ones than the network sees. One booster a task; its
forecasts are points. N windows, X features, M tasks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import lightgbm
import numpy as np

from m2m_model.arrays import Floats, Ints
from m2m_model.data.features import Inputs
from m2m_model.data.panel import Panel
from m2m_model.data.served_by import eligible, history_days
from m2m_model.data.targets import targets_Nm
from m2m_model.forecasts.baselines import recent
from m2m_model.network.plans import planned
from m2m_model.rivals import MODULES

L1 = {"objective": "l1"}
OBJECTIVES: Mapping[str, Mapping[str, Any]] = dict(
    zip(MODULES[__name__], (L1, {"objective": "tweedie", "tweedie_variance_power": 1.5}), strict=True)
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
TREES = 300
CUTOFFS, EVERY_DAYS = 42, 3  # training cutoffs, and the days between them
MAX_ROWS = 200_000
WINDOWS = (1, 2, 3, 7, 14, 28)  # and the whole look back
SINGLE_DAYS = 7


@dataclass(frozen=True)
class Boosted:
    """One objective: a booster a task, and the scenarios it knows."""

    boosters: tuple[lightgbm.Booster, ...]
    scenarios: tuple[str, ...]

    def __call__(self, panel: Panel, cutoff: int, series: Ints) -> Floats:
        """(N, M) totals; ``cutoff`` is a day index, ``series`` row indices."""
        if not len(series):
            return np.zeros((0, len(self.boosters)))
        feature_NX = features(panel, cutoff, series, self.scenarios)
        forecasts = [np.asarray(booster.predict(feature_NX, num_threads=1)) for booster in self.boosters]
        return np.asarray(np.maximum(np.stack(forecasts, 1), 0))

    def parts(self) -> dict[str, bytes]:
        """A text file a task, and the scenarios."""
        boosters = {f"{m}.txt": booster.model_to_string().encode() for m, booster in enumerate(self.boosters)}
        return boosters | {"scenarios.json": json.dumps(self.scenarios).encode()}


def opened(parts: Mapping[str, bytes]) -> Boosted:
    """The inverse of ``Boosted.parts``.

    Raises:
        ValueError: LightGBM does not read it.
    """
    try:
        boosters = [lightgbm.Booster(model_str=parts[f"{m}.txt"].decode()) for m in range(len(parts) - 1)]
    except lightgbm.basic.LightGBMError as error:
        raise ValueError(str(error)) from error
    return Boosted(tuple(boosters), tuple(json.loads(parts["scenarios.json"])))


def fit(panels: Sequence[Panel], inputs: Inputs, held_out_from: date) -> dict[str, Boosted]:
    """Every objective, from labels that end by ``held_out_from``."""
    cutoffs = {k: training_cutoffs(panel, (held_out_from - panel.first_day).days) for k, panel in enumerate(panels)}
    return fit_boosted(panels, inputs.scenarios, cutoffs)


def fit_boosted(
    panels: Iterable[Panel], scenarios: tuple[str, ...], cutoffs: Mapping[int, list[int]]
) -> dict[str, Boosted]:
    """Fit every objective on the eligible series of each panel at its ``cutoffs`` (day indices, by panel number)."""
    chosen = [(panel, cutoff) for number, panel in enumerate(panels) for cutoff in cutoffs[number]]
    rows = sum(int(eligible(panel, cutoff).sum()) for panel, cutoff in chosen)
    every = max(1.0, rows / MAX_ROWS)  # thinned before features are made: memory does not grow with the series
    features_, targets = [], []
    for panel, cutoff in chosen:
        series = np.flatnonzero(eligible(panel, cutoff))
        series = series[(np.arange(int(len(series) / every)) * every).astype(np.int64)]
        features_.append(features(panel, cutoff, series, scenarios))
        targets.append(targets_Nm(panel, cutoff, series))
    feature_NX, target_NM = np.concatenate(features_), np.concatenate(targets)
    data = lightgbm.Dataset(feature_NX, categorical_feature=[feature_NX.shape[1] - 2], free_raw_data=False)
    found = {}
    for name, objective in OBJECTIVES.items():
        boosters = []
        for m in range(target_NM.shape[1]):
            data.set_label(target_NM[:, m])
            # Tweedie refuses a task that has not begun: every total 0.
            chosen_objective = objective if target_NM[:, m].any() else L1
            boosters.append(lightgbm.train({**SETTINGS, **chosen_objective}, data, TREES))
        found[name] = Boosted(tuple(boosters), scenarios)
    return found


def training_cutoffs(panel: Panel, last_label: int) -> list[int]:
    """Up to ``CUTOFFS`` day indices, latest first, whose labels end by ``last_label``."""
    latest = min(last_label, panel.days - 1) - panel.spec.horizon_days
    return list(range(latest, 0, -EVERY_DAYS))[:CUTOFFS]


def features(panel: Panel, cutoff: int, series: Ints, scenarios: tuple[str, ...]) -> Floats:
    """(N, X): plans, window sums and single days of every task, days since activity, age, scenario, weekday."""
    look = panel.spec.lookback_days
    newest_NDM = recent(panel, cutoff, series, look)[:, ::-1]
    running_NDM = np.cumsum(newest_NDM, 1)
    sums = [running_NDM[:, days - 1] for days in (*WINDOWS, look)]
    active_ND = np.asarray((newest_NDM > 0).any(-1))
    silence_N = np.where(active_ND.any(1), active_ND.argmax(1), look)
    age_N = np.minimum(history_days(panel, cutoff)[series], look)
    code = {name: number for number, name in enumerate(scenarios)}
    names, inverse = np.unique(panel.scenario_N[series].astype(str), return_inverse=True)
    code_N = np.array([code.get(str(name), -1) for name in names])[inverse]
    weekday_N = np.full(len(series), (cutoff + panel.first_day.weekday()) % 7)
    days = [newest_NDM[:, day] for day in range(SINGLE_DAYS)]
    plans_NX = planned(panel, cutoff, series)
    return np.column_stack([plans_NX, *sums, *days, silence_N, age_N, code_N, weekday_N]).astype(np.float32)
