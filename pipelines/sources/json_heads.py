"""The names of the fields at the beginning of a JSON file, and rows in it that Spark would pass over."""

from __future__ import annotations

import json
from typing import Any

from pipelines.sources.heads import LINE, Dialect, Head, UnusableError

# Options by which Spark reads what Python does not.
_LENIENT = {"allowcomments", "allowunquotedfieldnames", "allownumericleadingzeros", "allowunquotedcontrolchars"}
_ONE_LINE = "holds several objects in one line, of which Spark reads the first alone; write each in a line of its own"


def json_fields(head: Head, dialect: Dialect) -> tuple[list[tuple[str, ...]], bool]:
    """The fields at the beginning of a JSON file, those within objects as ``("metrics", "clicks")``; all of it?

    Raises:
        UnusableError: it holds rows that Spark would pass over, or is no JSON.
    """
    try:
        rows = _json_rows(head, dialect)
    except RecursionError:
        raise UnusableError("holds lists or objects that lie too deep in each other") from None
    if not rows and not head.whole and head.text.lstrip()[:1] == "{":
        return [(key,) for key in _keys_of(head.text.strip())], True  # one object, longer than any row
    found: dict[tuple[str, ...], None] = {}
    for row in rows:
        _collect(row, (), found)
    return list(found), head.whole


def _collect(value: dict[str, Any], above: tuple[str, ...], found: dict[tuple[str, ...], None]) -> None:
    for name, inner in value.items():
        found[*above, name] = None
        if isinstance(inner, dict):
            _collect(inner, (*above, name), found)


def _keys_of(text: str) -> list[str]:
    """The keys of an object that is cut off."""
    decoder, keys, at = json.JSONDecoder(), list[str](), 1
    try:
        while True:
            at += len(text[at:]) - len(text[at:].lstrip(" \t\r\n,"))
            key, at = decoder.raw_decode(text, at)
            keys.append(str(key))
            at = text.index(":", at) + 1
            at += len(text[at:]) - len(text[at:].lstrip())
            _, at = decoder.raw_decode(text, at)
    except ValueError:
        return keys


def _json_rows(head: Head, dialect: Dialect) -> list[dict[str, Any]]:
    """The objects at the beginning of a JSON file.

    Raises:
        UnusableError: rows that Spark would pass over, or cannot tell apart.
    """
    text = head.text.strip()
    if not text:
        return []
    if text[0] not in "{[":
        raise UnusableError(f"does not begin like JSON: {text[:60]}")
    decoder, found = json.JSONDecoder(), list[dict[str, Any]]()
    if dialect.is_true("multiline"):
        value, rest = _first_value(decoder, text, head.whole)
        if rest[:1] in ("{", "["):
            raise UnusableError(
                "holds more than one object, and with multiLine Spark reads the first alone; take multiLine out"
            )
        return _objects(value)
    lines = [line for line in LINE.split(text) if line.strip()]
    for place, line in enumerate(lines):
        if place == len(lines) - 1 and not head.whole:
            value, rest = _first_value(decoder, line.strip(), whole=False)
            if rest[:1] in ("{", "["):
                raise UnusableError(_ONE_LINE)
            if not place:
                found += _objects(value)
            break
        try:
            value, end = decoder.raw_decode(line.strip())
        except ValueError:
            if place == 0 and _goes_on(decoder, text, line.strip(), head.whole):
                raise UnusableError('has rows of several lines; write options = { multiLine = "true" }') from None
            if place == 0 and not dialect.options.keys() & _LENIENT:
                raise UnusableError(f"has a first line that is no JSON: {line.strip()[:60]}") from None
            break  # Spark stops there, and it is named then
        if line.strip()[end:].strip()[:1] in ("{", "["):
            raise UnusableError(_ONE_LINE)
        found += _objects(value)
    return found


def _goes_on(decoder: json.JSONDecoder, text: str, line: str, whole: bool) -> bool:
    """Whether the value that the first line begins ends in a later one."""
    try:
        decoder.raw_decode(text)
    except ValueError:
        return not whole and line in ("[", "{", "[{")
    return True


def _first_value(decoder: json.JSONDecoder, text: str, whole: bool) -> tuple[Any, str]:
    """The first JSON value of a text and what follows it; of a list that is cut off, the elements that are whole."""
    try:
        value, end = decoder.raw_decode(text)
        return value, text[end:].strip()
    except ValueError:
        if whole or text[0] != "[":
            return None, ""
    items, at = list[Any](), 1
    while True:
        at += len(text[at:]) - len(text[at:].lstrip(" \t\r\n,"))
        try:
            item, at = decoder.raw_decode(text, at)
        except ValueError:
            return items, ""
        items.append(item)


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]
