"""When a sweep has used up its time or its pairs."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ray.tune import Stopper

from doppel_ray.runs import reader
from doppel_ray.runs.metrics_log import Row

if TYPE_CHECKING:
    from doppel_ray.config.experiment import Experiment


def number_of(name: str) -> int:
    """The number that a trial's name begins with."""
    return int(name.partition("_")[0])


def identifier(run: str, number: int) -> str:
    """What Ray Tune calls a trial; the same in every life of the sweep."""
    return f"{run}_{number:05d}"


class Budget(Stopper):
    """Ends trials with their next row once the sweep has used up its time or its pairs.

    Args:
        experiment: what is swept.
        run: the sweep's name.
        past: trials of an earlier life; their pairs count, their time does not.
    """

    def __init__(self, experiment: "Experiment", run: str, past: Sequence[reader.Trial] = ()) -> None:
        self.minutes, self.most = experiment.tune.minutes, experiment.tune.pairs
        self.began = time.monotonic()
        self.pairs = {identifier(run, number_of(trial.name)): trial.rows[-1]["pairs"] for trial in past if trial.rows}

    def __call__(self, trial_id: str, result: Row) -> bool:
        self.pairs[trial_id] = result["pairs"]
        return self.spent() is not None

    def stop_all(self) -> bool:
        return False

    def spent(self) -> str | None:
        """What is used up; None as long as there is something left."""
        if self.minutes is not None and time.monotonic() - self.began >= 60 * self.minutes:
            return f"{self.minutes:g} minutes (tune.minutes)"
        if self.most is not None and sum(self.pairs.values()) >= self.most:
            return f"{self.most:,} pairs (tune.pairs)"
        return None
