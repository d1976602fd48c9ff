"""Runs and their trials, as their folders tell them: whole, unfinished or damaged."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from doppel_ray.config.variants import SEED
from doppel_ray.core import dotted_keys
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.score_names import VALID, is_test, reported
from doppel_ray.runs.metrics_log import POPULATION, ROWS, Row, best, checkpoint_name, checkpoint_of, number, valid_rows

RUN = "run.json"
"""What a run is: the resolved experiment, command, versions, commit, machine."""
TRIALS = "trials.json"
"""The trials of a run: name, values and status of each."""
EXPERIMENT = "experiment.json"
"""A trial's own resolved experiment."""
ENDED = ("finished", "stopped early")
"""Statuses of trials that are not to be run again."""
OVER = (*ENDED, "failed")
"""Statuses of trials that no longer run; those that failed are tried again when the sweep is resumed."""
UNKNOWN = "unknown"
"""Status of a trial that only its folder tells of."""


@dataclass(frozen=True)
class Trial:
    """One trial as its folder tells it.

    Attributes:
        name: its folder's name.
        values: what the search gave it; with population-based training those that are in force.
        point: what it began with.
        status: "waiting", "running", "finished", "stopped early", "failed", "interrupted" or "unknown".
        rows: one per reported checkpoint, oldest first.
        experiment: its resolved experiment, as plain data; None: it has not begun, or the file is damaged.
    """

    name: str
    folder: Path
    values: dict[str, Any]
    point: dict[str, Any]
    status: str
    rows: list[Row]
    experiment: dict[str, Any] | None = None

    def best(self, metric: str, mode: str) -> Row | None:
        """The row that is best by `metric`; None if no row has it."""
        return best(self.rows, metric, mode)

    def last(self, name: str) -> Row | None:
        """The last row with a number in column `name`."""
        return next((row for row in reversed(self.rows) if number(row.get(name)) is not None), None)

    def checkpoint(self, row: Row) -> Path | None:
        """A row's checkpoint, as `rows.checkpoint_of`."""
        return checkpoint_of(self.folder, row)

    def no_checkpoint(self, row: Row) -> str:
        """What is said where a row's checkpoint would be named, and there is none."""
        told = checkpoint_name(row)
        return f"{told} is gone (train.keep)" if told else "none"

    def total(self, name: str, until: Row | None = None) -> float | None:
        """Sum of a column over all rows, or up to one; None if a row lacks it."""
        rows = self.rows if until is None else self.rows[: self.rows.index(until) + 1]
        found = [number(row.get(name)) for row in rows]
        return sum(value for value in found if value is not None) if found and None not in found else None

    def values_at(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What the search gave it when a row was sent: a population's values change."""
        return {key: row.get(f"{POPULATION}{key}", value) for key, value in self.values.items()}

    def command(self, run: str) -> str | None:
        """A command that trains this trial again, alone, into a run folder of its own; None if it has not begun.

        Args:
            run: name of its run.
        """
        if self.experiment is None:
            return None
        name = f"{run}-{self.name}"
        return shlex.join(
            ["python", "-m", "doppel_ray.train", "--config", str(self.folder / EXPERIMENT), "--run.name", name]
        )


@dataclass(frozen=True)
class Run:
    """A run's folder.

    Attributes:
        about: run.json; empty if that is missing or damaged.
        trials: in the order of their names.
        missing: what is damaged or not there, a line for each.
    """

    folder: Path
    about: dict[str, Any]
    trials: list[Trial]
    missing: list[str]

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @cached_property
    def experiment(self) -> dict[str, Any]:
        """What was asked for, as plain data; of a trial if run.json cannot tell, or empty."""
        told = (self.about.get("experiment"), *(trial.experiment for trial in self.trials))
        return next((experiment for experiment in told if experiment), {})

    @cached_property
    def metric(self) -> str:
        """What its trials are chosen by: `tune.metric`, or the first task's first metric if that is not known."""
        rows = (row for trial in self.trials for row in trial.rows)
        firsts = (name.removesuffix("_untrained") for row in rows for name in row if name.endswith("_untrained"))
        return self.chosen_by(dotted_keys.lookup(self.experiment, "tune.metric") or next(firsts, "loss"))

    def chosen_by(self, metric: str) -> str:
        """Return the validation score that belongs to `metric`; the test score in a run from before there were any."""
        test = reported(metric)
        valid = f"{test}{VALID}"
        scored = [row for trial in self.trials for row in trial.rows if number(row.get(test)) is not None]
        if not is_test(test) or not scored:
            return metric
        return valid if all(valid in row for row in scored) else test

    @property
    def mode(self) -> str:
        return dotted_keys.lookup(self.experiment, "tune.mode") or ("min" if self.metric == "loss" else "max")

    @property
    def is_population(self) -> bool:
        """Whether values change while trials run."""
        return dotted_keys.lookup(self.experiment, "tune.scheduler") == "pbt"

    @property
    def warnings(self) -> list[str]:
        """What a reader of its scores must know; runs from before do not tell."""
        return self.about.get("warnings") or []

    @property
    def asked(self) -> int:
        """Trials that the whole sweep has; 0 if that is not known."""
        trials = (dotted_keys.lookup(self.experiment, "tune.samples") or 0) * (
            dotted_keys.lookup(self.experiment, "tune.repeats") or 1
        )
        for space in (self.experiment.get("search") or {}).values():
            trials *= len(space.get("grid") or [None])
        return trials


def about(folder: Path) -> dict[str, Any]:
    """What a run is, as its run.json says.

    Raises:
        ConfigError: it is not there, or damaged.
    """
    try:
        found = json.loads((folder / RUN).read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{folder} holds no run: {RUN} is missing") from None
    except ValueError as error:
        raise ConfigError(f"{folder / RUN} is damaged: {error}") from None
    if not isinstance(dotted_keys.lookup(found, "experiment.tune"), dict):
        raise ConfigError(f"{folder / RUN} is damaged: it holds no experiment")
    return found


def read(folder: Path) -> Run:
    """Read a run's folder; what is damaged or missing there is made up for as far as it can be, and named.

    Raises:
        ConfigError: it is no run's folder.
    """
    missing: list[str] = []
    try:
        what = about(folder)
    except ConfigError as error:
        if not (folder / TRIALS).exists() and not (folder / "trials").is_dir():
            raise
        missing.append(f"{error}. Command, versions and machine are not known")
        what = {}
    trials = _known(folder, missing)
    if trials is None:
        trials = _found(folder, missing)
    run = Run(folder, what, trials, missing)
    if 0 < len(trials) < run.asked:
        missing.append(f"{run.asked - len(trials)} of {run.asked} trials have not begun")
    return run


def _known(folder: Path, missing: list[str]) -> list[Trial] | None:
    """The trials that trials.json lists; None if it cannot be read."""
    file = folder / TRIALS
    folders = folder / "trials"
    try:
        trials = [
            _trial(
                folders / entry["name"],
                dict(entry["values"]),
                dict(entry.get("point", entry["values"])),
                str(entry["status"]),
                missing,
            )
            for entry in json.loads(file.read_text())
        ]
    except FileNotFoundError:
        if folders.is_dir():
            missing.append(f"{file} is missing: the trials are those of the folders in {folders}")
        return None
    except (ValueError, TypeError, KeyError) as error:
        missing.append(f"{file} is damaged ({error!r}): the trials are those of the folders in {folders}")
        return None
    strays = {path.name for path in _folders(folders)} - {trial.name for trial in trials}
    missing.extend(f"{folders / name} is not in {TRIALS} and left out" for name in sorted(strays))
    return trials


def _found(folder: Path, missing: list[str]) -> list[Trial]:
    """The trials whose folders are there; each one's own experiment says what was searched."""
    trials = []
    for path in _folders(folder / "trials"):
        experiment = _experiment(path) or {}
        repeated = [SEED] if (dotted_keys.lookup(experiment, "tune.repeats") or 1) > 1 else []
        values = {key: dotted_keys.lookup(experiment, key) for key in (*(experiment.get("search") or {}), *repeated)}
        trials.append(_trial(path, values, values, UNKNOWN, missing))
    return trials


def _folders(folder: Path) -> list[Path]:
    """Those of trials, whose names begin with a number; `sweep` beside them is TensorBoard's."""
    return sorted(folder.glob("[0-9]*/")) if folder.is_dir() else []


def _trial(folder: Path, values: dict[str, Any], point: dict[str, Any], status: str, missing: list[str]) -> Trial:
    """A trial from its folder; what that lacks is added to `missing`."""
    rows, damaged = valid_rows(folder)
    experiment = _experiment(folder)
    if damaged:
        missing.append(f"{folder / ROWS}: {damaged} damaged {'line' if damaged == 1 else 'lines'} left out")
    if not rows and status in ("finished", "stopped early", UNKNOWN):
        missing.append(f"{folder / ROWS} holds no row, and the trial's status is {status}")
    if rows and experiment is None:
        missing.append(f"{folder / EXPERIMENT} is missing or damaged: there is no command to train this trial again")
    return Trial(folder.name, folder, values, point, status, rows, experiment)


def _experiment(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / EXPERIMENT).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
