"""Read tables that list recordings, and refuse faulty ones with the row and the column."""

import csv
import itertools
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Sized
from pathlib import Path, PureWindowsPath
from typing import Any

from doppel_ray.core import dotted_keys
from doppel_ray.core.errors import ConfigError

Row = dict[str, Any]

FORMATS = (".csv", ".tsv", ".parquet")
"""Endings of the tables that are read."""

MOST_CELLS = 50_000_000
"""Cells that a table may have, which bounds the memory that a damaged or compressed file can take."""

LONGEST_NUMBER = 18
"""Digits of the largest whole number in a label or fold."""

MISSING = frozenset(("nan", "<na>"))
"""What pandas writes for a missing value that was turned into text."""


def read_table(file: Path) -> tuple[list[str], list[Row]]:
    """Return the columns and rows of a CSV, TSV or Parquet file.

    CSV is UTF-8, or UTF-16 with a byte order mark, with any line ends. Its delimiter is the one of comma, semicolon and
    tab that the header has most of, or that of a first line such as `sep=;`. All cells are text. Of Parquet, columns
    of lists, structures and bytes are left out.

    Raises:
        ConfigError: there is no such file, it is none of these, it is too large, or a row does not fit the header.
    """
    if file.suffix.lower() not in FORMATS:
        raise ConfigError(f"{file}: expected a file that ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if not file.is_file():
        raise ConfigError(f"{file}: there is no such file")
    try:
        columns, rows = _parquet(file) if file.suffix.lower() == ".parquet" else _csv(file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}") from None
    if twice := [name for name, times in Counter(columns).items() if name and times > 1]:
        raise ConfigError(f"{file}: {count(twice, 'column')} named more than once in the header: {first(twice)}")
    return columns, rows


def _parquet(file: Path) -> tuple[list[str], list[Row]]:
    import pyarrow
    import pyarrow.parquet
    from pyarrow import types

    def plain(kind: Any) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return not (types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind))

    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            names = [field.name for field in opened.schema_arrow if plain(field.type)]
            _need_size(file, opened.metadata.num_rows * max(1, len(names)))
            table = opened.read(names)
        return table.column_names, table.to_pylist()
    except (OSError, ValueError, OverflowError, MemoryError, pyarrow.ArrowException) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{file} is not Parquet: {error}") from None


def _csv(file: Path) -> tuple[list[str], list[Row]]:
    with file.open("rb") as opened:
        is_utf16 = opened.read(2) in (b"\xff\xfe", b"\xfe\xff")
    with file.open(newline="", encoding="utf-16" if is_utf16 else "utf-8-sig") as opened:
        try:
            lines = _without_nul(file, opened)
            start = next(lines, "")
            delimiter = "\t" if file.suffix.lower() == ".tsv" else ""
            if start.lower().startswith("sep=") and len(start.strip("\r\n")) <= 5:
                delimiter, start = start[4:5].strip("\r\n") or "\t", next(lines, "")
            reader = csv.reader(itertools.chain([start], lines), delimiter=delimiter or _delimiter(start), strict=True)
            columns = [unicodedata.normalize("NFC", name.strip()) for name in next(reader, [])]
            return columns, _checked(file, columns, reader)
        except UnicodeError as error:
            raise ConfigError(f"{file} is not CSV in UTF-8: {error}; save it as CSV UTF-8") from None
        except csv.Error as error:
            at = reader.line_num
            raise ConfigError(f"{file} is not CSV: line {at}: {error}; is a quote open or unpaired there?") from None


def _checked(file: Path, columns: list[str], reader: Any) -> list[Row]:
    """Return the rows of a CSV file, and refuse those that do not fit the header."""
    rows: list[Row] = []
    for cells in reader:
        if not cells:  # an empty line
            continue
        where = f"{file}: row {len(rows) + 1} (line {reader.line_num})"
        if len(cells) != len(columns):
            raise ConfigError(
                f"{where} has {count(cells, 'cell')}, the header {len(columns)}: {first([repr(c) for c in cells], 5)}; "
                "a cell that holds the delimiter needs quotes, without a space before them"
            )
        for column, cell in zip(columns, cells, strict=True):
            if cell[:1].isspace() and cell.lstrip().startswith('"'):
                raise ConfigError(f"{where}, column {column}: a space before the quote in {cell!r}; remove it")
        rows.append(dict(zip(columns, cells, strict=True)))
        _need_size(file, len(rows) * len(columns))
    return rows


