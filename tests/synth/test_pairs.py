"""A pair is a function of (seed, index), however the work is split."""

import pytest
import torch

from doppel_ray.synth import ARCHITECTURES, Synth
from doppel_ray.synth.__main__ import log_mel_distance

BRIEF = {"sample_rate": 8000, "duration": 0.25, "control_rate": 480}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def synth(request: pytest.FixtureRequest) -> Synth:
    return Synth.create(request.param, **BRIEF)


def test_a_batch_is_its_indices_one_by_one(synth: Synth) -> None:
    together = synth.pairs(7, range(5), 0.25)
    alone = torch.cat([synth.pairs(7, [i], 0.25) for i in range(5)], dim=1)
    assert (together - alone).abs().max() < 1e-4


def test_views_that_do_not_stray_are_identical(synth: Synth) -> None:
    first, second = synth.pairs(0, range(3), 0.0)
    assert torch.equal(first, second)


def test_another_seed_or_index_is_another_sound(synth: Synth) -> None:
    sounds = synth.pairs(0, [0, 1], 0.0)[0]
    other = synth.pairs(1, [0], 0.0)[0]
    assert (sounds[0] - sounds[1]).abs().max() > 0.1
    assert (sounds[0] - other[0]).abs().max() > 0.1


def test_a_group_strays_alone(synth: Synth) -> None:
    first, second = synth.doppelgangers(0, range(8), {"pitch": 0.2})
    moved = (first != second).any(dim=0)
    assert {p.group for p, m in zip(synth.parameters, moved.tolist(), strict=True) if m} == {"pitch"}


def test_the_views_grow_apart_with_delta(synth: Synth) -> None:
    distances = [log_mel_distance(synth.pairs(0, range(64), delta), 8000) for delta in (0.0, 0.01, 0.05, 0.25, 0.75)]
    assert distances[0] == 0.0
    assert distances == sorted(distances)
    assert distances[-1] > 2.0 * distances[1]
