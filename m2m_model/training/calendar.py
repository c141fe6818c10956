"""The cutoffs of a training run: which stop it and calibrate, and up to when it may learn."""

from __future__ import annotations

from datetime import date, timedelta


def validation_cutoffs(first_day: date, held_out_from: date, horizon_days: int, most: int) -> tuple[date, ...]:
    """The cutoffs that stop training and calibrate, latest first: as many as a third of the history's weeks affords,
    at least one and at most ``most``."""
    count = max(1, min(most, (held_out_from - first_day).days // 21))
    return tuple(held_out_from - timedelta(days=horizon_days + 7 * k) for k in range(count))


def train_end(first_day: date, held_out_from: date, horizon_days: int, most: int) -> date:
    """The last day that training labels, bin edges and scales may use: the earliest validation cutoff."""
    return validation_cutoffs(first_day, held_out_from, horizon_days, most)[-1]
