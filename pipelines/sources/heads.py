"""What the first bytes of a text file tell: whether it is text at all, in which encoding, and what its first rows are.

A file that Spark would misread without a word is refused here, by name and with the way out. Only the beginning of a
file is read.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa

from pipelines.source_config import Source

HEAD = 1 << 16
LONGEST_LINE = 1 << 24
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
LINE = re.compile(r"\r\n|\n|\r")


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

    def lines(self, text: str) -> list[str]:
        return text.split(end) if (end := self.options.get("linesep")) else LINE.split(text)

    def cells(self, text: str) -> list[str]:
        """The cells of a row, quotes taken off."""
        quote, escape = self.options.get("quote", '"')[:1], self.options.get("escape", '"')[:1]
        found, cell, quoted, at = list[str](), list[str](), False, 0
        signs = re.compile("|".join(re.escape(sign) for sign in (self.sep, quote, escape) if sign))
        while sign := signs.search(text, at):
            cell += [text[at : sign.start()]] if sign.start() > at else []
            at = sign.start()
            if quoted and text[at] == escape and text[at + 1 : at + 2] in {quote, escape} - {""}:
                cell.append(text[at + 1])
                at += 2
            elif text[at] == quote and (quoted or not cell):
                quoted, at = not quoted, at + 1
            elif not quoted and text.startswith(self.sep, at):
                found.append("".join(cell))
                cell, at = [], at + len(self.sep)
            else:
                cell.append(text[at])
                at += 1
        cells = [*found, "".join(cell) + text[at:]]
        if self.is_true("ignoreleadingwhitespace"):
            cells = [cell.lstrip() for cell in cells]
        return [cell.rstrip() for cell in cells] if self.is_true("ignoretrailingwhitespace") else cells

    def open_quote(self, text: str) -> bool:
        """Whether a quoted value goes on after the end of the text."""
        return bool(quote := self.options.get("quote", '"')[:1]) and text.count(quote) % 2 == 1

    def rows(self, text: str) -> Iterator[tuple[int, str]]:
        """Rows that are neither blank nor a comment, each with the number of its first line."""
        comment, lines = self.options.get("comment", ""), self.lines(text)
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
    return io.BytesIO(zlib.decompress(file.read())) if lower.endswith(".deflate") else file


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
    try:
        content = unpacked(file, name)
        raw = content.read(HEAD)
        whole = not (more := content.read(1))
        raw += more
        while not whole and not LINE.search(raw.decode("latin-1")) and len(raw) < LONGEST_LINE:
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
