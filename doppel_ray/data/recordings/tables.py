"""Read tables that list recordings, and refuse faulty ones."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence, Sized
from pathlib import Path
from typing import Any

from doppel_ray.core import dotted_keys
from doppel_ray.core.errors import ConfigError


def read_table(file: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the columns and rows of a CSV or Parquet file.

    Raises:
        ConfigError: there is no such file, or it is neither.
    """
    if file.suffix.lower() not in (".csv", ".parquet"):
        raise ConfigError(f"{file}: expected a file that ends in .csv or .parquet")
    if not file.is_file():
        raise ConfigError(f"{file}: there is no such file")
    if file.suffix.lower() == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.read_table(file)
        except (OSError, pyarrow.ArrowException) as error:
            raise ConfigError(f"{file} is not Parquet: {error}") from None
        return table.column_names, table.to_pylist()
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            return list(reader.fieldnames or ()), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{file} is not CSV in UTF-8: {error}") from None


def text(value: Any) -> str:
    """Return a cell of a table as text, "" for an empty one."""
    return "" if value is None else str(value).strip()


def in_order(labels: Iterable[str]) -> list[str]:
    """Sort the labels that occur: numbers by value, names alphabetically."""
    names = set(labels)
    numeric = all(name.isdecimal() for name in names)
    return sorted(names, key=lambda name: (int(name), name) if numeric else (0, name))


def need_folder(root: Path, expected: str) -> None:
    """Refuse a folder that does not exist."""
    if not root.is_dir():
        raise ConfigError(f"{root}: there is no such folder; expected {expected}")


def need_columns(table: Path, columns: Sequence[str], needed: Iterable[str]) -> None:
    """Refuse a table that lacks one of the columns needed."""
    if missing := [name for name in needed if name not in columns]:
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
