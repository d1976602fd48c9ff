"""Positive pairs: index -> two views of one sound -> features. A pure function of (seed, index), without Ray."""

from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from doppel_ray.audio import Augment, AugmentConfig, Frontend, FrontendConfig, read_chain
from doppel_ray.section import Section
from doppel_ray.synth import Delta, SynthConfig

CHUNK = 32
"""Pairs made at a time. Every chunk has this size (the last one is filled up and cut), so that a pair's arithmetic, and
with it the last bit of its features, does not depend on the batch it was asked for in."""


class PairsConfig(Section):
    """What a positive pair is."""

    delta: Delta = 0.25
    """δ, the strength of the perturbation of the synthesizer's parameters: one number, or one per parameter group."""
    reuse: int | None = Field(default=None, ge=2)
    """Draw from so many pairs only, over and over; null: every pair is fresh, for ever."""


class PairMaker:
    """Makes the pairs of given indices.

    Args:
        synth, pairs, frontend, augment: the sections of the experiment.
        seed: the run's seed.
        device: where to render and compute features.
    """

    def __init__(
        self,
        synth: SynthConfig,
        pairs: PairsConfig,
        frontend: FrontendConfig,
        augment: tuple[AugmentConfig, ...],
        seed: int,
        device: str | torch.device = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.synth = synth.build()
        self.pairs = pairs
        self.frontend: Frontend = frontend.build(synth.sample_rate).to(self.device)
        self.augment = Augment(augment, seed, synth.sample_rate)
        self.seed = seed

    @classmethod
    def of(cls, experiment: dict[str, Any], device: str | torch.device = "cpu") -> "PairMaker":
        """From an experiment as plain data."""
        return cls(
            synth=SynthConfig.model_validate(experiment["synth"]),
            pairs=PairsConfig.model_validate(experiment["pairs"]),
            frontend=FrontendConfig.model_validate(experiment["frontend"]),
            augment=read_chain(experiment["augment"]),
            seed=experiment["run"]["seed"],
            device=device,
        )

    def sounds(self, indices: Tensor) -> Tensor:
        """Both views of the pairs `indices` (n,) as sound, augmented: (2, n, samples) float32."""
        indices = self._drawn(indices)
        views = self.synth.pairs(self.seed, indices, self.pairs.delta)
        return torch.stack([self.augment(sound, indices, view) for view, sound in enumerate(views)])

    def _drawn(self, indices: Tensor) -> Tensor:
        """The indices that pairs are drawn by, on the device."""
        return (indices if self.pairs.reuse is None else indices % self.pairs.reuse).to(self.device)

    @torch.inference_mode()
    def __call__(self, indices: Tensor | np.ndarray) -> Tensor:
        """Features of the pairs `indices` (n,): (n, 2, channels, frames, mels) float16, on the CPU."""
        out = []
        for chunk in torch.as_tensor(indices).split(CHUNK):
            filled = torch.cat([chunk, chunk[-1:].expand(CHUNK - len(chunk))])
            views = self.frontend(self.sounds(filled).flatten(0, 1)).unflatten(0, (2, CHUNK))
            drawn = self._drawn(filled)
            features = [self.augment.features(view, drawn, which).half() for which, view in enumerate(views)]
            out.append(torch.stack(features, dim=1)[: len(chunk)].cpu())
        return torch.cat(out)
