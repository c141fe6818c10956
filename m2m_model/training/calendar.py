"""The cutoffs of a training run: which stop it and calibrate, and up to when it may learn."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta


def validation_cutoffs(
    first_day: date, held_out_from: date, horizons_days: Sequence[int], most: int
) -> tuple[date, ...]:
    """The cutoffs that stop training and calibrate, latest first: as many as a third of the history's weeks affords,
    at least one and at most ``most``. The label of the longest horizon ends with ``held_out_from``.

    A week lies between them; but 8 days where one of several horizons is no whole week, whose days would else always be
    the same weekdays.
    """
    count = max(1, min(most, (held_out_from - first_day).days // 21))
    every = 8 if len(horizons_days) > 1 and any(days % 7 for days in horizons_days) else 7
    return tuple(held_out_from - timedelta(days=horizons_days[-1] + every * k) for k in range(count))


def days_between(cutoffs: Sequence[date]) -> tuple[date, ...]:
    """Every day from the earliest to the latest of the cutoffs, latest first: few series are young on any of these."""
    return tuple(cutoffs[0] - timedelta(days=k) for k in range((cutoffs[0] - cutoffs[-1]).days + 1))


def train_end(first_day: date, held_out_from: date, horizons_days: Sequence[int], most: int) -> date:
    """The last day that training labels, bin edges and scales may use: the earliest validation cutoff."""
    return validation_cutoffs(first_day, held_out_from, horizons_days, most)[-1]
