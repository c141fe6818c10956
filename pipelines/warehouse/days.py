"""Days: in a row, folded to ranges, in words."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta


def days_between(first: date, last: date) -> list[date]:
    """Every day from ``first`` to ``last``, both included."""
    return [first + timedelta(days=i) for i in range((last - first).days + 1)]


def ranges(days: Iterable[date]) -> list[tuple[date, date]]:
    """Days in order, those that follow one another folded."""
    folded: list[tuple[date, date]] = []
    for day in sorted(days):
        if folded and day == folded[-1][1] + timedelta(days=1):
            folded[-1] = folded[-1][0], day
        else:
            folded.append((day, day))
    return folded


def in_words(days: Iterable[date], at_most: int | None = None) -> str:
    """Days folded to ranges, for people; ``at_most`` of these are written out."""
    shown = [str(a) if a == b else f"{a}..{b}" for a, b in ranges(days)]
    more = f" and {len(shown) - at_most} more" if at_most and len(shown) > at_most else ""
    return ", ".join(shown[:at_most]) + more
