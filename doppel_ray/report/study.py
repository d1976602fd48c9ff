"""The subject of a report: the trials of one or several runs, grouped into settings.

Trials that differ only in `run.seed` are repeats of one setting. A setting's score is the mean over its seeds, with the
95 % interval of Student's t over them; a single trial's score has the bootstrap interval over test examples from its
row. Each trial counts with its best row by the run's metric, a validation score; that row's test score is reported.
"""

import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from doppel_ray.config.search import label
from doppel_ray.config.variants import SEED
from doppel_ray.core import dotted_keys
from doppel_ray.core.score_names import VALID, is_test, reported
from doppel_ray.runs.metrics_log import Row, number
from doppel_ray.runs.reader import Run, Trial

RUN_KEY = "run"
"""Key of the run's name among a setting's values, where several runs are compared."""
BASELINES = {"untrained": "same encoder, untrained", "mel": "mel statistics"}
"""Ending of a baseline's column -> its name."""


@dataclass(frozen=True)
class Score:
    """A score with its 95 % interval.

    Attributes:
        low, high: None if they are not known.
        over: what varies over the interval.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    over: Literal["seeds", "test examples", ""] = ""


def over_seeds(values: Sequence[float]) -> Score:
    """Return the mean of two or more seeds' values, with Student's t interval: mean ± t(0.975, n - 1) · s / √n."""
    from scipy.special import stdtrit  # late: slow to load, and few reports need it

    mean, count = statistics.fmean(values), len(values)
    half = float(stdtrit(count - 1, 0.975)) * statistics.stdev(values) / math.sqrt(count)
    return Score(mean, mean - half, mean + half, "seeds")


@dataclass(frozen=True)
class Setting:
    """One point of a search, with all its repeats.

    Attributes:
        values: its searched values without the seed, in the order of the study's keys.
        repeats: (run, trial, seed) of each.
        metric, mode: that choose a trial's best row; in an older run without validation scores a test score.
    """

    values: dict[str, Any]
    repeats: tuple[tuple[Run, Trial, Any], ...]
    metric: str
    mode: str

    @property
    def trials(self) -> list[Trial]:
        return [trial for _, trial, _ in self.repeats]

    @property
    def runs(self) -> list[Run]:
        return [run for run, _, _ in self.repeats]

    @property
    def seeds(self) -> int:
        return len({seed for _, _, seed in self.repeats})

    @property
    def status(self) -> str:
        found = [trial.status for trial in self.trials]
        if len(set(found)) == 1:
            return found[0]
        return ", ".join(f"{found.count(status)} {status}" for status in dict.fromkeys(found))

    def best(self, trial: Trial) -> Row | None:
        """Return the row that a trial counts with."""
        return trial.best(self.metric, self.mode)

    @cached_property
    def champion(self) -> Trial:
        """The trial whose best row is the best."""
        having = [trial for trial in self.trials if self.best(trial)]
        sign = 1 if self.mode == "max" else -1
        return max(having, key=lambda trial: sign * (self.best(trial) or {})[self.metric], default=self.trials[0])

    def by_seed(self, value: Callable[[Trial], Any]) -> list[float]:
        """Return a number of each seed's trial (the mean over the trials of one seed), for seeds that have it."""
        found: dict[Any, list[float]] = {}
        for _, trial, seed in self.repeats:
            if (given := number(value(trial))) is not None:
                found.setdefault(seed, []).append(given)
        return [statistics.fmean(values) for values in found.values()]

    def mean(self, value: Callable[[Trial], Any]) -> float | None:
        """Return the mean over the seeds of a number of each trial; None if no trial has it."""
        found = self.by_seed(value)
        return statistics.fmean(found) if found else None

    def score(self, name: str) -> Score | None:
        """Return a score at the trials' best rows, with its interval; None if there is none."""
        found = self.by_seed(lambda trial: (self.best(trial) or {}).get(name))
        if len(found) > 1:
            return over_seeds(found)
        row = self.best(self.champion) or {}
        mean = number(row.get(name))
        if mean is None:
            return Score(found[0]) if found else None
        low, high = (number(row.get(f"{name}_{end}")) for end in ("low", "high"))
        return Score(mean, low, high, "" if low is None else "test examples")

    def last(self, name: str) -> float | None:
        """Return a score at the trials' last rows that have it."""
        return self.mean(lambda trial: (trial.last(name) or {}).get(name))

    def baseline(self, name: str, which: str) -> float | None:
        """Return a baseline's score on the same splits."""
        return self.mean(lambda trial: (self.best(trial) or {}).get(f"{name}_{which}"))

    def gain(self, name: str) -> float | None:
        """Return how much better a score is than the better of its baselines; None without baselines."""
        score = self.score(name)
        known = [value for which in BASELINES if (value := self.baseline(name, which)) is not None]
        if score is None or not known:
            return None
        if name == reported(self.metric) and self.mode == "min":
            return min(known) - score.mean
        return score.mean - max(known)

    def cost(self, column: str) -> float | None:
        """Return the sum of a column over a trial's rows, as the mean over the repeats."""
        return self.mean(lambda trial: trial.total(column))

    def cost_of_best(self, column: str) -> float | None:
        """Return the same up to the row that counts."""
        return self.mean(lambda trial: trial.total(column, row) if (row := self.best(trial)) else None)


