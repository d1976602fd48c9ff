"""Which checkpoints of a trial are kept."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from doppel_ray.config.train import KeepConfig
from doppel_ray.models.checkpoint import WITHIN
from doppel_ray.runs.metrics_log import Row, checkpoint_of, number


def dropped(keep: KeepConfig, rows: Sequence[Row], metric: str, mode: str) -> list[Row]:
    """The rows whose checkpoints are not kept.

    Args:
        keep: the policy.
        rows: that a trial has sent, oldest first. A checkpoint whose probe is pending has no row yet, and is safe.
        metric, mode: by which rows are compared.
    """
    judged = [row for row in rows if number(row.get(metric)) is not None]
    best = sorted(judged, key=lambda row: row[metric], reverse=mode == "max")[: keep.best]
    kept = {row["epoch"] for row in (*best, *rows[-keep.last :])}
    return [row for row in rows if row["epoch"] not in kept]


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
