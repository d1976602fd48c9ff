"""Forks of a trial: population-based training lets it continue from another trial's checkpoint.

For each fork Ray Train starts a new run in the trial's folder (`checkpoints`, then `checkpoints_1`, ...), and
`lineage.json` there records the checkpoint that it started from. Rows of later epochs move to another file.
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
    """A start from another trial's checkpoint.

    Attributes:
        source: the checkpoint.
        epoch: number of epochs it had been trained.
        values: searched values of the trial from then on.
    """

    source: str
    epoch: int
    values: dict[str, Any]


def forks(folder: Path) -> list[Fork]:
    """Return a trial's forks, oldest first, with sources in the run's folder as it lies now.

    Args:
        folder: of the trial.
    """
    file = folder / LINEAGE
    entries = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    return [
        Fork(**entry | {"source": str(folder.parent.joinpath(*Path(entry["source"]).parts[-3:]))}) for entry in entries
    ]


def fork(folder: Path, source: Path, values: Mapping[str, Any]) -> Fork | None:
    """Record that a trial continues from another trial's checkpoint.

    Args:
        folder: of the trial.
        source: checkpoint of the other trial.
        values: searched values of the trial from now on.

    Returns:
        The fork; None if it is already recorded as the last one.

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
    """Return the name of the trial's current run of Ray Train, which is the folder of its checkpoints."""
    count = len(forks(folder))
    return f"checkpoints_{count}" if count else "checkpoints"
