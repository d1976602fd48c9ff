"""Probes as trial callbacks: each reported checkpoint is probed by a Ray task of its own while training goes on.

Ray Train's controller tells `Reports` of every checkpoint. `Rows`, in the trial's own process, starts the probe, waits
for its scores, and hands over one row per checkpoint, in order, with training and probe metrics together.
"""

import functools
import json
import logging
import math
import tempfile
import time
import types
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.train import Checkpoint, UserCallback

from doppel_ray.config.probes import ProbesConfig
from doppel_ray.runs.metrics_log import EARLY, RESIZE, JsonlFollower, Row, append_row, read_rows

log = logging.getLogger(__name__)

SILENCE = 120.0
"""Seconds without a report after which the trial's log says so, and again each time they have passed."""


class Reports(UserCallback):
    """Passes what happens in a train run to the trial's process, in a file.

    Ray Train's controller, which calls this, always runs on the trial's own node; a file costs no process, where a Ray
    queue is an actor.

    Args:
        file: a line of JSON for each report.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def _put(self, report: dict[str, Any]) -> None:
        with self.file.open("a") as out:
            out.write(json.dumps(report) + "\n")

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        self._put({"metrics": metrics[0], "checkpoint": checkpoint.path if checkpoint else None})

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for rank, error in sorted(worker_exceptions.items()):
            told = f"train worker {rank} failed, training goes on from the last checkpoint: {_last_line(error)}"
            self._put({"event": told, "details": str(error)})


def _last_line(error: BaseException) -> str:
    """The last line of an error, which says what it was; of Ray's long explanations the first sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].partition('. Worker exit type')[0][:300] if lines else ''}"


@ray.remote(max_retries=3)  # where its process or its node is lost, not where it fails
def _probe(checkpoint: str, probes: ProbesConfig, trial: str) -> dict[str, float]:
    """One checkpoint's scores, in a process of their own; the trial's folder is shown the embeddings."""
    import torch

    from doppel_ray.probe import projector
    from doppel_ray.probe.evaluate import TaskEmbedder, evaluate_checkpoint

    torch.set_num_threads(max(1, round(probes.cpus)))
    began, folder = time.perf_counter(), Path(checkpoint)
    encoder: Any
    if probes.actors == 1:
        encoder = TaskEmbedder(folder, probes.cache, "cuda" if probes.gpus else "cpu")
    else:
        from doppel_ray.tune.probe_pool import Pool

        encoder = Pool(folder, probes)
    tasks, kept = probes.build(), Path(trial).parent.parent / "baselines"
    project = functools.partial(projector.project, Path(trial), tasks[0].name, probes.projector, folder.name)
    scores = evaluate_checkpoint(folder, tasks, probes.protocol, encoder, kept, project)
    return scores | {"probe/seconds": time.perf_counter() - began}


@dataclass
class _Pending:
    """A reported checkpoint whose row has not been sent."""

    row: Row
    checkpoint: str | None
    wanted: bool
    probe: ray.ObjectRef | None = None
    began: float = 0.0
    events: list[str] = field(default_factory=list)


