"""The trials of a sweep in the order in which they start, and when to start no more.

What a sweep has done is in its folder, as JSON; Ray Tune is told of it, and nothing of Ray Tune's own is ever read
back. So an interrupted sweep goes on, and a finished one is extended, from that record alone.
"""

import copy
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray.tune.experiment import Trial
from ray.tune.search import SearchAlgorithm, Searcher

from doppel_ray.cluster.ray_compat import _create_trial_from_spec, _make_parser
from doppel_ray.config.search import label
from doppel_ray.config.variants import Point
from doppel_ray.runs import reader
from doppel_ray.runs.metrics_log import Row
from doppel_ray.tune.budget import Budget, identifier, number_of

if TYPE_CHECKING:
    pass

LONGEST_VALUE = 24
"""Characters of a value in a trial's name: a long one, such as a chain of augmentations, hides no other."""
LONGEST_NAME = 100
"""Characters of a trial's name, which is a folder's too."""


def trial_name(number: int, point: Mapping[str, Any]) -> str:
    """`003_delta=0.05`: the trial's number and what the search gave it."""
    values = "_".join(f"{key.rpartition('.')[2]}={label(value)[:LONGEST_VALUE]}" for key, value in point.items())
    return re.sub(r"[^A-Za-z0-9=._+-]", "-", f"{number:03d}_{values}".rstrip("_"))[:LONGEST_NAME]


@dataclass(frozen=True)
class Ended:
    """A trial of an earlier life that will not run again, as schedulers see it."""

    trial_id: str


class TrialQueue(SearchAlgorithm):
    """Hands Ray Tune one trial after another.

    Args:
        run: the sweep's name, which the trials' identifiers begin with.
        past: trials of an earlier life of the sweep; those that have not ended come first, under their own names.
        rest: the points that come then, or what chooses them.
        total: trials of the whole sweep, those of the past included.
        concurrent: trials side by side, at most.
        budget: after which none begins.
        recall: tells the scheduler of the rows that a trial of the past has sent.
    """

    def __init__(
        self,
        run: str,
        past: Sequence[reader.Trial],
        rest: Sequence[Point] | Searcher,
        total: int,
        concurrent: int,
        budget: Budget,
        recall: Callable[[Any, Sequence[Row]], None],
    ) -> None:
        self.run, self.total, self.concurrent, self.budget, self.recall = run, total, concurrent, budget, recall
        self.unfinished = deque(trial for trial in past if trial.status not in reader.ENDED)
        self.searcher = rest if isinstance(rest, Searcher) else None
        self.points = deque(() if isinstance(rest, Searcher) else rest)
        self.number = 1 + max((number_of(trial.name) for trial in past), default=-1)
        """Of the next trial that is new."""
        self.live: set[str] = set()
        self.suggested: set[str] = set()
        """Trials that the searcher has chosen, and waits to hear of."""
        self.parser = _make_parser()
        self.spec: dict[str, Any] = {}
        for trial in past:
            if trial.status in reader.ENDED:
                recall(Ended(identifier(run, number_of(trial.name))), trial.rows)

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
            made = self._make(number_of(known.name), known.name, known.values, known.point)
            self.recall(made, known.rows)
            return made
        point = self._next_point()
        if point is None:
            return None
        made = self._make(self.number, trial_name(self.number, point), point, point)
        self.number += 1
        return made

    def _next_point(self) -> Point | None:
        """What the next new trial is given; None: not now."""
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
        made = _create_trial_from_spec(
            spec, self.parser, trial_id=identifier(self.run, number), evaluated_params=point, experiment_tag=name
        )
        made.custom_trial_name = made.custom_dirname = name
        self.live.add(made.trial_id)
        return made

    def on_trial_result(self, trial_id: str, result: Row) -> None:
        if self.searcher is not None and trial_id in self.suggested:
            self.searcher.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: Row | None = None, error: bool = False) -> None:
        self.live.discard(trial_id)
        if self.searcher is not None and trial_id in self.suggested:
            self.searcher.on_trial_complete(trial_id, result, error)

    def is_finished(self) -> bool:
        """Whether no trial will begin any more."""
        if self._finished or self.budget.spent() is not None:
            return True
        return not self.unfinished and (self.number >= self.total if self.searcher else not self.points)
