"""The cells of a CSV file's header, and the lines of titles above it."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.source_config import SOURCE_COLUMNS as OURS
from pipelines.sources.heads import Dialect, Head, UnusableError

TITLES = 20  # lines above a header that are looked through for it


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
    alone = {name for name, same in by_lower.items() if len(same) == 1} - OURS
    return [name if name.lower() in alone else f"{name}#{i}" for i, name in enumerate(names)]


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
