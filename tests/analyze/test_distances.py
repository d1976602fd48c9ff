"""Distances between samples of known distributions."""

import numpy as np
import pytest

from doppel_ray.analyze import distances


def normal(n: int, size: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, size))


def test_wasserstein_of_a_shift_by_one_deviation() -> None:
    recordings = normal(500) * np.array([1.0, 10.0, 0.1, 1.0])
    moved = recordings + recordings.std(axis=0) * np.array([0.0, 1.0, -2.0, 0.5])
    np.testing.assert_allclose(distances.wasserstein(moved, recordings), [0.0, 1.0, 2.0, 0.5], atol=1e-9)
    assert distances.spectral(moved, recordings).value == pytest.approx(3.5 / 4)


def test_constant_columns() -> None:
    same = np.ones((50, 2))
    assert distances.wasserstein(same, same).tolist() == [0.0, 0.0]


def test_kernel_distance_is_unbiased() -> None:
    for n in (60, 240):
        found = [distances.kernel(normal(n, 16, 2 * k), normal(n, 16, 2 * k + 1)).value for k in range(20)]
        assert abs(np.mean(found)) < 0.005, "Fréchet's distance would be far above 0"
        assert min(found) < 0.0 < max(found)


def test_kernel_distance_grows_with_difference() -> None:
    recordings = normal(200, seed=1)
    near, far = (distances.kernel(normal(200, seed=2) + shift, recordings) for shift in (0.3, 1.5))
    assert 0.0 < near.value < far.value < 2.0
    assert near.low < near.value < near.high < far.low
    assert distances.kernel(normal(200, seed=2) * 3.0, recordings).low > 0.0, "a difference in width alone"


def test_interval_coverage() -> None:
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