def _without_nul(file: Path, lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if "\0" in line:
            raise ConfigError(f"{file} is not CSV: line {number} has a zero byte")
        yield line


def _delimiter(header: str) -> str:
    """Return the delimiter that a header has most of; the comma, if it has none."""
    return max(",;\t", key=header.count)


def _need_size(file: Path, cells: int) -> None:
    if cells > MOST_CELLS:
        raise ConfigError(f"{file}: more than {MOST_CELLS:,} cells; split the table, or leave out columns")


def text(value: Any) -> str:
    """Return a cell of a table as text, "" for an empty one or NaN."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value).strip()


def read_cell(file: Path, number: int, row: Row, column: str, required: bool = True) -> str:
    """Return a cell as text in Unicode's composed form (NFC).

    Args:
        file: the table.
        number: of the row, from 1.
        row: its cells.
        column: the cell's column.
        required: refuse an empty cell.

    Raises:
        ConfigError: names the row and the column.
    """
    found = unicodedata.normalize("NFC", text(row[column]))
    if required and not found:
        others = next((shown for name, cell in row.items() if name != column and (shown := text(cell))), "")
        raise ConfigError(f"{file}: row {number} ({others[:80]}) has no {column}")
    if found.lower() in MISSING:
        raise ConfigError(
            f"{file}: row {number}: {column} is {found!r}, a missing value; name it, or leave out the row"
        )
    if any(unicodedata.category(character) == "Cc" for character in found):
        raise ConfigError(
            f"{file}: row {number}: {column} is {found[:80]!r}, with a line break or another control character; "
            "is a quote open?"
        )
    return found


def read_path(file: Path, number: int, row: Row, column: str) -> str:
    r"""Return the path in a cell, with `/` in place of Windows's `\`, and spelt as the file on the disk is.

    Accents are one character or two (Unicode's NFC and NFD): archives made on macOS have the latter.

    Raises:
        ConfigError: the cell is empty, or no path of this machine.
    """
    read_cell(file, number, row, column)
    found = on_disk(file.parent, text(row[column]))
    if PureWindowsPath(found).drive and not os.path.exists(file.parent / found):
        raise ConfigError(
            f"{file}: row {number}: {column} is {found!r}, a path of Windows; expected one relative to the table"
        )
    return found


def on_disk(folder: Path, name: str) -> str:
    """Return a path relative to a folder as the disk spells it, or as it is given if there is no such file."""
    name = os.path.expanduser(name)
    if name.isascii() and "\\" not in name:
        return name
    spellings = [name, *(unicodedata.normalize(form, name.replace("\\", "/")) for form in ("NFC", "NFD"))]
    return next((spelt for spelt in spellings if os.path.exists(folder / spelt)), name.replace("\\", "/"))


def need_each_once(file: Path, paths: Iterable[str]) -> None:
    """Refuse a table of which two rows are about one file."""
    row: dict[str, int] = {}
    for number, path in enumerate(paths, start=1):
        if (before := row.setdefault(os.path.normpath(file.parent / path), number)) != number:
            raise ConfigError(f"{file}: 1 file listed more than once: row {number} is about {path}, as row {before} is")


def in_order(labels: Iterable[str]) -> list[str]:
    """Sort the labels that occur: numbers by value, names alphabetically."""
    names = set(labels)
    numeric = all(is_number(name) for name in names)
    return sorted(names, key=lambda name: (int(name), name) if numeric else (0, name))


def is_number(name: str) -> bool:
    """Return whether a name is a whole number of at most `LONGEST_NUMBER` digits."""
    return name.isdecimal() and len(name) <= LONGEST_NUMBER


def need_folder(root: Path, expected: str) -> None:
    """Refuse a folder that does not exist."""
    if not root.is_dir():
        raise ConfigError(f"{root}: there is no such folder; expected {expected}")


def need_columns(table: Path, columns: Sequence[str], needed: Iterable[str]) -> None:
    """Refuse a table that lacks one of the columns needed."""
    if missing := [name for name in needed if not name or name not in columns]:
        raise ConfigError(f"{table}: no column {', '.join(missing)}; it has {', '.join(columns)}")


def need_known(labels: Iterable[str], classes: Sequence[str], where: Path) -> None:
    """Refuse labels that are not among the classes."""
    known = set(classes)
    if unknown := Counter(label for label in labels if label not in known):
        shown = ", ".join(f"{label!r} ({times})" for label, times in unknown.most_common(3))
        raise ConfigError(
            f"{where}: {count(unknown, 'label')} not among the {len(classes)} classes: {shown}"
            f"{dotted_keys.suggestion(next(iter(unknown)), classes)}"
        )


def count(what: Sized, noun: str) -> str:
    """Return a count with its noun, such as `3 files`."""
    return f"{len(what)} {noun}{'s' if len(what) != 1 else ''}"


def first(names: Sequence[str], at_most: int = 3) -> str:
    """Return the first few names, with dots if there are more."""
    return ", ".join(names[:at_most]) + (", ..." if len(names) > at_most else "")
