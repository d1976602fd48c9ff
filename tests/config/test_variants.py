"""The points of a search are known before it starts, and stay what they are when more are asked for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from doppel_ray.config.experiment import validate_experiment
from doppel_ray.config.search import Space
from doppel_ray.config.variants import draw, points, remaining, trial_count
from doppel_ray.core.errors import ConfigError

GRIDS = {"pairs.delta": {"grid": [0.1, 0.2]}, "encoder.kind": {"grid": ["cnn", "framenet"]}}
DRAWN = {"pairs.delta": {"grid": [0.1, 0.2]}, "optim.lr": {"loguniform": [1e-4, 1e-2]}}


def experiment(search: dict[str, Any], seed: int = 0, **tune: Any) -> Any:
    return validate_experiment({"search": search, "tune": tune, "run": {"seed": seed}})


def test_a_grid_gives_every_combination_once() -> None:
    found = points(experiment(GRIDS))
    assert [(p["pairs.delta"], p["encoder.kind"]) for p in found] == [
        (0.1, "cnn"),
        (0.1, "framenet"),
        (0.2, "cnn"),
        (0.2, "framenet"),
    ]


def test_no_search_is_one_trial() -> None:
    assert points(experiment({})) == [{}]


def test_repeats_give_each_point_the_seeds_from_the_runs_own_on() -> None:
    found = points(experiment({"pairs.delta": {"grid": [0.1, 0.2]}}, seed=5, repeats=2))
    assert [(p["pairs.delta"], p["run.seed"]) for p in found] == [(0.1, 5), (0.2, 5), (0.1, 6), (0.2, 6)]


def test_more_samples_or_repeats_leave_the_earlier_points_as_they_were() -> None:
    few = points(experiment(DRAWN, samples=2))
    assert points(experiment(DRAWN, samples=3))[:4] == few
    rates = [point["optim.lr"] for point in few]
    assert len(set(rates)) == 4, "each has a draw of its own"
    assert [p["optim.lr"] for p in points(experiment(DRAWN, samples=2, repeats=2))] == rates * 2, (
        "repeats differ in seed"
    )


@given(seed=some.integers(0, 2**63 - 1), number=some.integers(0, 1000))
def test_a_draw_is_of_its_space_and_a_function_of_the_seed(seed: int, number: int) -> None:
    spaces = {
        "uniform": (Space(uniform=(0.1, 0.3)), lambda value: 0.1 <= value <= 0.3),
        "loguniform": (Space(loguniform=(1e-4, 1e-2)), lambda value: 1e-4 <= value <= 1.0001e-2),
        "randint": (Space(randint=(2, 5)), lambda value: value in (2, 3, 4)),
        "choice": (Space(choice=("a", "b")), lambda value: value in ("a", "b")),
    }
    for key, (space, allowed) in spaces.items():
        value = draw(space, key, seed, number)
        assert allowed(value)
        assert value == draw(space, key, seed, number)


def test_what_is_left_is_what_no_trial_has_had() -> None:
    wider = {"pairs.delta": {"grid": [0.1, 0.2, 0.3]}}
    known = [{"pairs.delta": 0.1}, {"pairs.delta": 0.3}]
    assert remaining(experiment(wider), known) == [{"pairs.delta": 0.2}]


def test_a_point_that_names_the_seed_of_the_run_is_the_one_that_does_not() -> None:
    """A sweep of one seed is extended to two: its trials are the first repeat."""
    known = [{"pairs.delta": 0.1}, {"pairs.delta": 0.2}]
    found = remaining(experiment({"pairs.delta": {"grid": [0.1, 0.2]}}, repeats=2), known)
    assert found == [{"pairs.delta": 0.1, "run.seed": 1}, {"pairs.delta": 0.2, "run.seed": 1}]


def test_equal_draws_are_trials_of_their_own() -> None:
    search = {"encoder.width": {"choice": [8]}}
    assert len(remaining(experiment(search, samples=3), [{"encoder.width": 8}])) == 2


def test_a_searcher_runs_as_many_trials_as_samples() -> None:
    assert trial_count(experiment({"optim.lr": {"uniform": [0.1, 0.2]}}, samples=7, searcher="optuna")) == 7


@pytest.mark.parametrize(
    ("search", "tune", "fault"),
    [
        ({"run.seed": {"grid": [0, 1]}}, {"repeats": 2}, "both set the seeds; use one of them"),
        (
            {"pairs.delta": {"choice": [0.1]}},
            {"repeats": 2, "searcher": "optuna"},
            "every trial different values",
        ),
        ({"pairs.delta": {"choice": [0.1]}}, {"repeats": 2, "scheduler": "pbt"}, "every trial different values"),
        ({}, {"repeats": 0}, "tune.repeats is 0"),
        ({}, {"minutes": 0}, "tune.minutes is 0"),
    ],
)
def test_repeats_that_make_no_sense_are_refused(search: dict[str, Any], tune: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        experiment(search, **tune)
