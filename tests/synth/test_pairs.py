"""A pair is a function of (seed, index), however the work is split."""

import pytest
import torch

from doppel_ray.analyze.distances import log_mel_distance
from doppel_ray.analyze.fingerprint import partners_found
from doppel_ray.synth import ARCHITECTURES, NoiseKind, Synth

BRIEF = {"sample_rate": 8000, "duration": 0.25, "control_rate": 480}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def synth(request: pytest.FixtureRequest) -> Synth:
    return Synth.create(request.param, **BRIEF)


def test_pairs_do_not_depend_on_the_batch(synth: Synth) -> None:
    together = synth.pairs(7, range(5), 0.25)
    alone = torch.cat([synth.pairs(7, [i], 0.25) for i in range(5)], dim=1)
    assert (together - alone).abs().max() < 1e-4


def test_views_at_delta_0(synth: Synth) -> None:
    first, second = synth.pairs(0, range(3), 0.0)
    assert torch.equal(first, second)


def test_sounds_of_other_seeds_and_indices_differ(synth: Synth) -> None:
    sounds = synth.pairs(0, [0, 1], 0.0)[0]
    other = synth.pairs(1, [0], 0.0)[0]
    assert (sounds[0] - sounds[1]).abs().max() > 0.1
    assert (sounds[0] - other[0]).abs().max() > 0.1


def test_delta_of_one_group(synth: Synth) -> None:
    first, second = synth.doppelgangers(0, range(8), {"pitch": 0.2})
    moved = (first != second).any(dim=0)
    assert {p.group for p, m in zip(synth.parameters, moved.tolist(), strict=True) if m} == {"pitch"}


def test_distance_of_views_grows_with_delta(synth: Synth) -> None:
    distances = [log_mel_distance(synth.pairs(0, range(64), delta), 8000) for delta in (0.0, 0.01, 0.05, 0.25, 0.75)]
    assert distances[0] == 0.0
    assert distances == sorted(distances)
    assert distances[-1] > 2.0 * distances[1]


PAIRS, CHANCE = 256, 9 / 256
"""A view finds its partner among 256 by chance once; more than 9 times has a probability below 2e-7."""


def unrelated(synth: Synth) -> torch.Tensor:
    """Parameters of both views of 256 indices, drawn on their own: (2, n, P)."""
    return torch.stack([synth.sample(seed, range(PAIRS)) for seed in (1, 2)])


@pytest.mark.parametrize("noise", ["shared", "view"])
def test_unrelated_views_have_no_fingerprint(synth: Synth, noise: NoiseKind) -> None:
    """Views of one index share nothing but their parameters (DESIGN.md, rule 6)."""
    found = partners_found(synth.render_views(unrelated(synth), 0, range(PAIRS), noise), 8000)
    assert max(found.values()) <= CHANCE, found


@pytest.mark.slow
def test_fingerprint_of_a_noise_per_pair(synth: Synth) -> None:
    """The check above can fail: a noise that both views of a pair share alone gives it away."""
    indices = torch.arange(PAIRS).repeat(2)
    leaking = synth.render(unrelated(synth).flatten(0, 1), seed=0, indices=indices).unflatten(0, (2, PAIRS))
    assert max(partners_found(leaking, 8000).values()) > 4 * CHANCE


def test_noise_kinds(synth: Synth) -> None:
    views = synth.sample(0, [0]).expand(2, 3, -1)  # one sound six times: whatever differs is its noise
    shared = synth.render_views(views, 0, range(3), "shared").flatten(0, 1)
    assert (shared == shared[0]).all()
    own = synth.render_views(views, 0, range(3), "view").flatten(0, 1)
    assert len(torch.unique(own, dim=0)) == 6
    assert torch.equal(synth.render_views(views[:, :1], 0, [2], "view").flatten(0, 1), own[[2, 5]])
