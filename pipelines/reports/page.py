"""A page: sections of tables, notes and pictures, and the one template that makes HTML of them.

Ids, values and messages come from outside: whatever is no ``Markup`` of ours is escaped, and the page itself forbids
scripts and the network.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cache
from typing import Any, Literal

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

Kind = Literal["", "good", "warn", "bad"]
_MOST = 240  # characters of a cell
_HIDING = ("Cc", "Cf", "Co", "Cs")
_SIZES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Flag:
    """A word that is also colored."""

    words: str
    kind: Kind


@dataclass(frozen=True)
class Code:
    """A command, a path, an id."""

    words: str


@dataclass(frozen=True)
class Link:
    words: str
    href: str


@dataclass(frozen=True)
class Note:
    """A sentence or more; ``code`` is a command below it."""

    words: str
    kind: Kind = ""
    code: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells: text, numbers (to the right), days, flags, codes, links, pictures. ``left_out`` says what of the
    whole is not here."""

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    left_out: str = ""


@dataclass(frozen=True)
class Picture:
    svg: Markup
    caption: str = ""
    small: bool = False  # two stand side by side


@dataclass(frozen=True)
class Folded:
    """What is there for who asks."""

    title: str
    blocks: Sequence[Block]


Block = Note | Table | Picture | Folded


@dataclass(frozen=True)
class Section:
    anchor: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """``verdict`` is the page in a sentence; a list of pages shows it. ``address``: where the page is kept as well."""

    title: str
    verdict: str
    kind: Kind
    sections: Sequence[Section] = field(default=())
    facts: Sequence[tuple[str, object]] = ()
    foot: str = ""
    address: str = ""


def render(page: Page) -> str:
    """The whole file."""
    return _templates().get_template("page.html").render(page=page)


@cache
def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("pipelines.reports", "."),
        autoescape=True,
        finalize=lambda value: seen(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"cell": cell, "kind_of": lambda block: type(block).__name__, "inner": _inner}
    return found


def cell(value: object, head: str = "") -> Markup:
    """One cell of a table; on a narrow screen ``head`` stands beside it."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    look = (
        Markup(' class="none"') if value is None else Markup(' class="n"') if number or isinstance(value, date) else ""
    )
    return Markup('<td{} data-head="{}">{}</td>').format(look, head, _inner(value))


def _inner(value: object) -> Markup:
    match value:
        case Markup():
            return value
        case Flag(words, kind):
            return Markup('<span class="flag {}">{}</span>').format(kind, _text(words))
        case Code(words):
            return Markup("<code>{}</code>").format(_text(words))
        case Link(words, href):
            return Markup('<a href="{}">{}</a>').format(href, _text(words))
        case None:
            return Markup("–")
        case bool():
            return Markup("yes" if value else "no")
        case int() | float():
            return escape(number(value))
        case datetime():
            return escape(f"{value:%Y-%m-%d %H:%M}")
        case date():
            return escape(value.isoformat())
    return escape(_text(str(value)))


def seen(text: str) -> str:
    """A text without what hides or turns other characters: its escape stands there."""
    return "".join(c if c == "\n" or unicodedata.category(c) not in _HIDING else _escaped(c) for c in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _text(text: str) -> str:
    """Of much the first."""
    return seen(text) if len(text) <= _MOST else f"{seen(text[:_MOST])}…"


def number(value: float) -> str:
    """A figure for people: whole ones in full below 100,000, else three digits that count and k, M, B, T."""
    if not math.isfinite(value):
        return "–"
    if abs(value) < 1e5 and float(value).is_integer():
        return f"{value:,.0f}"
    for size, letter in _SIZES:
        if abs(value) >= 0.9995 * size and abs(value) >= 1e4:
            return f"{value / size:.3g}{letter}" if abs(value) < 999.5 * size else f"{value / size:,.0f}{letter}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def share(value: float | None, signed: bool = False) -> str:
    """A ratio as percents."""
    return "–" if value is None or not math.isfinite(value) else f"{value:{'+' if signed else ''}.1%}"
