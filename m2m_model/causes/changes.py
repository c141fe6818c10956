"""Why a forecast is not what it was on an earlier day: restated history, new days, another network, its calibration.

The causes are taken one after the other, each forecast made once more, so they add up to the change. N series, M
targets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date

import numpy as np

from m2m_model.arrays import Floats
from m2m_model.data.panel import Panel
from m2m_model.forecasts.forecaster import Forecaster
from m2m_model.forecasts.forecasts import Forecasts, forecast_baseline

# Means of all series of a panel as of a day, (N, M); NaN where nothing is forecast.
Means = Callable[[Panel, date], Floats]

NOISE = 1e-5  # relative: what another batch changes in a float32 forecast is no cause


@dataclass(frozen=True)
class Split:
    """Four causes, (N, M) each, that add up to after - before."""

    restated_NM: Floats
    new_days_NM: Floats
    model_NM: Floats
    calibration_NM: Floats


def by_model(forecaster: Forecaster) -> Means:
    """A model's own."""
    return lambda panel, day: of_all(forecaster.predict(panel, day, all_series=True), panel)


def by_rule(name: str) -> Means:
    """A baseline's, before what was learned of its errors is added."""
    return lambda panel, day: of_all(forecast_baseline(name, panel, day, all_series=True), panel)


def of_all(forecasts: Forecasts, panel: Panel) -> Floats:
    """The means of those series that are forecast, in their places."""
    mean_NM = np.full((len(panel), len(panel.spec.targets)), np.nan)
    mean_NM[forecasts.series_N] = forecasts.distribution.mean_NM
    return mean_NM


def recalibrated(new: Forecaster, old: Forecaster) -> Forecaster:
    """The network of one model served as another one would: with its calibration, blend and rivals."""
    return replace(
        new,
        levels=old.levels,
        blend=old.blend,
        young_blend=old.young_blend,
        calibrations=old.calibrations,
        rivals=old.rivals,
    )


def anchored(rule: Means, then: Panel, day: date, before_NM: Floats) -> Means:
    """A rule's forecasts as they were published on a day: what was added to them then was in proportion."""
    own_NM = rule(then, day)
    ratio_NM = np.divide(before_NM, own_NM, out=np.ones_like(own_NM), where=own_NM > 0)
    more_NM = np.where(own_NM > 0, 0.0, before_NM)
    return lambda panel, as_of: rule(panel, as_of) * ratio_NM + more_NM


def split(
    before_NM: Floats,
    after_NM: Floats,
    then: Panel,
    now: Panel,
    day: date,
    old: Means | None,
    new: Means | None,
    mixed: Means | None = None,
    same: bool = False,
) -> Split:
    """The change since ``day`` by cause.

    Args:
        before_NM: what was published then.
        after_NM: what is published now, as of the last day of ``now``.
        then: the series with their profile of then; their days as they are known now.
        now: the same with their profile of now.
        old: what served then; None: it cannot be asked any more. Then ``new`` says what the new days do, and the rest
            counts as the model's.
        new: what serves now; None: it cannot be asked.
        mixed: the network of now with the calibration of then; None: the model's part cannot be told from its
            calibration's, and is all the model's. ``old`` itself: only the calibration is another.
        same: what serves now is what served then.
    """
    zero_NM = np.zeros_like(before_NM)
    if same and old is None:
        return Split(zero_NM, after_NM - before_NM, zero_NM, zero_NM)
    if old is None:
        known_NM = before_NM if new is None else _or(new(then, day), before_NM)
        new_NM = zero_NM if new is None else after_NM - known_NM
        return Split(zero_NM, new_NM, after_NM - before_NM - new_NM, zero_NM)
    known_NM = _quiet(_or(old(then, day), before_NM), before_NM)
    if same:
        return Split(known_NM - before_NM, after_NM - known_NM, zero_NM, zero_NM)
    today_NM = _or(old(now, now.last_day), known_NM)
    served_NM = after_NM if mixed is None else today_NM if mixed is old else _or(mixed(now, now.last_day), after_NM)
    served_NM = _quiet(served_NM, after_NM)
    return Split(known_NM - before_NM, today_NM - known_NM, served_NM - today_NM, after_NM - served_NM)


def _or(said_NM: Floats, else_NM: Floats) -> Floats:
    """What is said, and where nothing is, something else."""
    return np.where(np.isnan(said_NM), else_NM, said_NM)


def _quiet(said_NM: Floats, published_NM: Floats) -> Floats:
    """The published figure where it is the same but for rounding."""
    same_NM = np.abs(said_NM - published_NM) <= NOISE * np.maximum(np.abs(published_NM), 1e-3)
    return np.where(same_NM, published_NM, said_NM)
