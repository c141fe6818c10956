"""Rows as a terminal shows them: in columns that fit its width; what is left out is said."""

from __future__ import annotations

import math
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from pipelines.errors import plain

GAP = "  "
WIDEST = (60, 40, 24, 12)  # of a text, from what is best to what still fits
LAST = ("p25", "p75", "bucket", "model_version", "sequence_snapshot_id", "run_id")  # shown where there is room for them


@dataclass
class Shown:
    """What is printed: lines, and which columns of the frame are not there, which texts not whole."""

    lines: list[str]
    left_out: list[str] = field(default_factory=list)
    cut: int = 0


def shown(frame: pl.DataFrame, first: Sequence[str], width: int | None) -> Shown:
    """The rows of a frame in columns.

    Args:
        first: the columns to keep before all others.
        width: of the terminal. Where it is too small, columns with one value for all rows stand above the others, a
            single row stands a column a line, and then columns are left out. None: all columns and all of the texts.
    """
    names = frame.columns
    cells = {name: [_cell(value) for value in frame[name].to_list()] for name in names}
    needs = {name: max(map(_wide, [name, *cells[name]])) for name in names}
    if width is None or sum(needs.values()) + len(GAP) * (len(names) - 1) <= width:
        return Shown(_lines(frame, cells, needs))
    if frame.height == 1:
        widest = max(map(_wide, names))
        return Shown([line for name in names for line in wrapped(f"{name:{widest}}  {cells[name][0]}", width)])
    alike = [name for name in names if len({*cells[name]}) == 1]
    above = ", ".join(f"{name} {cells[name][0]}" for name in alike)
    lines = wrapped(f"all rows: {above}", width) if alike else []
    rest = [name for name in names if name not in alike]
    order = sorted(rest, key=lambda name: (name not in first, name in LAST))
    numbers = {name for name in rest if frame[name].dtype.is_numeric()}  # of which no digit is cut off

    def at_most(name: str, most: int) -> int:
        return needs[name] if name in numbers else min(needs[name], max(most, _wide(name)))

    def of_first(most: int) -> int:
        return sum(at_most(name, most) + len(GAP) for name in order if name in first) - len(GAP)

    widest = next((most for most in WIDEST if of_first(most) <= width), WIDEST[-1])
    wide: dict[str, int] = {}
    for name in order:
        room = width - sum(wide.values()) - len(GAP) * len(wide)
        fits = [at_most(name, most) for most in WIDEST if most <= widest or name not in first]
        if possible := [most for most in fits if most <= room]:
            wide[name] = possible[0]
    wide = {name: wide[name] for name in rest if name in wide}
    short = {name: [_short(cell, wide[name]) for cell in cells[name]] for name in wide}
    cut = sum(one != other for name in wide for one, other in zip(cells[name], short[name], strict=True))
    return Shown([*lines, *_lines(frame, short, wide)], [name for name in rest if name not in wide], cut)


def _lines(frame: pl.DataFrame, cells: dict[str, list[str]], wide: dict[str, int]) -> list[str]:
    columns = []
    for name, places in wide.items():
        right = frame[name].dtype.is_numeric()
        columns.append([_padded(cell, places, right) for cell in (name, *cells[name])])
    return [GAP.join(row).rstrip() for row in zip(*columns, strict=True)]


def _padded(cell: str, wide: int, right: bool) -> str:
    blanks = " " * (wide - _wide(cell))
    return blanks + cell if right else cell + blanks


def _wide(text: str) -> int:
    """How many places a text takes: a Chinese character two, an accent of its own none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _short(text: str, wide: int) -> str:
    """Cut to some places, if it takes more."""
    if _wide(text) <= wide:
        return text
    while text and _wide(text) > wide - 1:
        text = text[:-1]
    return f"{text}…"


def wrapped(text: str, width: int) -> list[str]:
    """Lines of a width, broken between words."""
    return textwrap.wrap(text, max(width, 8), subsequent_indent="  ") or [""]


def _cell(value: Any) -> str:
    """A value as a person reads it. Lists of whole numbers are days."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"{len(value)}: {_listed(value)}" if value else "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return figure(value)
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    return plain(value)


def _listed(values: list[Any]) -> str:
    if isinstance(values[0], int):
        first, last = (date(1970, 1, 1) + timedelta(days=values[i]) for i in (0, -1))
        return f"{first}..{last}"
    return ", ".join(map(_cell, values[:3])) + (", …" if len(values) > 3 else "")


def figure(value: float) -> str:
    """A number with four digits that count, and all of those before the point."""
    if not math.isfinite(value):
        return str(value)
    if value.is_integer() and abs(value) < 1e15:
        return f"{value + 0.0:,.0f}"
    if not 1e-4 <= abs(value) < 1e15:
        return f"{value:.3g}"
    return f"{value:,.{min(6, max(1, 3 - math.floor(math.log10(abs(value)))))}f}"


def plural(number: int, one: str, many: str = "") -> str:
    """A number of things, in words: ``3 warnings``, ``1 warning``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
