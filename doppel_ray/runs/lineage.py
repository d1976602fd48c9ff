"""Where a trial's training comes from: population-based training lets it go on from another trial's checkpoint.

Each time it does, Ray Train begins a run of its own in the trial's folder (`checkpoints`, then `checkpoints_1`, ...),
and `lineage.json` there says what from. The rows of epochs that are not part of the new past are put aside.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from doppel_ray.core import files
from doppel_ray.models import checkpoint
from doppel_ray.runs.metrics_log import ROWS, read_rows

LINEAGE = "lineage.json"


@dataclass(frozen=True)
class Fork:
    """A change of course.

    Attributes:
        source: checkpoint that training went on from.
        epoch: epochs it had done.
        values: what the search gave the trial from there on.
    """

    source: str
    epoch: int
    values: dict[str, Any]


def forks(folder: Path) -> list[Fork]:
    """Every change of course of a trial, oldest first; their sources where the run's folder lies by now.

    Args:
        folder: the trial's.
    """
    file = folder / LINEAGE
    told = json.loads(file.read_text()) if file.exists() else []
    return [
        Fork(**entry | {"source": str(folder.parent.joinpath(*Path(entry["source"]).parts[-3:]))}) for entry in told
    ]


def fork(folder: Path, source: Path, values: Mapping[str, Any]) -> Fork | None:
    """Let a trial go on from another trial's checkpoint; None if that is what it does already.

    Args:
        folder: the trial's.
        source: the other's checkpoint.
        values: what the search gives the trial from now on.

    Raises:
        ConfigError: there is no such checkpoint.
    """
    known = forks(folder)
    fresh = Fork(str(source), checkpoint.position(source).epoch, dict(values))
    if known and known[-1] == fresh:
        return None
    rows = folder / ROWS
    if rows.exists():
        kept = [json.dumps(row) for row in read_rows(folder) if row["epoch"] <= fresh.epoch]
        rows.rename(folder / f"rows_{len(known)}.jsonl")
        rows.write_text("".join(f"{line}\n" for line in kept))
    files.replace(folder / LINEAGE, json.dumps([asdict(entry) for entry in (*known, fresh)], indent=1))
    return fresh


def train_run(folder: Path) -> str:
    """Name of the trial's present run of Ray Train, which is the folder of its checkpoints."""
    count = len(forks(folder))
    return f"checkpoints_{count}" if count else "checkpoints"