class Rows:
    """The rows of a trial, made from reports and probes, sent in order.

    One probe of a trial runs at a time. A probe that fails or takes too long marks its row (`probe/failed`) and the
    trial goes on.

    Args:
        probes: what to ask of a checkpoint, and how often.
        epochs: the trial's last epoch, which is always probed.
        folder: the trial's folder; `rows.jsonl` there remembers what was sent, also across an interruption.
        send: takes a row.
        also: what every row says beside that.
    """

    def __init__(
        self,
        probes: ProbesConfig,
        epochs: int,
        folder: Path,
        send: Callable[[Row], None],
        also: Mapping[str, Any] = types.MappingProxyType({}),
    ) -> None:
        self.also = also
        self.probes = probes
        self.epochs = epochs
        self.folder = folder
        self.send = send
        self.scratch = tempfile.TemporaryDirectory(prefix="doppel_ray-")
        self.reports = Path(self.scratch.name) / "reports.jsonl"
        """Where `Reports` writes."""
        self.reported = JsonlFollower(self.reports)
        self.pending: deque[_Pending] = deque()
        self.events: list[str] = []
        self.restarts = 0
        self.diverged: str | None = None
        """Why training ended before its last epoch, if it did."""
        sent = read_rows(folder)
        self.precision = sent[-1].get("precision") if sent else None
        """What the last row's epoch was computed in; it is decided again whenever train workers start."""
        self.sent = {row["epoch"] for row in sent}
        self.least = min((row["loss"] for row in sent if "loss" in row), default=math.inf)
        """The lowest loss yet."""

    def tell(self, event: str) -> None:
        """Let the next row say this."""
        self.events.append(event)
        log.warning(event)

    def catch_up(self, registered: list[dict[str, Any]]) -> None:
        """Take up checkpoints of an earlier life of this trial whose rows were never sent."""
        for report in registered:
            if EARLY not in report["metrics"]:
                self._add(report["metrics"], str(report["checkpoint"]))

    def pump(self, running: Callable[[], bool], meanwhile: Callable[[], None]) -> None:
        """Send rows until `running()` is false and the last row is out; calls `meanwhile` a few times a second."""
        heard, told = time.monotonic(), 0.0
        while True:
            alive = running()
            time.sleep(0.2)
            meanwhile()
            silent = time.monotonic() - heard
            if silent - told > SILENCE:
                told = silent
                log.warning("no epoch has ended for %.0f s; `ray status` shows what waits for which resources", silent)
            for report in self.reported.take():
                heard, told = time.monotonic(), 0.0
                if "event" in report:
                    self.tell(report["event"])
                    log.warning("%s", report["details"])
                elif "diverged" in report["metrics"]:
                    self.diverged = report["metrics"]["diverged"]
                elif EARLY in report["metrics"]:
                    at = report["metrics"]
                    self.tell(f"checkpoint within epoch {at['epoch'] + 1}, at pair {at['pairs']:,}: {at[EARLY]}")
                else:
                    self._add(report["metrics"], report["checkpoint"])
            self._advance()
            if not alive and not self.pending:
                return

    def _add(self, metrics: dict[str, Any], checkpoint: str | None) -> None:
        epoch = int(metrics["epoch"])
        if epoch in self.sent:
            return
        self.sent.add(epoch)
        restarts = int(metrics.get("generator_restarts", 0))
        if restarts > self.restarts:
            self.tell(
                f"a generator died and was started again ({restarts - self.restarts}x); its blocks were made again"
            )
        self.restarts = restarts
        wanted = bool(self.probes.tasks) and checkpoint is not None and self._due(epoch, metrics.get("loss", math.inf))
        before, self.precision = self.precision, metrics.get("precision")
        if before not in (None, self.precision):
            self.tell(
                f"training continues in {self.precision}, and was in {before}: train.precision auto, other devices"
            )
        if (more := metrics.get(RESIZE)) is not None:
            self.tell(f"there is room for {more} train workers, training goes on with so many")
        events, self.events = self.events, []
        row = {name: value for name, value in metrics.items() if name != RESIZE}
        row |= {**self.also, "checkpoint": checkpoint}
        self.pending.append(_Pending(row, checkpoint, wanted, events=events))

    def _due(self, epoch: int, loss: float) -> bool:
        """Whether an epoch is one of those to be probed."""
        best, self.least = loss < self.least, min(loss, self.least)
        every = self.probes.every
        due = best if every == "best" else isinstance(every, int) and epoch % every == 0
        return due or epoch == self.epochs

    def _advance(self) -> None:
        """Start the first pending probe, and send every row that is complete."""
        while self.pending:
            first = self.pending[0]
            if first.wanted:
                if first.probe is None:
                    self._start(first)
                if not self._collect(first):
                    return
            self.pending.popleft()
            row = first.row | {"events": "; ".join(first.events)}
            append_row(self.folder, row)
            self.send(row)

    def _start(self, pending: _Pending) -> None:
        # "DEFAULT": inside a trial a task would inherit the trial's placement group, where it can never fit.
        # With a pool, the probe itself only waits and fits.
        alone = self.probes.actors == 1
        options = _probe.options(
            num_cpus=self.probes.cpus, num_gpus=self.probes.gpus if alone else 0.0, scheduling_strategy="DEFAULT"
        )
        assert pending.checkpoint is not None
        pending.probe = options.remote(pending.checkpoint, self.probes, str(self.folder))
        pending.began = time.monotonic()

    def _collect(self, pending: _Pending) -> bool:
        """Whether the probe is over; its scores, or the mark of its failure, are then in the row."""
        assert pending.probe is not None
        ready, _ = ray.wait([pending.probe], timeout=0)
        if ready:
            try:
                pending.row |= ray.get(pending.probe) | {"probe/failed": 0}
                return True
            except ray.exceptions.RayError as error:
                trouble = f"the probe of epoch {pending.row['epoch']} failed: {_last_line(error)}"
        elif time.monotonic() - pending.began > self.probes.timeout:
            ray.cancel(pending.probe, force=True)
            limit = f"{self.probes.timeout:.0f} s (probes.timeout)"
            trouble = f"the probe of epoch {pending.row['epoch']} took more than {limit} and was given up"
        else:
            return False
        log.warning(trouble)
        pending.events.append(trouble)
        pending.row["probe/failed"] = 1
        return True
