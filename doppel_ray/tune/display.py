"""What a sweep shows while it runs: a live table in a terminal, lines elsewhere; and its record, `trials.json`."""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from ray.tune import Callback
from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from doppel_ray.cluster.capacity import CapacityMonitor
from doppel_ray.cluster.joined import JoinedNodes
from doppel_ray.config.experiment import Experiment
from doppel_ray.core import cli, files
from doppel_ray.report import leaderboard, tensorboard
from doppel_ray.runs import reader
from doppel_ray.runs.metrics_log import format_speed
from doppel_ray.tune.budget import Budget
from doppel_ray.tune.progress import SweepProgress
from doppel_ray.tune.rows import events_of


class ProgressCallback(Callback):
    """Shows and records what happens to Ray Tune's trials.

    Ray Tune pickles its callbacks, so what is tied to this process is made in `setup`, which also reads the past of a
    resumed sweep from its folder.

    Args:
        folder: the sweep's.
        experiment: as plain data.
        total: trials of the whole sweep.
        budget: of the sweep.
        plain: print lines, even in a terminal.
    """

    def __init__(self, folder: Path, experiment: dict[str, Any], total: int, budget: Budget, plain: bool) -> None:
        self.folder, self.experiment, self.budget, self.plain = folder, experiment, budget, plain
        self.scheduler: str = experiment["tune"]["scheduler"]
        self.progress = SweepProgress(folder, experiment, total)
        self.entries: dict[str, dict[str, Any]] = {}
        """Each trial's entry in trials.json, without its status."""
        self.live: Live | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "live": None,
            "console": None,
            "bar": None,
            "board": None,
            "capacity": None,
            "joined": None,
        }

    # --- events of Ray Tune ---

    def setup(self, stop: Any = None, num_samples: Any = None, total_num_samples: Any = None, **info: Any) -> None:
        self.console = cli.console(self.plain, sys.__stdout__)
        self.bar = Progress(
            BarColumn(),
            TextColumn("{task.completed:g}/{task.total:g} epochs"),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=self.console,
        )
        past = reader.read(self.folder).trials
        self.entries = {trial.name: {"point": trial.point, "values": trial.values} for trial in past}
        self.progress.restore(past)
        self.task = self.bar.add_task("", total=self.progress.total * self.progress.epochs)
        self._advance()
        experiment = Experiment.model_validate(self.experiment)
        self.board, self.capacity = tensorboard.SweepWriter(self.folder, experiment), CapacityMonitor(experiment)
        self.joined = JoinedNodes(self.folder / reader.RUN)
        if self.console.is_terminal:
            self.live = Live(self._render(), console=self.console, refresh_per_second=2, get_renderable=self._render)
            self.live.start()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        for trial in trials:
            known = self.progress.status.get(str(trial))
            if trial.status == "PENDING" and known not in (*reader.ENDED, "waiting"):
                self._record(trial, "waiting")
        waiting = [str(trial) for trial in trials if trial.status == "PENDING"]
        running = [str(trial) for trial in trials if trial.status == "RUNNING"]
        if news := self.capacity.notice(running or waiting[:1]):
            self._log(news)
        if news := self.joined.notice():
            self._log(news)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._record(trial, "running")
        self.board.begin(str(trial), trial.config)
        self._log(f"{trial} started")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self.progress.add(str(trial), result)
        for event in events_of(result):
            self._log(f"{trial}: {event}")
        metric = self.progress.metric
        score = result.get(metric)
        shown = f"{metric} {leaderboard.show(score)}" if score is not None else f"no {metric} in this row"
        self._log(
            f"{trial} epoch {result['epoch']}/{self.progress.epochs}: {shown}, "
            f"loss {leaderboard.show(result.get('loss'))}, {format_speed(result)}"
        )
        self._advance()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        result = self.progress.last.get(str(trial)) or trial.last_result or {}
        if result.get("epoch", 0) >= self.progress.epochs:
            self._record(trial, "finished")
        elif (spent := self.budget.spent()) is not None:
            self._record(trial, "interrupted")
            self._log(f"{trial} ends after epoch {result.get('epoch')}: {spent} are used up")
        else:
            self._record(trial, "stopped early")
            metric = self.progress.metric
            self._log(
                f"{trial} stopped early by {self.scheduler} after epoch {result.get('epoch')}: "
                f"{metric} {leaderboard.show(result.get(metric))}; {self._comparison()}"
            )
        if self.progress.status[str(trial)] != "interrupted":
            self.board.end(str(trial), succeeded=True)
        self._advance()
        self._log(self.progress.summary())

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        most = self.experiment["tune"]["max_failures"]
        self._log(
            f"{trial} lost its process, or failed, and resumes from its last checkpoint "
            f"({trial.num_failures} of {most} times, tune.max_failures)"
        )

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._record(trial, "failed")
        self.board.end(str(trial), succeeded=False)
        self._log(f"{trial} failed: see {self.folder / 'trials' / str(trial) / 'trial.log'}")

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        for trial in trials:
            if self.progress.status.get(str(trial)) in ("running", "waiting"):
                self._record(trial, "interrupted")
        self.board.close()
        if self.live is not None:
            self.live.stop()
            self.live = None

    # --- what it writes and shows ---

    def _record(self, trial: Any, status: str) -> None:
        """Write a trial's status to trials.json."""
        self.progress.status[str(trial)] = status
        self.entries[str(trial)] = {"point": trial.evaluated_params, "values": trial.config}
        record = [
            {"name": name, **self.entries[name], "status": self.progress.status[name]} for name in sorted(self.entries)
        ]
        files.replace(self.folder / reader.TRIALS, json.dumps(record, indent=1))

    def _log(self, text: str) -> None:
        """Print a line, and add it to sweep.log."""
        stamped = f"{time.strftime('%H:%M:%S')} {text}"
        with (self.folder / "sweep.log").open("a", encoding="utf-8") as file:
            file.write(stamped + "\n")
        self.console.print(stamped, markup=False)

    def _comparison(self) -> str:
        """Return every trial's last metric, for the line that says why one was stopped."""
        metric = self.progress.metric
        scores = [
            f"{name.partition('_')[0]}: {leaderboard.show(row[metric])}"
            for name, row in self.progress.last.items()
            if metric in row
        ]
        return f"at their last rows {', '.join(scores)}"

    def _advance(self) -> None:
        self.bar.update(self.task, completed=self.progress.done())

    def _render(self) -> Group:
        self.bar.update(self.task, description=self.progress.summary())
        lines = shutil.get_terminal_size().lines
        return Group(self.progress.table(max(3, lines - 4)), self.bar)
