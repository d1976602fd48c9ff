"""The points of a search: what each trial of a sweep is given, known before the first one starts."""

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
    """Every point that grids and random draws give, in order.

    Repeats come last, so that each point has been seen once before any is seen again; samples, each the whole grid with
    fresh draws, come before. A draw is a function of `run.seed`, its key and its number: more samples or repeats leave
    the earlier points as they were.
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


def searched(experiment: "Experiment") -> dict[str, Space]:
    """What tells trials apart: the search, and the seed where points are repeated."""
    seed, repeats = experiment.run.seed, experiment.tune.repeats
    return experiment.search | ({SEED: Space(randint=(seed, seed + repeats))} if repeats > 1 else {})


def draw(space: Space, key: str, seed: int, number: int) -> Any:
    """One random value of a space."""
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
    """Trials of the whole sweep."""
    return experiment.tune.samples if experiment.tune.searcher == "optuna" else len(points(experiment))


def left(experiment: "Experiment", known: list[Point]) -> list[Point]:
    """The points that no trial has had yet.

    Points are the same if they make the same experiment, whichever keys they name; each known one counts once.

    Args:
        experiment: what is swept.
        known: points of the trials that there are.
    """
    had = [_made(experiment, point) for point in known]
    found = []
    for point in points(experiment):
        made = _made(experiment, point)
        if made in had:
            had.remove(made)
        else:
            found.append(point)
    return found


def _made(experiment: "Experiment", point: Mapping[str, Any]) -> dict[str, Any]:
    """What a point makes of the experiment, without what is the sweep's own."""
    plain = experiment.with_values(point).plain()
    return {name: section for name, section in plain.items() if name not in ("tune", "search")}
