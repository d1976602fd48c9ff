"""What a sweep shows while it runs: one live table in a terminal, lines elsewhere; and `trials.json`, its record."""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from ray.tune import Callback
from rich.console import Group
from rich.live import Live as Screen
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from doppel_ray.cluster.capacity import CapacityMonitor
from doppel_ray.config.experiment import Experiment
from doppel_ray.core import cli, files
from doppel_ray.report import leaderboard, tensorboard
from doppel_ray.runs import reader
from doppel_ray.runs.metrics_log import format_speed
from doppel_ray.tune.budget import Budget
from doppel_ray.tune.progress import SweepProgress


class ProgressCallback(Callback):
    """Follows Ray Tune's trials.

    All that it knows of the past is in the run's folder. Ray Tune pickles it with the state that it keeps, so that
    everything tied to this process is made in `setup`.

    Args:
        folder: the sweep's folder.
        experiment: as plain data.
        total: trials of the whole sweep.
        budget: which may end it.
        plain: print lines, even in a terminal.
    """

    def __init__(self, folder: Path, experiment: dict[str, Any], total: int, budget: Budget, plain: bool) -> None:
        self.folder, self.experiment, self.budget, self.plain = folder, experiment, budget, plain
        self.scheduler: str = experiment["tune"]["scheduler"]
        self.standing = SweepProgress(folder, experiment, total)
        self.entries: dict[str, dict[str, Any]] = {}
        """What trials.json says of each trial beside its status."""
        self.screen: Screen | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "screen": None, "console": None, "progress": None, "board": None, "shortage": None}

    # --- Ray Tune's events ---

    def setup(self, stop: Any = None, num_samples: Any = None, total_num_samples: Any = None, **info: Any) -> None:
        self.console = cli.console(self.plain, sys.__stdout__)
        self.progress = Progress(
            BarColumn(),
            TextColumn("{task.completed:g}/{task.total:g} epochs"),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=self.console,
        )
        past = reader.read(self.folder).trials
        self.entries = {trial.name: {"point": trial.point, "values": trial.values} for trial in past}
        self.standing.take_up(past)
        self.bar = self.progress.add_task("", total=self.standing.total * self.standing.epochs)
        self._advance()
        experiment = Experiment.model_validate(self.experiment)
        self.board, self.shortage = tensorboard.SweepWriter(self.folder, experiment), CapacityMonitor(experiment)
        if self.console.is_terminal:
            self.screen = Screen(
                self._render(), console=self.console, refresh_per_second=2, get_renderable=self._render
            )
            self.screen.start()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        for trial in trials:
            known = self.standing.status.get(str(trial))
            if trial.status == "PENDING" and known not in (*reader.ENDED, "waiting"):
                self._note(trial, "waiting")
        waiting = [str(trial) for trial in trials if trial.status == "PENDING"]
        running = [str(trial) for trial in trials if trial.status == "RUNNING"]
        if news := self.shortage.notice(running or waiting[:1]):
            self._say(news)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._note(trial, "running")
        self.board.begin(str(trial), trial.config)
        self._say(f"{trial} started")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self.standing.add(str(trial), result)
        for event in filter(None, str(result.get("events", "")).split("; ")):
            self._say(f"{trial}: {event}")
        metric = self.standing.metric
        score = result.get(metric)
        shown = f"{metric} {leaderboard.show(score)}" if score is not None else f"no {metric} in this row"
        self._say(
            f"{trial} epoch {result['epoch']}/{self.standing.epochs}: {shown}, "
            f"loss {leaderboard.show(result.get('loss'))}, {format_speed(result)}"
        )
        self._advance()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        result = self.standing.last.get(str(trial)) or trial.last_result or {}
        if result.get("epoch", 0) >= self.standing.epochs:
            self._note(trial, "finished")
        elif (spent := self.budget.spent()) is not None:
            self._note(trial, "interrupted")
            self._say(f"{trial} ends after epoch {result.get('epoch')}: {spent} are used up")
        else:
            self._note(trial, "stopped early")
            metric = self.standing.metric
            self._say(
                f"{trial} stopped early by {self.scheduler} after epoch {result.get('epoch')}: "
                f"{metric} {leaderboard.show(result.get(metric))}; {self._comparison()}"
            )
        if self.standing.status[str(trial)] != "interrupted":
            self.board.end(str(trial), succeeded=True)
        self._advance()
        self._say(self.standing.sentence())

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        most = self.experiment["tune"]["max_failures"]
        self._say(
            f"{trial} lost its process, or failed, and goes on from its last checkpoint "
            f"({trial.num_failures} of {most} times, tune.max_failures)"
        )

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._note(trial, "failed")
        self.board.end(str(trial), succeeded=False)
        self._say(f"{trial} failed: see {self.folder / 'trials' / str(trial) / 'trial.log'}")

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        for trial in trials:
            if self.standing.status.get(str(trial)) in ("running", "waiting"):
                self._note(trial, "interrupted")
        self.board.close()
        if self.screen is not None:
            self.screen.stop()
            self.screen = None

    # --- what it writes and shows ---

    def _note(self, trial: Any, status: str) -> None:
        """Record a trial's status in trials.json."""
        self.standing.status[str(trial)] = status
        self.entries[str(trial)] = {"point": trial.evaluated_params, "values": trial.config}
        told = [
            {"name": name, **self.entries[name], "status": self.standing.status[name]} for name in sorted(self.entries)
        ]
        files.replace(self.folder / reader.TRIALS, json.dumps(told, indent=1))

    def _say(self, text: str) -> None:
        stamped = f"{time.strftime('%H:%M:%S')} {text}"
        with (self.folder / "sweep.log").open("a") as file:
            file.write(stamped + "\n")
        self.console.print(stamped, markup=False)

    def _comparison(self) -> str:
        """The other trials' metric, for the line that says why one was stopped."""
        metric = self.standing.metric
        others = [
            f"{name.partition('_')[0]}: {leaderboard.show(row[metric])}"
            for name, row in self.standing.last.items()
            if metric in row
        ]
        return f"at their last rows {', '.join(others)}"

    def _advance(self) -> None:
        self.progress.update(self.bar, completed=self.standing.done())

    def _render(self) -> Group:
        self.progress.update(self.bar, description=self.standing.sentence())
        lines = shutil.get_terminal_size().lines
        return Group(self.standing.table(max(3, lines - 4)), self.progress)
