"""A TOML table becomes a settings class: every key known, every type right, every value within what its field says.

Texts that are used and not shown (addresses, options, properties) are a ``Text``: ``${NAME}`` in it is looked up in the
environment when it is used, and neither printed, stored nor hashed. All other texts are names that people read, and are
looked up when the file is read.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

from pipelines.errors import ConfigError, hide

_REFERENCE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{")
# A key whose value is never echoed, and one whose value may not stand in the file itself.
_PRIVATE = re.compile(r"pass|secret|token|key|credential|auth|account|sas", re.IGNORECASE)
_SECRET = re.compile(
    r"(password|passwd|pwd|secret|token|credentials?|(access|account|secret|private|api)[-_.]?key|authorization"
    r"|connection[-_.]string|passphrase)$|fs\.azure\.(account\.(key|oauth2\.client\.secret)|sas\.(?!token\.provider))",
    re.IGNORECASE,
)
_SECRET_WITHIN = re.compile(
    r"://[^/@\s:]*:(?!\$\{)[^/@\s]+@|jdbc:\w+:\w+:[^/@\s]+/(?!\$\{)[^/@\s]+@"
    r"|(\b(password|pwd|accountkey)|[?&;][\w-]*(password|token|secret|sig|signature))=(?!\$\{)[^&;\s]",
    re.IGNORECASE,
)
_TYPES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    date: "a day as 2024-01-31, without quotes",
    list: "a list",
    dict: "a table",
}


@dataclass(frozen=True)
class Text:
    """A text of pipeline.toml with its references to the environment. ``key`` is where it stands."""

    template: str
    key: str = field(default="", compare=False)

    def __str__(self) -> str:
        return self.template

    def __bool__(self) -> bool:
        return bool(self.template)

    def __post_init__(self) -> None:
        for reference in _REFERENCE.finditer(self.template):
            if reference[0] == "${":
                raise ConfigError(
                    f"{self.key}: expected ${{NAME}} of letters, digits and _; write $${{ for a plain ${{"
                )

    @property
    def refers(self) -> bool:
        """Whether the environment has a say."""
        return any(reference[1] for reference in _REFERENCE.finditer(self.template))

    def resolve(self, hidden: bool = True) -> str:
        """The text with the values of now; ``hidden``: they are not to be printed.

        Raises:
            ConfigError: a variable is not set, or would end the part of an address that it stands in.
        """

        def value(reference: re.Match[str]) -> str:
            if not reference[1]:
                return "${"
            found = os.environ.get(reference[1])
            if found is None:
                raise ConfigError(f"{self.key}: the environment variable {reference[1]} is not set")
            if hidden:
                hide(found, reference[0])
            before, after = self.template[: reference.start()], self.template[reference.end() :]
            # A part of it would be taken for the host, and told as one; of databases' addresses @ alone ends it.
            ends = "[@/?#]" if before.startswith("http") else "@"
            if re.search(r"://[^/@]*$", before) and "@" in after and re.search(ends, found):
                raise ConfigError(
                    f"{self.key}: {reference[0]} stands before the @ of an address, where its value must be encoded: "
                    "%40 for @, %2F for /, %3F for ?, %23 for #, and %25 for %"
                )
            return found

        return _REFERENCE.sub(value, self.template)


@dataclass(frozen=True)
class Keys:
    """The keys that a table may have: the ``known`` ones, any below a prefix; none that is ``refused``, with why."""

    known: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()

    def fault(self, table: dict[str, Any]) -> str:
        for key in table:
            for name, why in self.refused:
                if key == name:
                    return f'"{key}" {why}'
            if key not in self.known and not key.startswith(self.prefixes):
                return (
                    f'unknown key "{key}"; {nearest(key, (*self.known, *(f"{prefix}*" for prefix in self.prefixes)))}'
                )
        return ""


@dataclass(frozen=True)
class Entries:
    """How many entries a list may have."""

    least: int
    most: int

    def fault(self, entries: tuple[Any, ...]) -> str:
        held = self.least <= len(entries) <= self.most
        return "" if held else f"must have from {self.least} to {self.most} entries, found {len(entries)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint: the known name that is meant, else the known ones."""
    known = list(known)
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f'did you mean "{found[0]}"?' if found else f"known are {', '.join(known[:30])}"


