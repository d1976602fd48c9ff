"""Read runs and their trials from run folders, finished, unfinished or damaged."""

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
"""A run's resolved experiment, command, versions, commit and machine."""
TRIALS = "trials.json"
"""Name, values and status of each trial of a run."""
EXPERIMENT = "experiment.json"
"""A trial's resolved experiment."""
ENDED = ("finished", "stopped early")
"""Statuses of trials that never run again."""
OVER = (*ENDED, "failed")
"""Statuses of trials that no longer run; failed ones are retried when the sweep is resumed."""
UNKNOWN = "unknown"
"""Status of a trial that only its folder names."""


@dataclass(frozen=True)
class Trial:
    """A trial, read from its folder.

    Attributes:
        name: of its folder.
        values: its searched values; with population-based training those in force.
        point: the values that it started with.
        status: "waiting", "running", "finished", "stopped early", "failed", "interrupted" or "unknown".
        rows: one for each reported checkpoint, oldest first.
        experiment: its resolved experiment as plain data; None if it has not started, or the file is damaged.
    """

    name: str
    folder: Path
    values: dict[str, Any]
    point: dict[str, Any]
    status: str
    rows: list[Row]
    experiment: dict[str, Any] | None = None

    def best(self, metric: str, mode: str) -> Row | None:
        """Return the row that is best by `metric`; None if no row has it."""
        return best(self.rows, metric, mode)

    def last(self, name: str) -> Row | None:
        """Return the last row with a number in column `name`."""
        return next((row for row in reversed(self.rows) if number(row.get(name)) is not None), None)

    def checkpoint(self, row: Row) -> Path | None:
        """Return a row's checkpoint, as `metrics_log.checkpoint_of`."""
        return checkpoint_of(self.folder, row)

    def missing_checkpoint(self, row: Row) -> str:
        """Return the words in place of a row's checkpoint where there is none."""
        name = checkpoint_name(row)
        return f"{name} was deleted (train.keep)" if name else "none"

    def total(self, name: str, until: Row | None = None) -> float | None:
        """Return the sum of a column over all rows, or those up to `until`; None if a row lacks it."""
        rows = self.rows if until is None else self.rows[: self.rows.index(until) + 1]
        found = [number(row.get(name)) for row in rows]
        return sum(value for value in found if value is not None) if found and None not in found else None

    def values_at(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the searched values in force at a row: population-based training changes them."""
        return {key: row.get(f"{POPULATION}{key}", value) for key, value in self.values.items()}

    def command(self, run: str) -> str | None:
        """Return a command that trains this trial alone, into a new run folder; None if it has not started.

        Args:
            run: name of the trial's run.
        """
        if self.experiment is None:
            return None
        name = f"{run}-{self.name}"
        return shlex.join(
            ["python", "-m", "doppel_ray.train", "--config", str(self.folder / EXPERIMENT), "--run.name", name]
        )


@dataclass(frozen=True)
class Run:
    """A run, read from its folder.

    Attributes:
        about: content of run.json; empty if that is missing or damaged.
        trials: in the order of their names.
        missing: a line for each missing or damaged part.
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
        """Its experiment as plain data: from run.json, else from a trial, else empty."""
        known = (self.about.get("experiment"), *(trial.experiment for trial in self.trials))
        return next((experiment for experiment in known if experiment), {})

    @cached_property
    def metric(self) -> str:
        """The column that chooses trials: by `tune.metric`, or the first task's main score if that is not known."""
        rows = (row for trial in self.trials for row in trial.rows)
        firsts = (name.removesuffix("_untrained") for row in rows for name in row if name.endswith("_untrained"))
        return self.chosen_by(dotted_keys.lookup(self.experiment, "tune.metric") or next(firsts, "loss"))

    def chosen_by(self, metric: str) -> str:
        """Return the validation score that belongs to `metric`; its test score in an older run without validation."""
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
        """What a reader of the scores must know; older runs do not record it."""
        return self.about.get("warnings") or []

    @property
    def planned(self) -> int:
        """Number of trials of the whole sweep; 0 if that is not known."""
        trials = (dotted_keys.lookup(self.experiment, "tune.samples") or 0) * (
            dotted_keys.lookup(self.experiment, "tune.repeats") or 1
        )
        for space in (self.experiment.get("search") or {}).values():
            trials *= len(space.get("grid") or [None])
        return trials


def read_about(folder: Path) -> dict[str, Any]:
    """Read a run's run.json.

    Raises:
        ConfigError: it is missing or damaged.
    """
    try:
        found = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{folder} holds no run: {RUN} is missing") from None
    except ValueError as error:
        raise ConfigError(f"{folder / RUN} is damaged: {error}") from None
    if not isinstance(dotted_keys.lookup(found, "experiment.tune"), dict):
        raise ConfigError(f"{folder / RUN} is damaged: it holds no experiment")
    return found


def read(folder: Path) -> Run:
    """Read a run's folder, as far as it is there; `Run.missing` names the rest.

    Raises:
        ConfigError: it is not a run's folder.
    """
    missing: list[str] = []
    try:
        about = read_about(folder)
    except ConfigError as error:
        if not (folder / TRIALS).exists() and not (folder / "trials").is_dir():
            raise
        missing.append(f"{error}. Command, versions and machine are not known")
        about = {}
    trials = _listed_trials(folder, missing)
    if trials is None:
        trials = _trials_in_folders(folder, missing)
    run = Run(folder, about, trials, missing)
    if 0 < len(trials) < run.planned:
        missing.append(f"{run.planned - len(trials)} of {run.planned} trials have not started")
    return run


def _listed_trials(folder: Path, missing: list[str]) -> list[Trial] | None:
    """Read the trials that trials.json lists; None if it cannot be read."""
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
            for entry in json.loads(file.read_text(encoding="utf-8"))
        ]
    except FileNotFoundError:
        if folders.is_dir():
            missing.append(f"{file} is missing: trials are read from the folders in {folders}")
        return None
    except (ValueError, TypeError, KeyError) as error:
        missing.append(f"{file} is damaged ({error!r}): trials are read from the folders in {folders}")
        return None
    strays = {path.name for path in _folders(folders)} - {trial.name for trial in trials}
    missing.extend(f"{folders / name} is not in {TRIALS} and left out" for name in sorted(strays))
    return trials


def _trials_in_folders(folder: Path, missing: list[str]) -> list[Trial]:
    """Read the trials from their folders; their experiments name the searched keys."""
    trials = []
    for path in _folders(folder / "trials"):
        experiment = _experiment(path) or {}
        repeated = [SEED] if (dotted_keys.lookup(experiment, "tune.repeats") or 1) > 1 else []
        values = {key: dotted_keys.lookup(experiment, key) for key in (*(experiment.get("search") or {}), *repeated)}
        trials.append(_trial(path, values, values, UNKNOWN, missing))
    return trials


def _folders(folder: Path) -> list[Path]:
    """Return the folders of trials, whose names begin with a number; `sweep` beside them is TensorBoard's."""
    return sorted(folder.glob("[0-9]*/")) if folder.is_dir() else []


def _trial(folder: Path, values: dict[str, Any], point: dict[str, Any], status: str, missing: list[str]) -> Trial:
    """Read a trial from its folder; add missing and damaged parts to `missing`."""
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
        found = json.loads((folder / EXPERIMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
