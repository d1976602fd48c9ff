"""Distances between samples: what they are of distributions that are known."""

import numpy as np
import pytest

from doppel_ray.analyze import distances


def normal(n: int, size: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, size))


def test_a_shift_by_a_deviation_of_the_recordings_is_a_distance_of_one() -> None:
    recordings = normal(500) * np.array([1.0, 10.0, 0.1, 1.0])
    moved = recordings + recordings.std(axis=0) * np.array([0.0, 1.0, -2.0, 0.5])
    np.testing.assert_allclose(distances.wasserstein(moved, recordings), [0.0, 1.0, 2.0, 0.5], atol=1e-9)
    assert distances.spectral(moved, recordings).value == pytest.approx(3.5 / 4)


def test_a_number_that_never_varies_is_no_trouble() -> None:
    same = np.ones((50, 2))
    assert distances.wasserstein(same, same).tolist() == [0.0, 0.0]


def test_two_samples_of_one_distribution_are_zero_apart_on_average_whatever_their_size() -> None:
    for n in (60, 240):
        found = [distances.kernel(normal(n, 16, 2 * k), normal(n, 16, 2 * k + 1)).value for k in range(20)]
        assert abs(np.mean(found)) < 0.005, "Fréchet's distance would be far above 0"
        assert min(found) < 0.0 < max(found)


def test_the_kernel_distance_grows_with_what_differs_and_has_an_interval_around_it() -> None:
    recordings = normal(200, seed=1)
    near, far = (distances.kernel(normal(200, seed=2) + shift, recordings) for shift in (0.3, 1.5))
    assert 0.0 < near.value < far.value < 2.0
    assert near.low < near.value < near.high < far.low
    assert distances.kernel(normal(200, seed=2) * 3.0, recordings).low > 0.0, "a difference in width alone"


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Of the mean of 100 values, in 200 trials."""
    hits = 0
    for k in range(200):
        values = normal(100, 1, k)
        found = distances.jackknife(lambda rows, others, v=values: v[rows].mean(), values, values)  # type: ignore[misc]
        hits += found.low < 0.0 < found.high
        assert found.value == pytest.approx(distances.mean(values[:, 0]).value)
    assert 176 <= hits <= 198


def test_halves_share_no_recording() -> None:
    items = np.array([5, 2, 5, 9, 2, 7, 9, 5])
    first, second = distances.halves(items)
    assert sorted([*first, *second]) == [*range(8)]
    assert not set(items[first]) & set(items[second])
    assert len(set(items[first])) == len(set(items[second])) == 2