def build(cls: Any, raw: Any, where: str = "", fixed: dict[str, Any] | None = None) -> Any:
    """Make the settings class ``cls`` from a TOML table; ``fixed`` are fields that do not stand in it.

    Raises:
        ConfigError: a key is unknown, missing or has moved; a value has the wrong type or is out of range; a secret
            stands in the file.
    """
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: expected a table, found {shown(where, raw)}")
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.name not in (fixed or {})}
    at = f"{where}: " if where else ""
    for key in raw:
        if key in getattr(cls, "MOVED", {}):
            raise ConfigError(f'{at}"{key}" is now {cls.MOVED[key]}; move it there')
        if key not in fields:
            raise ConfigError(f'{at}unknown key "{key}"; {nearest(key, fields)}')
    values = dict(fixed or {})
    for name, spec in fields.items():
        if name in raw:
            values[name] = _value(hints[name], raw[name], _inside(where, name, raw[name]))
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise ConfigError(f'{at}missing key "{name}"')
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(f"{at}{error}") from None


def _inside(where: str, name: str, raw: Any) -> str:
    """How a person finds a key: [dataset] buckets, [[source]] 1 (raw_day) columns."""
    if where:
        return f"{where} {name}"
    return f"[{name}]" if isinstance(raw, dict) else name


def _value(hint: Any, raw: Any, where: str) -> Any:
    """Convert one TOML value to the type that the field declares."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        value = _value(args[0], raw, where)
        for rule in args[1:]:
            if fault := rule.fault(value):
                found = "" if isinstance(value, dict | tuple) else f" = {shown(where, raw)}"
                raise ConfigError(f"{where}{found}: {fault}")
        return value
    if origin in (typing.Union, types.UnionType):
        return _value(next(a for a in args if a is not type(None)), raw, where)
    if hint is Text:
        return _text(_of_type(str, raw, where), where)
    if origin is Literal:
        value = Text(_of_type(str, raw, where), where).resolve(hidden=False)
        if value not in args:
            raise ConfigError(f"{where} = {shown(where, value)}: {nearest(value, args)}")
        return value
    if dataclasses.is_dataclass(hint):
        return build(hint, raw, where)
    if origin is tuple:
        items = _of_type(list, raw, where)
        if args[-1] is Ellipsis:
            return tuple(_value(args[0], item, _numbered(where, i, item)) for i, item in enumerate(items, 1))
        if len(items) != len(args):
            raise ConfigError(f"{where}: expected {len(args)} values, found {len(items)}")
        return tuple(_value(a, item, where) for a, item in zip(args, items, strict=True))
    if origin is dict:
        return {key: _value(args[1], item, f"{where} {key}") for key, item in _of_type(dict, raw, where).items()}
    value = _of_type(hint, raw, where)
    return Text(value, where).resolve(hidden=False) if hint is str else value


def _numbered(where: str, number: int, item: Any) -> str:
    """The place of an element: of a list of tables with the name that it has."""
    if not isinstance(item, dict):
        return f"{where} {number}"
    name = str(item.get("name"))
    return f"[[{where}]] {name if name.isidentifier() and len(name) <= 64 and 'name' in item else number}"


def _of_type(kind: type, raw: Any, where: str) -> Any:
    """The value, if it is of the type; a whole number is a number as well."""
    if type(raw) is int and not -(2**63) <= raw < 2**63:
        raise ConfigError(f"{where}: expected a number of 64 bits, found a longer one")
    if kind is float and type(raw) is int:
        raw = float(raw)
    if type(raw) is not kind:
        hint = "; a key with dots is written in quotes" if kind is str and isinstance(raw, dict) else ""
        raise ConfigError(f"{where}: expected {_TYPES[kind]}, found {shown(where, raw)}{hint}")
    return raw


def _text(raw: str, where: str) -> Text:
    secret = _SECRET.search(where) or _SECRET_WITHIN.search(raw)
    text = Text(raw, where)
    if secret and raw and not (text.refers and not _SECRET_WITHIN.search(raw)):
        raise ConfigError(
            f"{where}: a secret may not stand in pipeline.toml, which is kept with every training run; write "
            f"${{NAME}} and set NAME in the environment"
        )
    return text


def shown(where: str, value: Any) -> str:
    """A value for an error: nothing of a secret, and not more than a line of anything."""
    kind = next((word for kind, word in _TYPES.items() if type(value) is kind), f"a {type(value).__name__}")
    if isinstance(value, list | dict):
        return kind
    if _PRIVATE.search(where.split()[-1]) or (isinstance(value, str) and _SECRET_WITHIN.search(value)):
        return f"{kind} that is not shown"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
