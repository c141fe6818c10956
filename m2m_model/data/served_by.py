"""Who is served by what as of a day: one rule, for training, prediction and evaluation."""

from __future__ import annotations

import numpy as np

from m2m_model.arrays import Bools, Ints
from m2m_model.data.grid import NOTHING
from m2m_model.data.panel import CHUNK, Panel

COLD_START_DAYS = 7  # a series younger than this is served by the cold-start rule
NEWCOMER_DAYS = 182  # registered so long ago at most, an advertiser is listed from then on, with rows or without
SETTLED_DAYS = 14  # from this age on it does not matter whether a series is new

# NETWORK: the model, or what stands in for it. NOBODY: not registered yet. SILENT: no row in eligible_days, unless the
# advertiser registered in them and has not begun anywhere.
NOBODY, NETWORK, COLD_START, SILENT = range(4)


def served_by(panel: Panel, day: int) -> Ints:
    """(N,) which of the four serves each series as of the end of ``day`` (an index in T). Reads nothing after it."""
    return served_on(panel, np.array([day]))[:, 0]


def served_on(panel: Panel, day_D: Ints, rows: slice = slice(None)) -> Ints:
    """``served_by`` as of D days, for some rows of the panel, (N, D)."""
    look, registered_N1 = panel.spec.eligible_days, panel.registered_N[rows, None].astype(np.int64)
    if not len(day_D):
        return np.zeros((len(registered_N1), 0), np.int8)
    first, last = max(0, int(day_D.min()) + 1 - look), int(day_D.max())
    row_NT = (panel.performance_NTP[rows, first : last + 1] != NOTHING).any(-1)
    seen_NT = np.pad(np.cumsum(row_NT, 1, dtype=np.int32), ((0, 0), (1, 0)))
    recent_ND = seen_NT[:, day_D + 1 - first] > seen_NT[:, np.maximum(day_D + 1 - look - first, 0)]
    age_ND = day_D + 1 - registered_N1
    # Those who registered earlier are listed only if they began: what they did says nothing of who begins.
    known_N1 = (registered_N1 >= 0) & (panel.days - registered_N1 <= NEWCOMER_DAYS)
    new_ND = ~recent_ND & (age_ND >= 1) & (age_ND <= look) & known_N1
    if new_ND.any():
        recent_ND |= new_ND & (day_D < panel.begun_N[rows, None])
    served_ND = np.where(age_ND < COLD_START_DAYS, COLD_START, NETWORK)
    return np.where(age_ND < 1, NOBODY, np.where(recent_ND, served_ND, SILENT)).astype(np.int8)


def eligible(panel: Panel, day: int) -> Bools:
    """Series with a row in the last ``eligible_days``, and newcomers: the network's and the cold-start rule's."""
    return is_eligible(served_by(panel, day))


def is_eligible(served_x: Ints) -> Bools:
    return np.asarray((served_x == NETWORK) | (served_x == COLD_START))


def history_days(panel: Panel, day: int) -> Ints:
    """Registered days up to and with ``day``, per series; 0 or less = not registered yet."""
    return day + 1 - panel.registered_N.astype(np.int64)


def settled_days(min_history_days: int) -> int:
    """The age from which a series trains that may be older than it looks."""
    return SETTLED_DAYS if min_history_days < COLD_START_DAYS else min_history_days


def trainable_NT(panel: Panel, last_cutoff: int, min_history_days: int) -> Bools:
    """True at (series, cutoff) pairs that may train: eligible, old enough, cutoff <= ``last_cutoff``.

    A series that begins with the panel is not known to be new, and teaches nothing of newcomers (``settled_days``).
    """
    settled = settled_days(min_history_days)
    mask_NT = np.zeros((len(panel), panel.days), bool)
    day_D = np.arange(min(last_cutoff + 1, panel.days))
    for start in range(0, len(panel), CHUNK):
        rows = slice(start, start + CHUNK)
        # Days before the panel do not count: their values are not known.
        registered_N1 = np.maximum(panel.registered_N[rows, None].astype(np.int64), 0)
        least_N1 = np.where(registered_N1 < panel.spec.eligible_days, settled, min_history_days)
        old_enough_ND = day_D + 1 - registered_N1 >= least_N1
        mask_NT[rows, : len(day_D)] = is_eligible(served_on(panel, day_D, rows)) & old_enough_ND
    return mask_NT
