"""The JSON-lines files that a trial writes while it runs: its rows and its curves by step."""

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

Row = dict[str, Any]
ROWS = "rows.jsonl"
"""A trial's rows, one for each checkpoint that it reported."""
STEPS = "steps.jsonl"
"""Points of the curves by step. Each start of the train worker writes `{"goes_on_from": step}` before its points."""
POPULATION = "search/"
"""Prefix of the columns with the searched values in force, where population-based training changes them."""
EARLY = "early"
"""Metric key: reason for a mid-epoch checkpoint, which makes no row."""
RESIZE = "resize"
"""Metric key: worker count to resume with after this checkpoint."""
AXES = ("epoch", "step", "pairs", "pairs_from")
"""Columns that locate a row. Its means are over the pairs from `pairs_from` on: those of the epoch, or of its rest
after a mid-epoch checkpoint."""


def best(rows: Iterable[Row], metric: str, mode: str) -> Row | None:
    """Return the row that is best by `metric`, the first of equals; None if no row has it."""
    having = [row for row in rows if number(row.get(metric)) is not None]
    return (max if mode == "max" else min)(having, key=lambda row: row[metric], default=None)


def read_rows(folder: Path) -> list[Row]:
    """Return a trial's rows, oldest first, without lines that a crash cut short; log how many these are."""
    rows, damaged = valid_rows(folder)
    if damaged:
        log.warning("%s: %d damaged %s left out", folder / ROWS, damaged, "line" if damaged == 1 else "lines")
    return rows


def valid_rows(folder: Path) -> tuple[list[Row], int]:
    """Return a trial's rows, oldest first, and the number of damaged lines left out."""
    file = folder / ROWS
    return parse_lines(file.read_bytes()) if file.exists() else ([], 0)


def parse_lines(text: bytes) -> tuple[list[dict[str, Any]], int]:
    """Return the mappings in lines of JSON, and the number of lines that hold none."""
    found, damaged = [], 0
    for line in text.splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            values = None
        if isinstance(values, dict):
            found.append(values)
        else:
            damaged += 1
    return found, damaged


def append_row(folder: Path, row: Row) -> None:
    """Append a row to a trial's rows."""
    append_line(folder / ROWS, row)


def append_line(file: Path, values: Mapping[str, Any]) -> None:
    """Append values as JSON on a new line, also where a crash cut the last line short."""
    with file.open("ab+") as out:
        end = out.seek(0, 2)
        out.seek(max(0, end - 1))
        cut = b"" if out.read() in (b"", b"\n") else b"\n"
        out.write(cut + json.dumps(values).encode() + b"\n")


def number(value: Any) -> float | None:
    """Return a row's value if it is a finite number, else None: rows may hold anything."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def checkpoint_of(folder: Path, row: Row) -> Path | None:
    """Return a row's checkpoint; None if it has none, or it was deleted (train.keep).

    Args:
        folder: of the trial, which may have moved since.
        row: names the checkpoint where it was written.

    Returns:
        The checkpoint's folder as an absolute path: tables are read from elsewhere.
    """
    name = checkpoint_name(row)
    path = folder.absolute() / name
    return path if name and path.is_dir() else None


def checkpoint_name(row: Row) -> str:
    """Return a row's checkpoint within the trial's folder, `checkpoints/epoch_0003`, deleted or not; empty if none."""
    path = row.get("checkpoint")
    return "/".join(Path(path).parts[-2:]) if isinstance(path, str) else ""


def numbers(row: Row) -> dict[str, float]:
    """Return a row's finite numbers but those that locate it; numbers within a mapping as `name/key`."""
    return {name: value for name, value in _numbers(row) if name not in AXES}


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and math.isfinite(value):
            yield f"{prefix}{name}", float(value)


class JsonlFollower:
    """Reads the lines that another process appends to a file of JSON lines.

    Args:
        file: may not exist yet.
        at_end: skip the present content.
    """

    def __init__(self, file: Path, at_end: bool = False) -> None:
        self.file = file
        self.offset = file.stat().st_size if at_end and file.exists() else 0
        """Bytes read so far."""

    def take(self) -> list[dict[str, Any]]:
        """Return the new, complete lines, without those that a crash cut short; log how many these are."""
        if not self.file.exists():
            return []
        with self.file.open("rb") as lines:
            lines.seek(self.offset)
            fresh, newline, _ = lines.read().rpartition(b"\n")
        self.offset += len(fresh) + len(newline)
        found, damaged = parse_lines(fresh)
        if damaged:
            log.warning("%s: %d damaged %s left out", self.file, damaged, "line" if damaged == 1 else "lines")
        return found


def bottleneck(row: Row) -> str:
    """Return what limited the speed of an epoch: `generators` or `trainer`."""
    return "generators" if row.get("wait_share", 0.0) > 0.1 else "trainer"


def format_speed(row: Row) -> str:
    """Return `312 pairs/s, trainer-bound (waited for data 2 % of the time)`."""
    share = f"waited for data {100 * row['wait_share']:.0f} % of the time"
    return f"{row['pairs_per_second']:.0f} pairs/s, {bottleneck(row).removesuffix('s')}-bound ({share})"
