"""Which checkpoints of a trial are kept."""

import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from doppel_ray.checkpoint import WITHIN
from doppel_ray.rows import Row, checkpoint_of, number
from doppel_ray.section import Section


class KeepConfig(Section):
    """A policy: the best and the newest are kept, the others deleted once their rows are out."""

    best: int = Field(default=0, ge=0)
    """Checkpoints that are best by tune.metric; those that no probe has judged are not among them."""
    last: int = Field(default=1, ge=1)
    """Newest checkpoints; the very newest is what a trial goes on from."""

    def most(self, epochs: int) -> int:
        """Checkpoints of a trial of so many epochs that are kept at most, once all is over."""
        return min(epochs, self.best + self.last)

    def dropped(self, rows: Sequence[Row], metric: str, mode: str) -> list[Row]:
        """The rows whose checkpoints are not kept.

        Args:
            rows: that a trial has sent, oldest first. A checkpoint whose probe is pending has no row yet, and is safe.
            metric, mode: by which rows are compared.
        """
        judged = [row for row in rows if number(row.get(metric)) is not None]
        best = sorted(judged, key=lambda row: row[metric], reverse=mode == "max")[: self.best]
        kept = {row["epoch"] for row in (*best, *rows[-self.last :])}
        return [row for row in rows if row["epoch"] not in kept]


def _plain(value: Any) -> Any:
    """`3`, and `best 2, last 1`, as the mapping that they stand for."""
    if isinstance(value, str) and re.fullmatch(r"\w+ \d+(, *\w+ \d+)*", value):
        return {name: int(count) for name, count in re.findall(r"(\w+) (\d+)", value)}
    return {"last": value} if isinstance(value, int) else value


Keep = Annotated[KeepConfig, BeforeValidator(_plain)]
"""`{best: 2, last: 1}`, or `best 2, last 1`; `3` is `{last: 3}`."""


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
