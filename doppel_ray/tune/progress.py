"""The progress of a sweep: its table and its summary while it runs."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from doppel_ray.core.score_names import reported
from doppel_ray.report import leaderboard
from doppel_ray.runs import reader
from doppel_ray.runs.metrics_log import Row, bottleneck


class SweepProgress:
    """The status and the newest row of every trial of a sweep.

    Args:
        folder: the sweep's.
        experiment: as plain data.
        total: trials of the whole sweep.
    """

    def __init__(self, folder: Path, experiment: Mapping[str, Any], total: int) -> None:
        self.folder, self.total = folder, total
        self.metric: str = experiment["tune"]["metric"]
        self.mode: str = experiment["tune"]["mode"]
        self.epochs: int = experiment["train"]["epochs"]
        self.status: dict[str, str] = {}
        self.last: dict[str, Row] = {}
        self.best: tuple[str, Row] | None = None
        """Trial and row with the best score so far."""
        self.began, self.done_before = time.monotonic(), 0

    def restore(self, trials: list[reader.Trial]) -> None:
        """Take in the trials of a sweep that resumes."""
        for trial in trials:
            self.status[trial.name] = trial.status
            for row in trial.rows:
                self.add(trial.name, row)
        self.began, self.done_before = time.monotonic(), self.done()

    def add(self, name: str, row: Row) -> None:
        """Take in a trial's newest row."""
        self.last[name] = row
        score = row.get(self.metric)
        if isinstance(score, int | float) and (self.best is None or self._better(score, self.best[1][self.metric])):
            self.best = name, row

    def _better(self, score: float, other: float) -> bool:
        return score > other if self.mode == "max" else score < other

    def done(self) -> int:
        """Return the epochs that are over; all those of a trial that was stopped."""
        return sum(
            self.epochs if status in reader.OVER else self.last.get(name, {}).get("epoch", 0)
            for name, status in self.status.items()
        )

    def remaining(self) -> float | None:
        """Return the seconds left at the speed since `began`; None before the first row."""
        done, total = self.done(), self.total * self.epochs
        if done == self.done_before:
            return None
        return (time.monotonic() - self.began) * (total - done) / (done - self.done_before)

    def summary(self) -> str:
        """Return `2 of 12 trials have ended; best so far 001_a, epoch 2: factors/score 0.540; about 6 min left`."""
        ended = sum(status in reader.OVER for status in self.status.values())
        parts = [f"{ended} of {self.total} {'trial has' if self.total == 1 else 'trials have'} ended"]
        if self.best is not None:
            name, row = self.best
            parts.append(
                f"best so far {name}, epoch {row['epoch']}: {self.metric.removeprefix('probe/')} "
                f"{leaderboard.show(row[self.metric])}"
            )
        if (seconds := self.remaining()) is not None and ended < self.total:
            parts.append(f"about {duration(seconds)} left")
        return "; ".join(parts)

    def waits_for(self, name: str) -> str:
        """Return what a trial waits for: a place, its first epoch, generators, the trainer, or a probe."""
        status, row = self.status[name], self.last.get(name, {})
        if status == "waiting":
            return "a place"
        if status != "running":
            return ""
        checkpoints = (self.folder / "trials" / name).glob("checkpoints*/epoch_*")
        newest = max((int(path.name.rpartition("_")[2]) for path in checkpoints), default=0)
        if newest > row.get("epoch", 0):
            return f"the probe of epoch {newest if not row else row['epoch'] + 1}"
        return bottleneck(row) if row else "its first epoch"

    def table(self, height: int) -> RenderableType:
        """Return a line for each trial; if they exceed `height` lines, those that run, then the best."""
        found = Table(box=None, pad_edge=False)
        test = reported(self.metric)
        scores = list(dict.fromkeys((self.metric, test)))
        shown_as = [name.removeprefix("probe/") for name in scores]
        for name in ("trial", "status", "epoch", *shown_as, "untrained", "loss", "pairs/s", "waits for"):
            found.add_column(name, justify="left" if name in ("trial", "status", "waits for") else "right")
        names = sorted(self.status, key=self._rank)
        shown = names if len(names) <= height else names[: max(1, height - 1)]
        for name in shown if len(shown) < len(names) else sorted(shown):
            status, row = self.status[name], self.last.get(name, {})
            found.add_row(
                name,
                status,
                f"{row.get('epoch', 0)}/{self.epochs}",
                *(leaderboard.show(row.get(score)) for score in scores),
                leaderboard.show(row.get(f"{test}_untrained")),
                leaderboard.show(row.get("loss")),
                f"{row['pairs_per_second']:.0f}" if "pairs_per_second" in row else "–",
                self.waits_for(name),
                style="bold" if self.best and name == self.best[0] else "dim" if status != "running" else None,
            )
        if len(shown) == len(names):
            return found
        return Group(found, f"and {len(names) - len(shown)} more, which have ended or wait")

    def _rank(self, name: str) -> tuple[bool, float, str]:
        """Return a sorting key: running trials first, then the best."""
        score = self.last.get(name, {}).get(self.metric)
        worst = float("-inf" if self.mode == "max" else "inf")
        value = float(score) if isinstance(score, int | float) else worst
        return (self.status[name] != "running", -value if self.mode == "max" else value, name)


def duration(seconds: float) -> str:
    """Return `40 s`, `6 min` or `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
