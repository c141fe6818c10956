"""The gate: errors in, a decision out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from statistics import fmean

from m2m_model.forecasts.baselines import BASELINES
from pipelines.chain import CHALLENGER, CHAMPION
from pipelines.config import Gate
from pipelines.errors import DataError


@dataclass(frozen=True)
class Decision:
    """What the gate decided, and why; the figures are means over all horizons."""

    promoted: bool
    reason: str
    challenger_nmae: float
    champion_nmae: float | None
    baseline: str
    baseline_nmae: float


def best_baseline(mean_nmae: Mapping[str, float]) -> str:
    """The baseline with the lowest mean NMAE; a NaN never wins, the first name does in a tie.

    Raises:
        DataError: no baseline is among them.
    """
    known = [name for name in BASELINES if name in mean_nmae]
    if not known:
        raise DataError(f"marts.backtest: expected a baseline, found {', '.join(mean_nmae) or 'no row'}")
    return min(known, key=lambda name: (not mean_nmae[name] >= 0, mean_nmae[name]))


@dataclass(frozen=True)
class _Bar:
    """What the challenger's figure of one horizon is held against."""

    over: str
    challenger: float
    name: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        """By products, not ratios: a perfect side has no ratio. Written so that a NaN on either side fails."""
        return self.challenger <= self.limit * self.value

    def __str__(self) -> str:
        own, other = f"{self.over}NMAE {self.challenger:.4f}", f"{self.name}'s {self.value:.4f}"
        if self.value == 0:
            return f"{own} beside {other}, which has no ratio (at most {self.limit:g} times it)"
        return f"{own} is {self.challenger / self.value:.3f} of {other} (at most {self.limit:g})"


def decide(
    by_horizon: Mapping[int | None, Mapping[str, float]], gate: Gate, broken: Mapping[str, str] | None = None
) -> Decision:
    """Apply the gate to the mean NMAE of each forecaster over each horizon (None: the only one); every bar must hold
    over each of them. ``broken``: rules of forecasts that a model broke, in words.

    A champion that broke some is no bar: score would publish the best baseline in its place.

    Raises:
        DataError: the challenger or every baseline is missing from the backtest.
    """
    broken, bars = broken or {}, list[_Bar]()
    for days, mean_nmae in by_horizon.items():
        baseline, over = best_baseline(mean_nmae), f"{days}-day " if len(by_horizon) > 1 else ""
        if CHALLENGER not in mean_nmae:
            raise DataError(f"marts.backtest: expected the challenger, found {', '.join(mean_nmae)}")
        challenger, champion = mean_nmae[CHALLENGER], mean_nmae.get(CHAMPION)
        bars.append(
            _Bar(over, challenger, f"best baseline {baseline}", mean_nmae[baseline], gate.max_ratio_to_baseline)
        )
        if champion is not None and CHAMPION not in broken:
            bars.append(_Bar(over, challenger, "champion", champion, gate.max_ratio_to_champion))
    failed = [bar for bar in bars if not bar.passed]
    words = "; ".join(map(str, failed or bars))
    if CHALLENGER in broken:
        words = f"its forecasts break rules, so that score would not publish them: {broken[CHALLENGER]}. {words}"
    names = {name: None for mean_nmae in by_horizon.values() for name in mean_nmae}
    overall = {name: fmean(means.get(name, nan) for means in by_horizon.values()) for name in names}
    best = best_baseline(overall)
    figures = overall[CHALLENGER], overall.get(CHAMPION), best, overall[best]
    return Decision(not (failed or CHALLENGER in broken), words, *figures)
