"""What the first bytes of a text file tell: whether it is text at all, the cells of its header, the fields of its JSON.

A file that Spark would misread without a word is refused here, by name and with the way out. Only the beginning of a
file is read.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa

from pipelines.config import Source

HEAD = 1 << 16
LONGEST_LINE = 1 << 24
TITLES = 20  # lines above a header that are looked through for it
# (first bytes, what begins so, the end of its name by which Spark unpacks it)
_MARKS = (
    (b"\x1f\x8b", "gzip", ".gz"),
    (b"BZh", "bzip2", ".bz2"),
    (b"\x28\xb5\x2f\xfd", "zstd", ".zst"),
    (b"\xfd7zXZ\x00", "xz", ""),
    (b"\x04\x22\x4d\x18", "lz4", ""),
    (b"\xff\x06\x00\x00sNaPpY", "snappy", ""),
    (b"7z\xbc\xaf\x27\x1c", "7z", ""),
    (b"PK\x03\x04", "zip", ""),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", ""),
    (b"PAR1", "Parquet", ""),
    (b"ORC", "ORC", ""),
    (b"Obj\x01", "Avro", ""),
    (b"ARROW1", "Arrow IPC", ""),
    (b"%PDF", "PDF", ""),
    (b"SQLite format 3", "an SQLite database", ""),
)
UNPACKED = (".gz", ".bz2", ".zst", ".deflate")  # what Spark unpacks by the end of the name
_NOT_UNPACKED = f"which Spark does not unpack; deliver it plain, or as {', '.join(UNPACKED)}"
_PACKED = (*UNPACKED, ".xz", ".zip", ".lz4", ".snappy", ".7z", ".br", ".lzo", ".z", ".rar", ".tar", ".tgz")
_BOMS = ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"))
_LINE = re.compile(r"\r\n|\n|\r")


class UnusableError(Exception):
    """Why a file cannot be read as its source says, and the way out."""


def kind_of(raw: bytes) -> str:
    """What a file is by its first bytes; empty for what may be text."""
    if raw[:4] == b"PK\x03\x04" and (b"[Content_Types].xml" in raw or b"xl/" in raw):
        return "an Excel workbook"
    if raw[257:262] == b"ustar":
        return "tar"
    return next((kind for mark, kind, _ in _MARKS if raw.startswith(mark)), "")


@dataclass(frozen=True)
class Dialect:
    """How a source's text is written, as Spark's options say it."""

    options: dict[str, str]

    @classmethod
    def of(cls, source: Source) -> Dialect:
        return cls({key.lower(): value for key, value in source.options_now().items()})

    def is_true(self, name: str) -> bool:
        return self.options.get(name, "false").lower() == "true"

    @property
    def sep(self) -> str:
        given = self.options.get("sep", self.options.get("delimiter", ","))
        return {"\\t": "\t"}.get(given, given)

    @property
    def encoding(self) -> str:
        return self.options.get("encoding", self.options.get("charset", "UTF-8"))

    @property
    def wide(self) -> bool:
        """Whether a character has more bytes than one, so that lines cannot be split by a byte."""
        return self.encoding.upper().startswith(("UTF-16", "UTF-32", "UTF16", "UTF32"))

    def cells(self, text: str) -> list[str]:
        """The cells of a row, quotes taken off."""
        quote, escape = self.options.get("quote", '"')[:1], self.options.get("escape", '"')[:1]
        found, cell, quoted, at = list[str](), "", False, 0
        while at < len(text):
            if quoted and text[at] == escape and text[at + 1 : at + 2] in {quote, escape} - {""}:
                cell, at = cell + text[at + 1], at + 2
            elif text[at] == quote and (quoted or not cell):
                quoted, at = not quoted, at + 1
            elif not quoted and text.startswith(self.sep, at):
                found.append(cell)
                cell, at = "", at + len(self.sep)
            else:
                cell, at = cell + text[at], at + 1
        cells = [*found, cell]
        if self.is_true("ignoreleadingwhitespace"):
            cells = [cell.lstrip() for cell in cells]
        return [cell.rstrip() for cell in cells] if self.is_true("ignoretrailingwhitespace") else cells

    def open_quote(self, text: str) -> bool:
        """Whether a quoted value goes on after the end of the text."""
        return bool(quote := self.options.get("quote", '"')[:1]) and text.count(quote) % 2 == 1

    def rows(self, text: str) -> Iterator[tuple[int, str]]:
        """Rows that are neither blank nor a comment, each with the number of its first line."""
        comment, lines = self.options.get("comment", ""), _LINE.split(text)
        number = 0
        while number < len(lines):
            row, begin = lines[number], number + 1
            number += 1
            while self.is_true("multiline") and self.open_quote(row) and number < len(lines):
                row, number = f"{row}\n{lines[number]}", number + 1
            if row.strip() and not (comment and row.startswith(comment)):
                yield begin, row


@dataclass(frozen=True)
class Head:
    """The beginning of a text file. ``whole``: it is all of it."""

    text: str
    whole: bool


def unpacked(file: BinaryIO, name: str) -> Any:
    """A file's content as Spark unpacks it, by the end of its name."""
    lower = name.lower()
    if lower.endswith(".gz"):
        return gzip.GzipFile(fileobj=file)
    if lower.endswith(".bz2"):
        return bz2.BZ2File(file)
    if lower.endswith(".zst"):
        return pa.CompressedInputStream(file, "zstd")
    return io.BytesIO(zlib.decompressobj().decompress(file.read(HEAD))) if lower.endswith(".deflate") else file


