"""Pairs are the less alike the larger δ is, and are held against pairs that are none."""

import numpy as np
import pytest
import torch

from doppel_ray.analyze import similarity
from doppel_ray.analyze.similarity import Similarity, above, cosines
from doppel_ray.analyze.sources import Sources, SourcesConfig
from doppel_ray.analyze.spaces import Mel
from doppel_ray.synth import SynthConfig


def test_cosines_are_of_each_pair_and_of_all_that_are_of_different_items() -> None:
    vectors = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [1.0, 0.0]], [[3.0, 0.0], [1.0, 1.0], [1.0, 0.0]]])
    pairs, others = cosines(vectors, torch.tensor([7, 8, 7]))
    np.testing.assert_allclose(pairs, [1.0, 0.5**0.5, 1.0])
    np.testing.assert_allclose(others, [0.5**0.5, 0.0, 0.0, 0.5**0.5], atol=1e-7)


def test_above_is_the_share_of_comparisons_that_a_pair_wins() -> None:
    assert above(np.array([0.5, 0.9]), np.array([0.1, 0.5, 0.7, 0.8])) == pytest.approx((1.5 + 4) / 8)


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([(0.1, 0.9), (0.4, 0.1)], "0.2"),
        ([(0.1, 0.3), (0.4, 0.1)], "less than 0.1"),
        ([(0.1, 0.9), (0.4, 0.6)], "more than 0.4"),
    ],
)
def test_halfway_is_found_between_two_values_of_delta_or_said_to_lie_outside(
    points: list[tuple[float, float]], said: str
) -> None:
    assert similarity._crossing(points) == said


def test_pairs_are_the_less_alike_the_larger_delta_is_until_they_are_as_random_ones() -> None:
    analysis = Similarity(Mel(16000, batch=32))
    config = SourcesConfig(architectures=("voice",), delta=(0.0, 0.05, 0.25, 1.0), n=48)
    for pairs in Sources(config, SynthConfig(compile=False)):
        analysis.add(pairs, Mel(16000, batch=32)(pairs.sounds))
    rows = analysis.conclude().rows
    found = [row["similarity"] for row in rows]
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(1.0, abs=1e-5), "δ = 0: both views are one sound"
    assert rows[0]["above"] > 0.99
    assert abs(rows[-1]["above"] - 0.5) < 0.15
    assert all(row["similarity_low"] <= row["similarity"] <= row["similarity_high"] for row in rows)
