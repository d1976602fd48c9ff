"""Which checkpoints of a trial are kept."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from doppel_ray.models.checkpoint import WITHIN
from doppel_ray.runs.metrics_log import Row, checkpoint_of


def within_epochs(run: Path, step: int) -> list[Path]:
    """Checkpoints within epochs from before a step; once there is one of that step, they are of no use.

    Args:
        run: folder with the checkpoints.
    """
    return [path for path in run.glob(f"{WITHIN}*") if int(path.name.removeprefix(WITHIN)) < step]


def drop(folder: Path, rows: Sequence[Row]) -> None:
    """Delete the checkpoints of some rows of a trial, which may have been deleted before."""
    delete(filter(None, (checkpoint_of(folder, row) for row in rows)))


def delete(checkpoints: Iterable[Path]) -> None:
    """Delete some checkpoints."""
    for path in checkpoints:
        gone = path.with_name(f".{path.name}")
        path.rename(gone)  # at once, so that nobody takes half a checkpoint for a whole one
        shutil.rmtree(gone)