def text_head(file: BinaryIO, name: str, dialect: Dialect) -> Head:
    """The first lines of a file, at least one of them whole.

    Raises:
        UnusableError: it is no text, or not in the encoding that the source says.
    """
    raw = file.read(HEAD)
    kind, lower = kind_of(raw), name.lower()
    ending = next((end for mark, what, end in _MARKS if what == kind), "")
    packed = next((end for end in _PACKED if lower.endswith(end)), "")
    if kind and not (ending and lower.endswith(ending)):
        raise UnusableError(_way_out(kind, ending))
    if packed and packed not in UNPACKED:
        raise UnusableError(
            f"ends in {packed}, which Spark does not unpack; deliver it plain, or as {', '.join(UNPACKED)}"
        )
    if packed and packed != ".deflate" and not kind and raw:
        raise UnusableError(f"ends in {packed}, and is not packed so; take the ending off its name")
    file.seek(0)
    content = unpacked(file, name)
    try:
        raw = content.read(HEAD)
        whole = not (more := content.read(1))
        raw += more
        while not whole and not _LINE.search(raw.decode("latin-1")) and len(raw) < LONGEST_LINE:
            raw, whole = raw + (more := content.read(len(raw))), not more
    except (OSError, EOFError, zlib.error) as error:
        raise UnusableError(f"cannot be unpacked: {error}") from None
    if packed and (kind := kind_of(raw)):
        raise UnusableError(_way_out(kind, ""))
    return Head(_decoded(raw, dialect, whole), whole)


def _way_out(kind: str, ending: str) -> str:
    if ending:
        return f"is {kind}, and its name does not end in {ending}, by which Spark unpacks it; rename it"
    if kind in ("Parquet", "ORC"):
        return f'is {kind}; write format = "{kind.lower()}"'
    if kind.startswith(("xz", "lz4", "snappy", "zip", "7z", "tar")):
        return f"is {kind}, {_NOT_UNPACKED}"
    return f"is {kind}, and no text; deliver it as CSV, JSON, Parquet or ORC"


def _decoded(raw: bytes, dialect: Dialect, whole: bool) -> str:
    bom = next((name for mark, name in _BOMS if raw.startswith(mark)), "")
    zeros = raw.count(0)
    if not dialect.wide:
        if bom or zeros > len(raw) // 4:
            encoding = bom or ("UTF-16LE" if raw[1:2] == b"\0" else "UTF-16BE")
            text = raw.decode(encoding, "replace")
            sep = next((f', sep = "{sign}"' for sign in ("\\t", ";") if sign.replace("\\t", "\t") in text[:1000]), "")
            raise UnusableError(f'is {encoding}; write options = {{ encoding = "{encoding}"{sep} }}')
        if zeros:
            raise UnusableError(f"is no text: it holds {zeros} zero bytes")
    elif raw and not bom and not zeros:
        raise UnusableError(f"is not {dialect.encoding}; take the option encoding out")
    if raw.startswith(codecs.BOM_UTF8):
        raw = raw[3:]
    try:
        text = codecs.getincrementaldecoder(dialect.encoding)().decode(raw, whole)
    except LookupError:
        text = raw.decode("latin-1")  # a charset that Java alone knows
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        around = " ".join(raw[max(0, error.start - 20) : error.end + 20].decode("latin-1").splitlines())
        raise UnusableError(
            f'is not {dialect.encoding}: byte 0x{raw[error.start]:02X} in line {line}, near "{around}"; write '
            'options = { encoding = "windows-1252" }, or what it is'
        ) from None
    text = text.removeprefix("\ufeff")
    if re.match(r"\s*<(!doctype|html|\?xml|body|error)", text, re.IGNORECASE):
        raise UnusableError(f"is HTML or XML, the page of an error perhaps: {text.strip()[:60]}")
    return text


