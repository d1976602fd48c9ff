"""The points of a search: the values of each trial, known before the first trial starts."""

import itertools
import math
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from doppel_ray.config.search import Space

if TYPE_CHECKING:
    from doppel_ray.config.experiment import Experiment

Point = dict[str, Any]
"""Dotted key -> value."""
SEED = "run.seed"


def points(experiment: "Experiment") -> list[Point]:
    """Return every point of grids and random draws, in order.

    All samples (passes over the grid, each with new draws) come before the first repeat. A draw is a function of
    `run.seed`, its key and its number, so that more samples or repeats do not change earlier points.
    """
    search, seed, tune = experiment.search, experiment.run.seed, experiment.tune
    grids = {key: space.grid for key, space in search.items() if space.grid is not None}
    combinations = [dict(zip(grids, values, strict=True)) for values in itertools.product(*grids.values())]
    drawn = [
        {key: grid[key] if key in grid else draw(space, key, seed, number) for key, space in search.items()}
        for number, grid in enumerate(combinations * tune.samples)
    ]
    if tune.repeats == 1:
        return drawn
    return [{**point, SEED: seed + repeat} for repeat in range(tune.repeats) for point in drawn]


def searched_keys(experiment: "Experiment") -> dict[str, Space]:
    """Return the keys in which trials differ: the search, and the seed if points are repeated."""
    seed, repeats = experiment.run.seed, experiment.tune.repeats
    return experiment.search | ({SEED: Space(randint=(seed, seed + repeats))} if repeats > 1 else {})


def draw(space: Space, key: str, seed: int, number: int) -> Any:
    """Draw the value with this number from a space."""
    random = np.random.default_rng([seed, zlib.crc32(key.encode()), number])
    if space.choice is not None:
        return space.choice[random.integers(len(space.choice))]
    if space.randint is not None:
        return int(random.integers(*space.randint))
    if space.uniform is not None:
        return float(random.uniform(*space.uniform))
    assert space.loguniform is not None
    low, high = space.loguniform
    return math.exp(random.uniform(math.log(low), math.log(high)))


def trial_count(experiment: "Experiment") -> int:
    """Return the number of trials of the whole sweep."""
    return experiment.tune.samples if experiment.tune.searcher == "optuna" else len(points(experiment))


def remaining(experiment: "Experiment", known: list[Point]) -> list[Point]:
    """Return the points that have no trial yet.

    Points are equal if they give the same experiment, whichever keys they name; each known point counts once.

    Args:
        experiment: what is swept.
        known: points of the existing trials.
    """
    done = [_experiment_at(experiment, point) for point in known]
    found = []
    for point in points(experiment):
        trial = _experiment_at(experiment, point)
        if trial in done:
            done.remove(trial)
        else:
            found.append(point)
    return found


def _experiment_at(experiment: "Experiment", point: Mapping[str, Any]) -> dict[str, Any]:
    """Return the experiment of a point as plain data, without the sections of the sweep itself."""
    plain = experiment.with_values(point).plain()
    return {name: section for name, section in plain.items() if name not in ("tune", "search")}