@dataclass(frozen=True)
class Study:
    """One run, or several to compare.

    Attributes:
        runs: with their trials.
        metric, mode: that choose trials: the first run's.
        keys: searched keys without the seed; with several runs the first is the run.
        settings: best first, those without the metric last.
    """

    runs: tuple[Run, ...]
    metric: str
    mode: str
    keys: tuple[str, ...]
    settings: tuple[Setting, ...]

    @property
    def reported(self) -> str:
        """The test score to report for what the metric has chosen."""
        return reported(self.metric)

    @property
    def chosen_on_test(self) -> list[str]:
        """Names of the runs whose trials were chosen by the reported test scores."""
        return [run.name for run in self.runs if is_test(run.chosen_by(self.metric))]

    @property
    def trials(self) -> int:
        return sum(len(setting.repeats) for setting in self.settings)

    @property
    def has_repeats(self) -> bool:
        return any(len(setting.repeats) > 1 for setting in self.settings)

    @cached_property
    def varied(self) -> list[str]:
        """Keys with more than one value."""
        return [key for key in self.keys if len(self.labels[key]) > 1]

    @cached_property
    def scores(self) -> list[str]:
        """Columns of the reported score, then of every other task's main score."""
        names: dict[str, None] = {self.reported: None}
        for setting in self.settings:
            for trial in setting.trials:
                for row in trial.rows:
                    for name in row:
                        if name.startswith("probe/") and name.endswith("_untrained"):  # only main scores have one
                            names[name.removesuffix("_untrained")] = None
        return list(names)

    @cached_property
    def labels(self) -> dict[str, dict[str, str]]:
        """Key -> value (as JSON) -> a short name, unique among the key's values."""
        return {key: _labels(setting.values.get(key) for setting in self.settings) for key in self.keys}

    def label(self, setting: Setting, key: str) -> str:
        """Return the short name of a setting's value."""
        return self.labels[key][_plain(setting.values.get(key))]

    def title(self, setting: Setting, keys: Iterable[str] | None = None) -> str:
        """Return the values that distinguish a setting, of all varied keys or of `keys`: `δ 0.05, encoder.kind cnn`."""
        keys = self.varied if keys is None else keys
        named = [
            self.label(setting, key) if key == RUN_KEY else f"{short(key)} {self.label(setting, key)}" for key in keys
        ]
        return ", ".join(named) or (setting.champion.name if len(self.settings) > 1 else self.runs[0].name)

    def is_numeric(self, key: str) -> bool:
        """Return whether a key has several values, all of them numbers."""
        values = [setting.values.get(key) for setting in self.settings]
        return key in self.varied and all(number(value) is not None for value in values)

    def reported_score(self, setting: Setting) -> float | None:
        """Return a setting's reported score."""
        score = setting.score(self.reported)
        return None if score is None else score.mean

    def validation(self, setting: Setting) -> float | None:
        """Return the validation score that chose a setting's rows; None if another metric did."""
        score = setting.score(self.metric) if self.metric.endswith(VALID) else None
        return None if score is None else score.mean

    def baseline(self, name: str, which: str) -> float | None:
        """Return a baseline's mean over all settings, which share it unless the encoder is searched."""
        found = [value for setting in self.settings if (value := setting.baseline(name, which)) is not None]
        return statistics.fmean(found) if found else None


def study(runs: Sequence[Run]) -> Study:
    """Group the trials of runs into settings, best first."""
    chosen_by = {run.folder: run.chosen_by(runs[0].metric) for run in runs}
    metric = next((found for found in chosen_by.values() if found.endswith(VALID)), runs[0].metric)
    mode = runs[0].mode
    searched = dict.fromkeys(key for run in runs for trial in run.trials for key in trial.values if key != SEED)
    keys = (*([RUN_KEY] if len(runs) > 1 else []), *searched)
    groups: dict[str, Setting] = {}
    for run in runs:
        for trial in run.trials:
            given = trial.values_at(trial.best(chosen_by[run.folder], mode) or {})
            values = {key: given[key] if key in given else dotted_keys.lookup(run.experiment, key) for key in searched}
            values = ({RUN_KEY: run.name} if len(runs) > 1 else {}) | values
            seed = trial.values.get(SEED, dotted_keys.lookup(run.experiment, SEED))
            # Trials of a population that arrive at the same values are not repeats.
            group = _plain([str(run.folder), values, trial.name if run.is_population else None])
            known = groups[group].repeats if group in groups else ()
            groups[group] = Setting(values, (*known, (run, trial, seed)), chosen_by[run.folder], mode)

    def rank(setting: Setting) -> float:
        score = setting.score(setting.metric)
        return math.inf if score is None else -score.mean if mode == "max" else score.mean

    return Study(tuple(runs), metric, mode, keys, tuple(sorted(groups.values(), key=rank)))


def short(key: str) -> str:
    """Return a key for a heading or an axis: `δ`."""
    return "δ" if key == "pairs.delta" else key


def title(name: str) -> str:
    """Return a column for a heading or an axis: `esc10 accuracy`."""
    return name.removeprefix("probe/").replace("/", " ")


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _labels(values: Iterable[Any]) -> dict[str, str]:
    known = {_plain(value): "–" if value is None else label(value) for value in values}
    taken = list(known.values())
    return {plain: name if taken.count(name) == 1 else plain for plain, name in known.items()}
