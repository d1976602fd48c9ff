"""What a sweep shows while it runs: one live table in a terminal, lines elsewhere; and `trials.json`, its record."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from ray.tune import Callback
from rich.console import Group
from rich.live import Live as Screen
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from doppel_ray import board, command, report
from doppel_ray.config import Experiment
from doppel_ray.train import bound, waits_for


class Live(Callback):
    """Follows Ray Tune's trials.

    It is pickled with Ray Tune's state so that a resumed sweep has it again: all that it knows of the past is in the
    run's folder, and everything tied to this process is made in `setup`.

    Args:
        folder: the sweep's folder.
        experiment: as plain data.
        total: trials of the whole sweep.
        plain: print lines, even in a terminal.
    """

    def __init__(self, folder: Path, experiment: dict[str, Any], total: int, plain: bool) -> None:
        self.folder = folder
        self.experiment = experiment
        self.metric: str = experiment["tune"]["metric"]
        self.mode: str = experiment["tune"]["mode"]
        self.scheduler: str = experiment["tune"]["scheduler"]
        self.epochs: int = experiment["train"]["epochs"]
        self.total = total
        self.plain = plain
        self.entries: dict[str, dict[str, Any]] = {}
        self.last: dict[str, dict[str, Any]] = {}
        self.screen: Screen | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "screen": None, "console": None, "progress": None, "board": None}

    # --- Ray Tune's events ---

    def setup(self, stop: Any = None, num_samples: Any = None, total_num_samples: Any = None, **info: Any) -> None:
        self.console = command.screen(self.plain, sys.__stdout__)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:g}/{task.total:g} epochs"),
            TimeElapsedColumn(),
            console=self.console,
        )
        self.bar = self.progress.add_task("sweep", total=self.total * self.epochs)
        file = self.folder / report.TRIALS
        if file.exists():
            self.entries = {entry["name"]: entry for entry in json.loads(file.read_text())}
        self.board = board.Sweep(self.folder, Experiment.model_validate(self.experiment))
        if self.console.is_terminal:
            self.screen = Screen(
                self._render(), console=self.console, refresh_per_second=2, get_renderable=self._render
            )
            self.screen.start()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        for trial in trials:
            name = str(trial)
            known = self.entries.get(name)
            if known is None or (known["status"] in ("running", "interrupted") and trial.status == "PENDING"):
                self._note(trial, "waiting")

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._note(trial, "running")
        self.board.begin(str(trial), trial.config)
        self._say(f"{trial} started")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self.last[str(trial)] = result
        for event in filter(None, str(result.get("events", "")).split("; ")):
            self._say(f"{trial}: {event}")
        score = result.get(self.metric)
        shown = f"{self.metric} {report.show(score)}" if score is not None else f"no {self.metric} in this row"
        self._say(
            f"{trial} epoch {result['epoch']}/{self.epochs}: {shown}, "
            f"loss {report.show(result.get('loss'))}, {bound(result)}"
        )
        self._advance()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        result = self.last.get(str(trial)) or trial.last_result or {}
        whole = result.get("epoch", 0) >= self.epochs
        self._note(trial, "finished" if whole else "stopped early")
        self.board.end(str(trial), succeeded=True)
        if whole:
            return
        self._say(
            f"{trial} stopped early by {self.scheduler} after epoch {result.get('epoch')}: "
            f"{self.metric} {report.show(result.get(self.metric))}; {self._comparison()}"
        )
        self._advance()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._note(trial, "failed")
        self.board.end(str(trial), succeeded=False)
        self._say(f"{trial} failed: see {self.folder / 'trials' / str(trial) / 'trial.log'}")

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        for trial in trials:
            if self.entries.get(str(trial), {}).get("status") in ("running", "waiting"):
                self._note(trial, "interrupted")
        self.board.close()
        if self.screen is not None:
            self.screen.stop()
            self.screen = None

    # --- what it writes and shows ---

    def _note(self, trial: Any, status: str) -> None:
        """Record a trial's status in trials.json."""
        self.entries[str(trial)] = {"name": str(trial), "id": trial.trial_id, "values": trial.config, "status": status}
        file = self.folder / report.TRIALS
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(sorted(self.entries.values(), key=lambda entry: entry["name"]), indent=1))
        partial.replace(file)

    def _say(self, text: str) -> None:
        stamped = f"{time.strftime('%H:%M:%S')} {text}"
        with (self.folder / "sweep.log").open("a") as file:
            file.write(stamped + "\n")
        self.console.print(stamped, markup=False)

    def _comparison(self) -> str:
        """The other trials' metric, for the line that says why one was stopped."""
        others = [
            f"{name.partition('_')[0]}: {report.show(row[self.metric])}"
            for name, row in self.last.items()
            if self.metric in row
        ]
        return f"at their last rows {', '.join(others)}"

    def _advance(self) -> None:
        done = sum(
            self.epochs
            if self.entries.get(name, {}).get("status") in ("finished", "stopped early", "failed")
            else row.get("epoch", 0)
            for name, row in self.last.items()
        )
        self.progress.update(self.bar, completed=done)

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for name in (
            "trial",
            "status",
            "epoch",
            self.metric.removeprefix("probe/"),
            "untrained",
            "loss",
            "pairs/s",
            "bound by",
        ):
            table.add_column(name, justify="left" if name in ("trial", "status", "bound by") else "right")
        for name, entry in sorted(self.entries.items()):
            row = self.last.get(name, {})
            table.add_row(
                name,
                entry["status"],
                f"{row.get('epoch', 0)}/{self.epochs}",
                report.show(row.get(self.metric)),
                report.show(row.get(f"{self.metric}_untrained")),
                report.show(row.get("loss")),
                f"{row['pairs_per_second']:.0f}" if "pairs_per_second" in row else "–",
                waits_for(row) if row else "–",
                style="dim" if entry["status"] in ("finished", "stopped early", "waiting") else None,
            )
        return Group(table, self.progress)
