"""Augmentations are drawn by index: the same pair gets the same one wherever it is made."""

import torch

from doppel_ray.audio import Augment, AugmentConfig


def decibels(augment: Augment, indices: torch.Tensor, view: int) -> torch.Tensor:
    return 20 * augment(torch.ones(len(indices), 4), indices, view)[:, 0].log10()


def test_a_gain_is_a_function_of_seed_index_and_view() -> None:
    augment = Augment((AugmentConfig(kind="gain"),), seed=3)
    indices = torch.arange(200)
    gains = decibels(augment, indices, 0)
    shuffled = torch.randperm(200, generator=torch.manual_seed(0))
    assert torch.equal(decibels(augment, indices[shuffled], 0), gains[shuffled])
    assert not torch.isclose(decibels(augment, indices, 1), gains).any()
    assert not torch.isclose(decibels(Augment(augment.chain, seed=4), indices, 0), gains).any()


def test_gains_fill_their_range() -> None:
    gains = decibels(Augment((AugmentConfig(kind="gain", low=-6.0, high=0.0),), seed=0), torch.arange(4000), 0)
    assert gains.min() >= -6.001
    assert gains.max() <= 0.001
    assert abs(gains.mean() + 3.0) < 0.1


def test_p_is_the_share_of_views_it_is_applied_to() -> None:
    gains = decibels(Augment((AugmentConfig(kind="gain", p=0.25),), seed=0), torch.arange(4000), 0)
    assert abs((gains != 0).float().mean() - 0.25) < 0.03


def test_two_of_a_kind_in_a_chain_draw_on_their_own() -> None:
    once = AugmentConfig(kind="gain")
    indices = torch.arange(100)
    single = decibels(Augment((once,), seed=0), indices, 0)
    double = decibels(Augment((once, once), seed=0), indices, 0)
    assert not torch.isclose(double, 2 * single).any()
