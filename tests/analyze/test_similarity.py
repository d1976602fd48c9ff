"""Similarity of pairs falls with δ, compared with unpaired sounds."""

import numpy as np
import pytest
import torch

from doppel_ray.analyze import similarity
from doppel_ray.analyze.similarity import Similarity, above, cosines
from doppel_ray.analyze.sources import Sources, SourcesConfig
from doppel_ray.analyze.spaces import Mel
from doppel_ray.synth import SynthConfig


def test_cosines() -> None:
    vectors = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [1.0, 0.0]], [[3.0, 0.0], [1.0, 1.0], [1.0, 0.0]]])
    pairs, others = cosines(vectors, torch.tensor([7, 8, 7]))
    np.testing.assert_allclose(pairs, [1.0, 0.5**0.5, 1.0])
    np.testing.assert_allclose(others, [0.5**0.5, 0.0, 0.0, 0.5**0.5], atol=1e-7)


def test_above() -> None:
    assert above(np.array([0.5, 0.9]), np.array([0.1, 0.5, 0.7, 0.8])) == pytest.approx((1.5 + 4) / 8)


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([(0.1, 0.9), (0.4, 0.1)], "0.2"),
        ([(0.1, 0.3), (0.4, 0.1)], "less than 0.1"),
        ([(0.1, 0.9), (0.4, 0.6)], "more than 0.4"),
    ],
)
def test_crossing(points: list[tuple[float, float]], said: str) -> None:
    assert similarity._crossing(points) == said


def test_similarity_falls_with_delta() -> None:
    analysis = Similarity(Mel(16000, batch=32))
    config = SourcesConfig(architectures=("voice",), delta=(0.0, 0.05, 0.25, 1.0), n=48)
    for pairs in Sources(config, SynthConfig(compile=False)):
        analysis.add(pairs, Mel(16000, batch=32)(pairs.sounds))
    rows = analysis.conclude().rows
    found = [row["similarity"] for row in rows]
    assert found[:3] == sorted(found[:3], reverse=True)
    assert found[3] < rows[2]["similarity_high"], "both near random"
    assert found[0] == pytest.approx(1.0, abs=1e-5), "δ = 0: both views are one sound"
    assert rows[0]["above"] > 0.99
    assert abs(rows[-1]["above"] - 0.5) < 0.15
    assert all(row["similarity_low"] <= row["similarity"] <= row["similarity_high"] for row in rows)
