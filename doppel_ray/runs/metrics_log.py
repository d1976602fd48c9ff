"""What a trial writes down as it goes, as it lies in its folder: files of JSON lines."""

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)

Row = dict[str, Any]
ROWS = "rows.jsonl"
"""The rows that a trial has sent, a line of JSON each."""
STEPS = "steps.jsonl"
"""Points of the curves by step, and before those of each life of the train worker `{"goes_on_from": step}`."""
POPULATION = "search/"
"""How the columns of a row begin that say which values were in force, where they change while a trial runs."""
EARLY = "early"
"""In what is reported with a checkpoint within an epoch, which makes no row: why it was made."""
RESIZE = "resize"
"""In what is reported with an epoch's checkpoint after which training goes on with more workers: with how many."""
AXES = ("epoch", "step", "pairs", "pairs_from")
"""Columns of a row that say when, not what. A row's means are of the pairs from `pairs_from` on: those of the epoch, or
of what was left of it when training went on from a checkpoint within it."""


def best(rows: Iterable[Row], metric: str, mode: str) -> Row | None:
    """Return the row that is best by `metric`, of equals the first; None if no row has it."""
    having = [row for row in rows if number(row.get(metric)) is not None]
    return (max if mode == "max" else min)(having, key=lambda row: row[metric], default=None)


def read_rows(folder: Path) -> list[Row]:
    """The rows that a trial has sent, oldest first; a line that was cut short by a crash is left out."""
    rows, damaged = valid_rows(folder)
    if damaged:
        log.warning("%s: %d damaged %s left out", folder / ROWS, damaged, "line" if damaged == 1 else "lines")
    return rows


def valid_rows(folder: Path) -> tuple[list[Row], int]:
    """The rows that a trial has sent, oldest first, and how many lines are damaged and left out."""
    file = folder / ROWS
    rows, damaged = [], 0
    for line in file.read_text(errors="replace").splitlines() if file.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            damaged += 1
    return rows, damaged


def append_row(folder: Path, row: Row) -> None:
    """Write down a row that a trial has sent, on a line of its own, also after one that was cut short."""
    with (folder / ROWS).open("ab+") as file:
        end = file.seek(0, 2)
        file.seek(max(0, end - 1))
        cut = b"" if file.read() in (b"", b"\n") else b"\n"
        file.write(cut + json.dumps(row).encode() + b"\n")


def number(value: Any) -> float | None:
    """A finite number of a row, or None: rows may hold anything."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def checkpoint_of(folder: Path, row: Row) -> Path | None:
    """A row's checkpoint, wherever the trial's folder lies by now; None: it has none, or none any more (train.keep).

    Args:
        folder: the trial's.
        row: names the checkpoint as it was when the row was sent.

    Returns:
        Its folder, as an absolute path: tables are read from elsewhere.
    """
    told = checkpoint_name(row)
    path = folder.absolute() / told
    return path if told and path.is_dir() else None


def checkpoint_name(row: Row) -> str:
    """A row's checkpoint within the trial's folder, `checkpoints/epoch_0003`, kept or not; empty if it had none."""
    told = row.get("checkpoint")
    return "/".join(Path(told).parts[-2:]) if isinstance(told, str) else ""


def numbers(row: Row) -> dict[str, float]:
    """A row's finite numbers that say what, not when; those within a mapping under `name/key`."""
    return {name: value for name, value in _numbers(row) if name not in AXES}


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and math.isfinite(value):
            yield f"{prefix}{name}", float(value)


class JsonlFollower:
    """The lines of a file of JSON lines that another process writes, as they come.

    Args:
        file: it need not exist yet.
        at_end: leave out what it holds already.
    """

    def __init__(self, file: Path, at_end: bool = False) -> None:
        self.file = file
        self.read = file.stat().st_size if at_end and file.exists() else 0
        """Bytes that have been taken up."""

    def take(self) -> list[dict[str, Any]]:
        """The lines that are new and whole."""
        if not self.file.exists():
            return []
        with self.file.open("rb") as lines:
            lines.seek(self.read)
            fresh, newline, _ = lines.read().rpartition(b"\n")
        self.read += len(fresh) + len(newline)
        return [json.loads(line) for line in fresh.splitlines()]


def waits_for(row: dict[str, Any]) -> str:
    """Whether the generators or the trainer set the pace of an epoch."""
    return "generators" if row.get("wait_share", 0.0) > 0.1 else "trainer"


def bound(row: dict[str, Any]) -> str:
    """`312 pairs/s, trainer-bound (waited for data 2 % of the time)`."""
    share = f"waited for data {100 * row['wait_share']:.0f} % of the time"
    return f"{row['pairs_per_second']:.0f} pairs/s, {waits_for(row).removesuffix('s')}-bound ({share})"
