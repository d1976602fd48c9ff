"""Augmentations of waveforms, drawn by index: the same pair gets the same augmentation wherever it is made."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from doppel_ray.section import Section
from doppel_ray.synth import counter
from doppel_ray.synth.counter import Stream


class AugmentConfig(Section):
    """One augmentation of the chain, applied to each view of a pair on its own."""

    kind: Literal["gain"]
    """gain: multiply by a random level, uniform in dB."""
    p: float = Field(default=1.0, ge=0.0, le=1.0)
    """Probability that it is applied to a view."""
    low: float = -12.0
    """Lowest gain in dB."""
    high: float = 12.0
    """Highest gain in dB; peaks above 1 are let be, as features have no clipping."""


class Augment:
    """A chain of augmentations.

    Args:
        chain: what to apply, in order.
        seed: the run's seed; with a pair's index it decides every draw.
    """

    def __init__(self, chain: tuple[AugmentConfig, ...], seed: int) -> None:
        self.chain = chain
        self.seed = seed

    def __call__(self, sound: Tensor, indices: Tensor, view: int) -> Tensor:
        """Augment one view of the pairs `indices`: (batch, samples) -> (batch, samples)."""
        for k, config in enumerate(self.chain):
            stream = Stream.AUGMENTATION + 2 * k + view
            chance, level = counter.uniform(self.seed, indices, stream, 2).unbind(1)
            decibels = config.low + (config.high - config.low) * level
            gain = torch.where(chance < config.p, 10.0 ** (decibels / 20.0), torch.ones_like(decibels))
            sound = sound * gain.unsqueeze(1)
        return sound
