"""The rows of a trial: one for each epoch's checkpoint, with training and probe metrics together.

Ray Train's controller passes every report to `ReportWriter`. `RowAssembler`, in the trial's own process, reads the
reports, starts the probes, and sends the rows in order.
"""

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

from ray.train import Checkpoint, UserCallback

from doppel_ray.config.probes import ProbesConfig
from doppel_ray.runs.metrics_log import EARLY, RESIZE, JsonlFollower, Row, append_line, append_row, read_rows
from doppel_ray.tune.probing import Probe, ProbeError, last_line

log = logging.getLogger(__name__)

SILENCE = 120.0
"""Seconds without a report between warnings in the trial's log."""


class ReportWriter(UserCallback):
    """Passes the reports of train workers to the trial's process, through a file.

    Ray Train's controller, which calls this, runs on the trial's own node. A file needs no process; a Ray queue is an
    actor.

    Args:
        file: gets a line of JSON for each report.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        self._write({"metrics": metrics[0], "checkpoint": checkpoint.path if checkpoint else None})

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for rank, error in sorted(worker_exceptions.items()):
            event = f"train worker {rank} failed, training resumes from the last checkpoint: {last_line(error)}"
            self._write({"event": event, "details": str(error)})

    def _write(self, report: dict[str, Any]) -> None:
        append_line(self.file, report)


def events_of(row: Row) -> list[str]:
    """Return the events of a row; rows of older versions hold them as one text, joined by "; "."""
    events = row.get("events") or []
    return events.split("; ") if isinstance(events, str) else events


@dataclass
class _Pending:
    """A row that has not been sent.

    Attributes:
        to_probe: whether its checkpoint is to be probed.
    """

    row: Row
    to_probe: bool
    probe: Probe | None = None
    events: list[str] = field(default_factory=list)


class RowAssembler:
    """Makes the rows of a trial from reports and probes, and sends them in order.

    A trial runs one probe at a time. A probe that fails or takes too long marks its row (`probe/failed`), and the trial
    continues.

    Args:
        probes: what to evaluate, and how often.
        epochs: the trial's last epoch, which is always probed.
        folder: the trial's; `rows.jsonl` there holds the rows that were sent, also by an earlier attempt.
        send: takes a row.
        also: columns to add to every row.
    """

    def __init__(
        self,
        probes: ProbesConfig,
        epochs: int,
        folder: Path,
        send: Callable[[Row], None],
        also: Mapping[str, Any] = types.MappingProxyType({}),
    ) -> None:
        self.probes, self.epochs, self.folder, self.send, self.also = probes, epochs, folder, send, also
        self._scratch = tempfile.TemporaryDirectory(prefix="doppel_ray-")
        self.reports = Path(self._scratch.name) / "reports.jsonl"
        """File of the `ReportWriter`."""
        self._new_reports = JsonlFollower(self.reports)
        self._pending: deque[_Pending] = deque()
        self._events: list[str] = []
        self._restarts = 0
        self.diverged: str | None = None
        """Why training ended before its last epoch, if it diverged."""
        sent = read_rows(folder)
        self._precision = sent[-1].get("precision") if sent else None
        """Of the last row; train workers choose it again at each start."""
        self._sent = {row["epoch"] for row in sent}
        self._least_loss = min((row["loss"] for row in sent if "loss" in row), default=math.inf)

    def add_event(self, event: str) -> None:
        """Log an event, and add it to the next row."""
        self._events.append(event)
        log.warning(event)

    def catch_up(self, registered: list[dict[str, Any]]) -> None:
        """Add the checkpoints of an earlier attempt whose rows were not sent.

        Args:
            registered: as `doppel_ray.train.trainer.snapshot` returns.
        """
        for report in registered:
            if EARLY not in report["metrics"]:
                self._add(report["metrics"], str(report["checkpoint"]))

    def pump(self, is_running: Callable[[], bool], meanwhile: Callable[[], None]) -> None:
        """Send rows until training has ended and the last row is out.

        Args:
            is_running: whether training runs.
            meanwhile: is called a few times a second.
        """
        last_report, warned = time.monotonic(), 0.0
        while True:
            running = is_running()
            time.sleep(0.2)
            meanwhile()
            silent = time.monotonic() - last_report
            if silent - warned > SILENCE:
                warned = silent
                log.warning("no epoch has ended for %.0f s; `ray status` shows what waits for which resources", silent)
            for report in self._new_reports.take():
                last_report, warned = time.monotonic(), 0.0
                self._receive(report)
            self._advance()
            if not running and not self._pending:
                return

    def _receive(self, report: dict[str, Any]) -> None:
        if "event" in report:
            self.add_event(report["event"])
            log.warning("%s", report["details"])
            return
        metrics = report["metrics"]
        if "diverged" in metrics:
            self.diverged = metrics["diverged"]
        elif EARLY in metrics:
            epoch, pairs = metrics["epoch"] + 1, metrics["pairs"]
            self.add_event(f"checkpoint within epoch {epoch}, at pair {pairs:,}: {metrics[EARLY]}")
        else:
            self._add(metrics, report["checkpoint"])

    def _add(self, metrics: dict[str, Any], checkpoint: str | None) -> None:
        """Queue an epoch's row, unless it was sent before."""
        epoch = int(metrics["epoch"])
        if epoch in self._sent:
            return
        self._sent.add(epoch)
        self._add_events(metrics)
        is_due = self._is_due(epoch, metrics.get("loss", math.inf))
        events, self._events = self._events, []
        row = {name: value for name, value in metrics.items() if name != RESIZE}
        row |= {**self.also, "checkpoint": checkpoint}
        to_probe = bool(self.probes.tasks) and checkpoint is not None and is_due
        self._pending.append(_Pending(row, to_probe, events=events))

    def _add_events(self, metrics: dict[str, Any]) -> None:
        """Add the events that an epoch's metrics show."""
        restarts = int(metrics.get("generator_restarts", 0))
        if restarts > self._restarts:
            self.add_event(
                f"a generator died and was restarted ({restarts - self._restarts}x); its blocks are made again"
            )
        self._restarts = restarts
        before, self._precision = self._precision, metrics.get("precision")
        if before not in (None, self._precision):
            self.add_event(
                f"training continues in {self._precision} after {before}: train.precision auto, other devices"
            )
        if (workers := metrics.get(RESIZE)) is not None:
            self.add_event(f"there is room for {workers} train workers: training restarts with them")

    def _is_due(self, epoch: int, loss: float) -> bool:
        """Return whether an epoch's checkpoint is one of those to probe."""
        is_best, self._least_loss = loss < self._least_loss, min(loss, self._least_loss)
        every = self.probes.every
        due = is_best if every == "best" else isinstance(every, int) and epoch % every == 0
        return due or epoch == self.epochs

    def _advance(self) -> None:
        """Start the first pending probe, and send every row that is complete."""
        while self._pending:
            first = self._pending[0]
            if first.to_probe and not self._probe(first):
                return
            self._pending.popleft()
            row = first.row | {"events": first.events}
            append_row(self.folder, row)
            self.send(row)

    def _probe(self, pending: _Pending) -> bool:
        """Start or poll the row's probe; return whether it has ended and the row holds its scores, or its failure."""
        row = pending.row
        if pending.probe is None:
            pending.probe = Probe(row["checkpoint"], row["epoch"], self.probes, self.folder)
        try:
            scores = pending.probe.poll()
        except ProbeError as error:
            log.warning("%s", error)
            pending.events.append(str(error))
            row["probe/failed"] = 1
            return True
        if scores is None:
            return False
        row |= scores | {"probe/failed": 0}
        return True