def csv_names(head: Head, dialect: Dialect, columns: Sequence[str], skip_lines: int = 0) -> list[str]:
    """The names of a CSV file's columns: its header, or ``_c0``, ``_c1``, ... as Spark counts them.

    Raises:
        UnusableError: there is none of the declared columns, and why; or a name is there twice.
    """
    rows = list(dialect.rows(head.text))[skip_lines:]
    cells = dialect.cells(rows[0][1]) if rows else []
    if not dialect.is_true("header"):
        if cells and set(columns) <= set(cells):
            raise UnusableError('has the names in its first line; write options = { header = "true" }')
        return [f"_c{i}" for i in range(len(cells))]
    if not rows:
        raise UnusableError("is empty, 0 bytes" if not head.text else "has no header: only blank lines")
    names = [cell if cell else f"_c{i}" for i, cell in enumerate(cells)]
    missing = [name for name in columns if name not in names]
    if 2 * len(missing) > len(columns):
        _explain_header(head, dialect, columns, rows)
    by_lower: dict[str, list[str]] = {}
    for name in names:
        by_lower.setdefault(name.lower(), []).append(name)
    for twice in by_lower.values():
        if len(twice) > 1 and set(twice) & set(columns):
            raise UnusableError(f'has the column "{twice[0]}" {len(twice)} times: {", ".join(twice)}')
    return [name if len(by_lower[name.lower()]) == 1 else f"{name}#{i}" for i, name in enumerate(names)]


def _explain_header(head: Head, dialect: Dialect, columns: Sequence[str], rows: list[tuple[int, str]]) -> None:
    wanted = set(columns)
    first = rows[0][1]
    if first.lstrip().startswith(("{", "[{")):
        raise UnusableError('begins like JSON; write format = "json"')
    for sep in (",", ";", "\t", "|"):
        other = Dialect(dialect.options | {"sep": sep})
        if sep != dialect.sep and 2 * len(wanted & set(other.cells(first))) > len(wanted):
            shown_sep = sep.replace("\t", "\\t")
            raise UnusableError(f'has its cells apart by "{shown_sep}"; write options = {{ sep = "{shown_sep}" }}')
    for place, (number, row) in enumerate(rows[1 : TITLES + 1], 1):
        if 2 * len(wanted & set(dialect.cells(row))) > len(wanted):
            raise UnusableError(
                f"has its header in line {number}, below {place} of titles: {first[:60]}; write skip_lines = {place}"
            )


def titles(head: Head, dialect: Dialect, skip_lines: int) -> tuple[str, ...]:
    """Rows above the data that Spark would read as data: all but the first line, which it takes for the header."""
    if not skip_lines:
        return ()
    rows = [row for _, row in dialect.rows(head.text)][: skip_lines + dialect.is_true("header")]
    above = rows[1:] if dialect.is_true("header") else rows
    return tuple({text for row in above for text in (row, dialect.sep.join(dialect.cells(row)))})


def json_fields(head: Head, dialect: Dialect) -> tuple[list[str], bool]:
    """The names of the fields at the beginning of a JSON file, those within objects as ``metrics.clicks``, and whether
    that is all of it.

    Raises:
        UnusableError: it holds rows that Spark would pass over, or is no JSON.
    """
    rows = _json_rows(head, dialect)
    if not rows and not head.whole and head.text.lstrip()[:1] == "{":
        return _keys_of(head.text.strip()), True  # one object, longer than any row
    found: dict[str, None] = {}
    for row in rows:
        _collect(row, "", found)
    return list(found), head.whole


def _collect(value: dict[str, Any], above: str, found: dict[str, None]) -> None:
    for name, inner in value.items():
        found[above + name] = None
        if isinstance(inner, dict):
            _collect(inner, f"{above}{name}.", found)


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
    lines = [line for line in _LINE.split(text) if line.strip()]
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
            break  # Spark stops there, and it is named then
        if line.strip()[end:].strip()[:1] in ("{", "["):
            raise UnusableError(_ONE_LINE)
        found += _objects(value)
    return found


_ONE_LINE = "holds several objects in one line, of which Spark reads the first alone; write each in a line of its own"


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
