"""Which checkpoints of a trial are kept."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from doppel_ray.config.train import KeepConfig
from doppel_ray.models.checkpoint import EPOCH, WITHIN
from doppel_ray.runs.metrics_log import Row, checkpoint_of, number


def dropped(keep: KeepConfig, rows: Sequence[Row], metric: str, mode: str) -> list[Row]:
    """Return the rows whose checkpoints the policy does not keep.

    Args:
        keep: the policy.
        rows: of a trial, oldest first. A checkpoint whose probe is pending has no row yet, and is kept.
        metric, mode: to compare rows by.
    """
    judged = [row for row in rows if number(row.get(metric)) is not None]
    best = sorted(judged, key=lambda row: row[metric], reverse=mode == "max")[: keep.best]
    kept = {row["epoch"] for row in (*best, *rows[-keep.last :])}
    return [row for row in rows if row["epoch"] not in kept]


def within_epochs(run: Path, step: int) -> list[Path]:
    """Return the mid-epoch checkpoints in `run` that are older than the checkpoint of `step`, which replaces them."""
    return [path for path in run.glob(f"{WITHIN}*") if int(path.name.removeprefix(WITHIN)) < step]


def drop(folder: Path, rows: Sequence[Row]) -> None:
    """Delete the checkpoints of some rows of a trial, where they still exist."""
    delete(filter(None, (checkpoint_of(folder, row) for row in rows)))


def delete(checkpoints: Iterable[Path]) -> None:
    """Delete checkpoints; no reader ever sees a part of one."""
    for path in checkpoints:
        hidden = path.with_name(f".{path.name}")
        shutil.rmtree(hidden, ignore_errors=True)  # of a crash
        path.rename(hidden)
        shutil.rmtree(hidden)


def delete_leftovers(folder: Path) -> None:
    """Delete what a crash left of checkpoints of a trial that were being deleted."""
    for kind in (EPOCH, WITHIN):
        for path in folder.glob(f"checkpoints*/.{kind}*"):
            shutil.rmtree(path)
