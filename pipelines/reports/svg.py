"""Small pictures, drawn by a few lines: they take their colors from the page, and no script."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from markupsafe import Markup

from pipelines.reports.page import number, seen

_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 12.0, 10.0, 24.0


class _Frame:
    """From days and values to places in a picture."""

    def __init__(self, days: Sequence[date], low: float, high: float, width: int, height: int) -> None:
        self.first, self.span = min(days), max((max(days) - min(days)).days, 1)
        self.low, self.high = low, high if high > low else low + 1
        self.width, self.height = width, height

    def x(self, day: date) -> float:
        return round(_LEFT + (day - self.first).days / self.span * (self.width - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        part = (value - self.low) / (self.high - self.low)
        return round(self.height - _BOTTOM - part * (self.height - _TOP - _BOTTOM), 1)

    def path(self, points: Sequence[tuple[date, float]]) -> str:
        return " ".join(f"{self.x(day)},{self.y(value)}" for day, value in points)

    def line(self, points: Sequence[tuple[date, float]], look: str) -> Markup:
        """A line that breaks where a day is missing."""
        parts: list[list[tuple[date, float]]] = []
        for point in points:
            if parts and (point[0] - parts[-1][-1][0]).days <= 8:
                parts[-1].append(point)
            else:
                parts.append([point])
        drawn = [Markup('<polyline class="{}" points="{}"/>').format(look, self.path(part)) for part in parts]
        alone = [part[0] for part in parts if len(part) == 1]
        return Markup("").join([*drawn, *(self.dot(*point, "past") for point in alone)])

    def dot(self, day: date, value: float, look: str) -> Markup:
        return Markup('<circle class="{}" cx="{}" cy="{}" r="3"/>').format(look, self.x(day), self.y(value))

    def axes(self, days: Sequence[date], percent: bool = False) -> Markup:
        """The levels that the picture spans, and some days."""
        parts = []
        for value in (self.low, (self.low + self.high) / 2, self.high):
            words = f"{value:.1%}" if percent else number(value)
            parts.append(
                Markup(
                    '<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>'
                    '<text x="{}" y="{}" text-anchor="end">{}</text>'
                ).format(_LEFT, self.width - _RIGHT, self.y(value), self.y(value), _LEFT - 6, self.y(value) + 4, words)
            )
        for place, day in enumerate(days):
            anchor = "start" if place == 0 else "end" if place == len(days) - 1 else "middle"
            parts.append(
                Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
                    self.x(day), self.height - 6, anchor, f"{day:%d %b}"
                )
            )
        return Markup("").join(parts)

    def drawn(self, words: str, *parts: Markup) -> Markup:
        return Markup(
            '<svg viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{words}">{all}</svg>'
        ).format(w=self.width, h=self.height, words=seen(words), all=Markup("").join(parts))


def fan(past: Sequence[tuple[date, float]], as_of: date, days: int, levels: dict[str, float], words: str) -> Markup:
    """The totals of ``days`` days up to each past day, and the fan of the one that ends ``days`` after ``as_of``:
    ``levels`` are its p05, p25, mean, p75 and p95."""
    end = as_of + timedelta(days=days)
    start = past[-1] if past else (as_of, levels["mean"])
    values = [*levels.values(), *(value for _, value in past)]
    margin = 0.08 * (max(values) - min(values) or abs(max(values)) or 1)
    low = min(values) - margin
    low = 0.0 if min(values) >= 0 and low < 0.35 * max(values) else low  # a zero in sight is shown
    frame = _Frame([*(day for day, _ in past), as_of, end], low, max(values) + margin, 720, 240)
    wide, narrow = (
        Markup('<polygon class="fan" points="{}"/>').format(frame.path([start, (end, levels[b]), (end, levels[a])]))
        for a, b in (("p05", "p95"), ("p25", "p75"))
    )
    mean = Markup('<polyline class="main" points="{}"/>').format(frame.path([start, (end, levels["mean"])]))
    days_named = sorted({frame.first, as_of, end})
    return frame.drawn(
        words,
        frame.axes(days_named),
        wide,
        narrow,
        frame.line(past, "line"),
        mean,
        frame.dot(end, levels["mean"], "dot"),
    )


def line(
    points: Sequence[tuple[date, float]], words: str, target: float | None = None, percent: bool = False
) -> Markup:
    """A figure over days, and, dashed, where it should be."""
    values = [value for _, value in points] + ([] if target is None else [target])
    margin = 0.1 * (max(values) - min(values) or abs(max(values)) or 1)
    frame = _Frame(
        [day for day, _ in points],
        max(min(values) - margin, 0) if min(values) >= 0 else min(values) - margin,
        max(values) + margin,
        520,
        130,
    )
    aim = Markup("")
    if target is not None:
        aim = Markup('<line class="main" stroke-dasharray="4 4" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            _LEFT, frame.width - _RIGHT, frame.y(target), frame.y(target)
        )
    days = sorted({points[0][0], points[-1][0]})
    dots = [frame.dot(*point, "past") for point in points] if len(points) < 40 else []
    return frame.drawn(words, frame.axes(days, percent), aim, frame.line(points, "line"), *dots)


def span(low: float, mean: float, high: float, largest: float) -> Markup:
    """An interval as a bar from 0 to ``largest``, the mean a dot."""
    width, scale = 150, 140 / largest if largest > 0 else 0.0
    x = [round(5 + scale * min(max(value, 0), largest), 1) for value in (low, mean, high)]
    return Markup(
        '<svg viewBox="0 0 {w} 16" width="{w}" height="16" role="img" aria-label="{low} to {high}">'
        '<line class="axis" x1="5" x2="{end}" y1="8" y2="8"/>'
        '<rect class="fan" x="{x0}" y="3" width="{wide}" height="10"/>'
        '<circle class="dot" cx="{x1}" cy="8" r="3"/></svg>'
    ).format(
        w=width, end=width - 5, low=number(low), high=number(high), x0=x[0], x1=x[1], wide=max(round(x[2] - x[0], 1), 1)
    )
