"""The trials of a sweep: in which order they start, and when no more start.

The sweep's folder records, as JSON, what has been done. Ray Tune gets it from there, and its own state is never read.
So an interrupted sweep resumes, and a finished one is extended, from that record alone.
"""

import copy
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.search import SearchAlgorithm, Searcher

from doppel_ray.cluster.ray_compat import _create_trial_from_spec, _make_parser
from doppel_ray.config.experiment import Experiment
from doppel_ray.config.search import label
from doppel_ray.config.variants import Point, remaining, trial_count
from doppel_ray.runs import reader
from doppel_ray.runs.metrics_log import Row
from doppel_ray.tune import schedulers
from doppel_ray.tune.budget import Budget, identifier, number_of

MAX_VALUE = 24
"""Characters of a value in a trial's name, so that a long one, such as a chain of augmentations, hides no other."""
MAX_NAME = 100
"""Characters of a trial's name, which is its folder's too."""


def trial_name(number: int, point: Mapping[str, Any]) -> str:
    """Return `003_delta=0.05`: the trial's number and the values that the search gave it."""
    values = "_".join(f"{key.rpartition('.')[2]}={label(value)[:MAX_VALUE]}" for key, value in point.items())
    return re.sub(r"[^A-Za-z0-9=._+-]", "-", f"{number:03d}_{values}".rstrip("_"))[:MAX_NAME]


@dataclass(frozen=True)
class Ended:
    """A trial that ended before the sweep resumed, as schedulers see it."""

    trial_id: str


class TrialQueue(SearchAlgorithm):
    """Gives Ray Tune one trial after another.

    Args:
        run: the sweep's identifier, with which the trials' identifiers begin.
        past: trials from before the sweep resumed; those that have not ended come first, under their own names.
        rest: the points that come then, or the searcher that chooses them.
        total: trials of the whole sweep, with those of the past.
        concurrent: trials side by side, at most.
        budget: no trial starts once it is used up.
        replay: gives the scheduler the rows of a past trial.
    """

    def __init__(
        self,
        run: str,
        past: Sequence[reader.Trial],
        rest: Sequence[Point] | Searcher,
        total: int,
        concurrent: int,
        budget: Budget,
        replay: Callable[[Any, Sequence[Row]], None],
    ) -> None:
        self.run, self.total, self.concurrent, self.budget, self.replay = run, total, concurrent, budget, replay
        self.unfinished = deque(trial for trial in past if trial.status not in reader.ENDED)
        self.searcher = rest if isinstance(rest, Searcher) else None
        self.points = deque(() if isinstance(rest, Searcher) else rest)
        self.number = 1 + max((number_of(trial.name) for trial in past), default=-1)
        """Of the next new trial."""
        self.live: set[str] = set()
        """Identifiers of the trials that have started and not ended."""
        self.suggested: set[str] = set()
        """Identifiers of the trials that the searcher has chosen; it gets their results."""
        self.parser = _make_parser()
        self.spec: dict[str, Any] = {}
        for trial in past:
            if trial.status in reader.ENDED:
                replay(Ended(identifier(run, number_of(trial.name))), trial.rows)

    @property
    def total_samples(self) -> int:
        return self.total

    def add_configurations(self, experiments: Any) -> None:
        self.spec = experiments[0].spec

    def next_trial(self) -> Trial | None:
        if self.is_finished() or len(self.live) >= self.concurrent:
            return None
        if self.unfinished:
            known = self.unfinished.popleft()
            trial = self._make(number_of(known.name), known.name, known.values, known.point)
            self.replay(trial, known.rows)
            return trial
        point = self._next_point()
        if point is None:
            return None
        trial = self._make(self.number, trial_name(self.number, point), point, point)
        self.number += 1
        return trial

    def _next_point(self) -> Point | None:
        """Return the point of the next new trial; None: the searcher has none now."""
        if self.searcher is None:
            return self.points.popleft()
        trial_id = identifier(self.run, self.number)
        found = self.searcher.suggest(trial_id)
        if not isinstance(found, dict):
            return None
        self.suggested.add(trial_id)
        return found

    def _make(self, number: int, name: str, values: Point, point: Point) -> Trial:
        spec = {**self.spec, "config": copy.deepcopy(values)}
        trial = _create_trial_from_spec(
            spec, self.parser, trial_id=identifier(self.run, number), evaluated_params=point, experiment_tag=name
        )
        trial.custom_trial_name = trial.custom_dirname = name
        self.live.add(trial.trial_id)
        return trial

    def on_trial_result(self, trial_id: str, result: Row) -> None:
        if self.searcher is not None and trial_id in self.suggested:
            self.searcher.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: Row | None = None, error: bool = False) -> None:
        self.live.discard(trial_id)
        if self.searcher is not None and trial_id in self.suggested:
            self.searcher.on_trial_complete(trial_id, result, error)

    def is_finished(self) -> bool:
        """Return whether no more trials will start."""
        if self._finished or self.budget.spent() is not None:
            return True
        return not self.unfinished and (self.number >= self.total if self.searcher else not self.points)


def trial_queue(
    experiment: Experiment, run: str, past: Sequence[reader.Trial], concurrent: int, scheduler: Any, budget: Budget
) -> TrialQueue:
    """Return the trials that are to run.

    Args:
        experiment: the sweep's.
        run: the sweep's identifier.
        past: trials from before the sweep resumed.
        concurrent: trials side by side, at most.
        scheduler: gets the rows of the past.
        budget: ends the sweep.
    """
    replay = getattr(scheduler, "replay", lambda trial, rows: None)
    if experiment.tune.searcher == "optuna":
        searcher = schedulers.build_optuna(experiment, past)
        return TrialQueue(run, past, searcher, trial_count(experiment), concurrent, budget, replay)
    rest = remaining(experiment, [trial.point for trial in past])
    return TrialQueue(run, past, rest, len(past) + len(rest), concurrent, budget, replay)
