"""The gate: errors in, a decision out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from m2m_model.forecasts.baselines import BASELINES
from pipelines.chain import CHALLENGER, CHAMPION
from pipelines.config import Gate
from pipelines.errors import DataError


@dataclass(frozen=True)
class Decision:
    """What the gate decided, and why."""

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


def decide(mean_nmae: Mapping[str, float], gate: Gate, broken: Mapping[str, str] | None = None) -> Decision:
    """Apply the gate to the mean NMAE of each forecaster; ``broken``: rules of forecasts that a model broke, in words.

    A champion that broke some is no bar: score would publish the best baseline in its place.

    Raises:
        DataError: the challenger or every baseline is missing from the backtest.
    """
    baseline = best_baseline(mean_nmae)
    if CHALLENGER not in mean_nmae:
        raise DataError(f"marts.backtest: expected the challenger, found {', '.join(mean_nmae)}")
    challenger, champion = mean_nmae[CHALLENGER], mean_nmae.get(CHAMPION)
    bars = [(f"best baseline {baseline}", mean_nmae[baseline], gate.max_ratio_to_baseline)]
    broken = broken or {}
    if champion is not None and CHAMPION not in broken:
        bars.append(("champion", champion, gate.max_ratio_to_champion))
    # Products, not ratios: a perfect side has no ratio. Written so that a NaN on either side fails the gate.
    failed = [(name, value, limit) for name, value, limit in bars if not challenger <= limit * value]
    words = "; ".join(_compared(challenger, name, value, limit) for name, value, limit in failed or bars)
    if CHALLENGER in broken:
        words = f"its forecasts break rules, so that score would not publish them: {broken[CHALLENGER]}. {words}"
    return Decision(not (failed or CHALLENGER in broken), words, challenger, champion, baseline, mean_nmae[baseline])


def _compared(challenger: float, name: str, value: float, limit: float) -> str:
    if value == 0:
        return f"NMAE {challenger:.4f} beside {name}'s {value:.4f}, which has no ratio (at most {limit:g} times it)"
    return f"NMAE {challenger:.4f} is {challenger / value:.3f} of {name}'s {value:.4f} (at most {limit:g})"
