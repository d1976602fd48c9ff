"""The limits of a sweep on time and pairs, and the names of its trials."""

import time
from collections.abc import Sequence

from ray.tune import Stopper

from doppel_ray.config.experiment import Experiment
from doppel_ray.runs import reader
from doppel_ray.runs.metrics_log import Row


def number_of(name: str) -> int:
    """Return the number that a trial's name begins with."""
    return int(name.partition("_")[0])


def identifier(run: str, number: int) -> str:
    """Return Ray Tune's identifier of a trial; the same whenever the sweep resumes."""
    return f"{run}_{number:05d}"


class Budget(Stopper):
    """Ends each trial at its next row once the sweep has used up its time or its pairs.

    Args:
        experiment: the sweep's.
        run: the sweep's identifier.
        past: trials of the sweep before it resumed; their pairs count, their time does not.
    """

    def __init__(self, experiment: Experiment, run: str, past: Sequence[reader.Trial] = ()) -> None:
        self.minutes, self.max_pairs = experiment.tune.minutes, experiment.tune.pairs
        self.began = time.monotonic()
        self.pairs = {identifier(run, number_of(trial.name)): trial.rows[-1]["pairs"] for trial in past if trial.rows}

    def __call__(self, trial_id: str, result: Row) -> bool:
        self.pairs[trial_id] = result["pairs"]
        return self.spent() is not None

    def stop_all(self) -> bool:
        return False

    def spent(self) -> str | None:
        """Return which limit is used up, or None."""
        if self.minutes is not None and time.monotonic() - self.began >= 60 * self.minutes:
            return f"{self.minutes:g} minutes (tune.minutes)"
        if self.max_pairs is not None and sum(self.pairs.values()) >= self.max_pairs:
            return f"{self.max_pairs:,} pairs (tune.pairs)"
        return None
