"""Curves by step, which show what an epoch's mean hides."""

import json
import resource
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from doppel_ray.runs.metrics_log import STEPS

if TYPE_CHECKING:
    pass


class Means:
    """Running means of scalars."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)

    def add(self, **values: float) -> None:
        for name, value in values.items():
            self.sums[name] += value
            self.counts[name] += 1

    def take(self) -> dict[str, float]:
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        self.sums.clear()
        self.counts.clear()
        return means


class StepLog:
    """The curves by step, which show what an epoch's mean hides; the trial's own process shows them in TensorBoard.

    Args:
        folder: the trial's; None, or one that this machine does not have, writes nothing.
        every: steps between points.
        step: where training goes on; points after it that an earlier life wrote count no more.
    """

    def __init__(self, folder: Path | None, every: int, step: int) -> None:
        self.every, self.since, self.waited = every, time.perf_counter(), 0.0
        self.means = Means()
        self.file = folder / STEPS if folder is not None and folder.is_dir() else None
        self._write({"goes_on_from": step})

    def add(self, step: int, waited: float, pairs: int, found: dict[str, float]) -> None:
        """Take in one step.

        Args:
            step: steps done.
            waited: seconds that this epoch has waited for data.
            pairs: of a batch, over all workers.
            found: what telemetry has of the step.
        """
        self.means.add(**found)
        if step % self.every:
            return
        seconds = time.perf_counter() - self.since
        self._write(
            {
                "step": step,
                **self.means.take(),
                "pairs_per_second": pairs * self.every / seconds,
                "wait_share": max(0.0, waited - self.waited) / seconds,
                "memory_mb": _memory_mb(),
            }
        )
        self.since, self.waited = time.perf_counter(), waited

    def _write(self, point: dict[str, float]) -> None:
        if self.file is not None:
            with self.file.open("a") as out:
                out.write(json.dumps(point) + "\n")


def _memory_mb() -> float:
    """Memory of this process now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
