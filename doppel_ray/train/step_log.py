"""What a train worker measures: an epoch's metrics for its row, and curves by step, which show what a mean hides."""

import json
import logging
import resource
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from doppel_ray.runs.metrics_log import STEPS
from doppel_ray.train.energy import EnergyMeter
from doppel_ray.train.prefetch import Batch

log = logging.getLogger(__name__)


class Means:
    """Running means of scalars."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)

    def add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.sums[name] += value
            self.counts[name] += 1

    def take(self) -> dict[str, float]:
        """Return the means, and start again."""
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        self.sums.clear()
        self.counts.clear()
        return means


class StepLog:
    """Writes the curves by step, which the trial's own process shows in TensorBoard.

    Args:
        folder: the trial's; None, or a folder that this machine does not have: nothing is written.
        every: steps between points.
        step: step that training continues from; points after it, of an earlier attempt, no longer count.
    """

    def __init__(self, folder: Path | None, every: int, step: int) -> None:
        self.every, self.since, self.waited = every, time.perf_counter(), 0.0
        self.means = Means()
        self.file = folder / STEPS if folder is not None and folder.is_dir() else None
        self._write({"goes_on_from": step})

    def add(self, step: int, waited: float, pairs: int, found: dict[str, float]) -> None:
        """Add one step, and write a point if one is due.

        Args:
            step: steps done.
            waited: seconds that training waited for the step's batch.
            pairs: of a batch, over all workers.
            found: the step's metrics.
        """
        self.means.add(found)
        self.waited += waited
        if step % self.every:
            return
        seconds = time.perf_counter() - self.since
        self._write(
            {
                "step": step,
                **self.means.take(),
                "pairs_per_second": pairs * self.every / seconds,
                "wait_share": self.waited / seconds,
                "memory_mb": memory_mb(),
            }
        )
        self.since, self.waited = time.perf_counter(), 0.0

    def _write(self, point: dict[str, float]) -> None:
        if self.file is not None:
            with self.file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(point) + "\n")


class EpochMetrics:
    """The metrics of an epoch, or of what was left of it when training resumed within it.

    Args:
        steps: gets every step too.
        batch_size: pairs of a batch, over all workers.
    """

    def __init__(self, steps: StepLog, batch_size: int) -> None:
        self.steps, self.batch_size = steps, batch_size
        self.means, self.energy = Means(), EnergyMeter()
        self.restarted: set[int] = set()
        """Generators that replaced others, since the worker started."""
        self.start(0)

    def start(self, index: int) -> None:
        """Start an epoch at an index of the stream."""
        self.pairs_from, self.began = index, time.perf_counter()
        self.waited, self.skipped = 0.0, 0
        self.energy.take()  # what was used between epochs belongs to none

    def add(self, batch: Batch, found: dict[str, float], step: int) -> None:
        """Add one step.

        Args:
            batch: that it trained on.
            found: the learner's metrics; empty if it diverged.
            step: steps done.
        """
        columns = batch.telemetry
        self.restarted |= set(columns["restarted"].tolist()) - {0}
        for line in "\n".join(filter(None, columns["skipped"])).splitlines():
            self.skipped += 1
            log.warning("recording skipped, %s", line)
        found = found | {"generator_seconds_per_pair": float(columns["seconds"].mean())}
        self.waited += batch.waited
        self.means.add(found)
        self.steps.add(step, batch.waited, self.batch_size, found)
        self.energy.update()

    def take(self, index: int) -> dict[str, Any]:
        """Return the epoch's metrics; `index` is the first of the stream that it did not use."""
        seconds = time.perf_counter() - self.began
        metrics = self.means.take() | {
            "pairs": index,
            "pairs_from": self.pairs_from,
            "pairs_per_second": (index - self.pairs_from) / seconds,
            "wait_share": self.waited / seconds,
            "train_seconds": seconds,
            "memory_mb": memory_mb(),
            "generator_restarts": len(self.restarted),
            "recordings_skipped": self.skipped,
        }
        if (joules := self.energy.take()) is not None:
            metrics["energy_joules"] = joules
        return metrics


def memory_mb() -> float:
    """Return the resident memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / 2**20
