"""Positive pairs: index -> two views of one sound -> features. A pure function of (seed, index), without Ray."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from doppel_ray.core import rng
from doppel_ray.core.schema import Section
from doppel_ray.data.augment import Augment, AugmentConfig, read_chain
from doppel_ray.data.frontends import Frontend, FrontendConfig
from doppel_ray.data.recordings import Recordings, SourceConfig, choose, rank
from doppel_ray.synth import Delta, NoiseKind, Synth, SynthConfig
from doppel_ray.synth.sampling import Spread

CHUNK = {"cpu": 32, "cuda": 512}
"""Pairs whose features are made at a time. Every chunk has this size (the last one is padded and cut), so that a pair's
arithmetic, and with it the last bit of its features, does not depend on its batch."""

LAYER_DB = 12.0
"""Range of the levels of a mixture's layers, below the loudest possible, in dB."""

LEVELS = 2**20 + 4
"""Stream of the draws of layers' levels: a column for each view."""

ONSETS = 2**20 + 5
"""Stream of the draws of layers' onsets: a column for each view."""


class ScheduleConfig(Section):
    """How δ changes during a run, starting from `pairs.delta`."""

    kind: Literal["constant", "linear", "cosine", "steps"] = "constant"
    """How δ changes during a run. constant: it does not. linear, cosine: from pairs.delta to `end`. steps: to the
    values of `steps`."""
    end: Delta | None = None
    """linear, cosine: δ at the end of the run, in the form of pairs.delta (a number, or the same groups)."""
    steps: dict[float, Delta] = Field(default={})
    """steps: fraction of the run and the δ from then on, such as {0.5: 0.1, 0.75: 0.05}."""

    @model_validator(mode="after")
    def _consistent(self) -> "ScheduleConfig":
        if (self.kind in ("linear", "cosine")) != (self.end is not None):
            raise ValueError(
                f"kind is {self.kind} and end is {self.end}; end goes with linear and cosine, and only there"
            )
        if (self.kind == "steps") != bool(self.steps):
            raise ValueError(
                f"kind is {self.kind} and steps are {self.steps}; steps go with kind steps, and only there"
            )
        if not all(0.0 <= share <= 1.0 for share in self.steps):
            raise ValueError(f"steps are {self.steps}; expected shares of the run from 0 to 1")
        return self


class PairsConfig(Section):
    """Positive pairs: two sounds that training pulls together, made from perturbed synthesizer parameters."""

    delta: Delta = 0.25
    """Strength δ, from 0 to 1, of the perturbation that makes the two sounds of a pair differ: one number for all
    synthesizer parameters, or a mapping of parameter groups, such as {pitch: 0.1, mix: 0.3}."""
    schedule: ScheduleConfig = ScheduleConfig()
    noise: NoiseKind = "shared"
    """White noise in synthetic sounds. shared: the same noise in all sounds, as in the paper. view: new noise for each
    sound. (Noise shared only by the two sounds of a pair would give the pair away, so it is not offered.)"""
    layers: int = Field(default=1, ge=1, le=16)
    """Number of synthetic sounds mixed into each view, each perturbed independently, at random levels from -12 to
    0 dB."""
    onsets: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Latest onset of a layer, as a share of the sound's duration. Each layer of each view starts at a random time from
    0 to this, after silence, and is cut off at the end: with `layers`, scenes of several events. 0: all start at
    once."""
    reuse: int | None = Field(default=None, ge=2)
    """Size of a fixed set of pairs to train on repeatedly; null: every pair is new."""

    @model_validator(mode="after")
    def _consistent(self) -> "PairsConfig":
        for other in (self.schedule.end, *self.schedule.steps.values()):
            if other is not None and _groups(other) != _groups(self.delta):
                raise ValueError(f"schedule has δ {other}, and delta is {self.delta}; expected the same groups in both")
        return self

    def drawn(self, indices: Tensor) -> Tensor:
        """Return the indices that key the draws of the pairs `indices`."""
        return indices if self.reuse is None else indices % self.reuse

    def delta_at(self, indices: Tensor, total: int) -> Spread:
        """Return δ of each index of a run of `total` pairs: a number, `(n,)`, or these by group."""
        schedule = self.schedule
        if schedule.kind == "constant":
            return self.delta
        progress = (indices.double() / total).clamp(0.0, 1.0)
        values = {group: torch.full_like(progress, value) for group, value in _by_group(self.delta).items()}
        if schedule.end is not None:
            way = progress if schedule.kind == "linear" else 0.5 - 0.5 * torch.cos(math.pi * progress)
            for group, value in _by_group(schedule.end).items():
                values[group] += way * (value - values[group])
        for share, delta in sorted(schedule.steps.items()):
            for group, value in _by_group(delta).items():
                values[group] = torch.where(progress >= share, value, values[group])
        return values[""].float() if "" in values else {group: value.float() for group, value in values.items()}


def _by_group(delta: float | Mapping[str, float]) -> Mapping[str, float]:
    return delta if isinstance(delta, Mapping) else {"": delta}


def _groups(delta: float | Mapping[str, float]) -> set[str]:
    return set(_by_group(delta))


class PairMaker:
    """Makes the pairs of given indices.

    Args:
        synth, pairs, frontend, augment, source: the sections of the experiment.
        seed: the run's seed.
        total: pairs of the whole run, over which δ follows its schedule.
        device: where to render and compute features.

    Raises:
        ConfigError: recordings are mixed in, and are missing.
    """

    def __init__(
        self,
        synth: SynthConfig,
        pairs: PairsConfig,
        frontend: FrontendConfig,
        augment: tuple[AugmentConfig, ...],
        seed: int,
        source: SourceConfig | None = None,
        total: int = 1,
        device: str | torch.device = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.chunk = CHUNK[self.device.type]
        self.synth = synth.build()
        self.pairs = pairs
        self.source = source or SourceConfig()
        self.recordings: Recordings | None = None
        if self.source.share > 0.0:
            self.recordings = Recordings(self.source.recordings, synth.sample_rate, synth.duration, seed)
        self.where = frontend.where
        self.frontend: Frontend = frontend.build(synth.sample_rate).to(self.device)
        self.augment = Augment(augment, seed, synth.sample_rate)
        self.seed = seed
        self.total = total

    @classmethod
    def of(cls, experiment: dict[str, Any], device: str | torch.device = "cpu") -> "PairMaker":
        """Return the maker of an experiment as plain data."""
        train = experiment["train"]
        return cls(
            synth=SynthConfig.model_validate(experiment["synth"]),
            pairs=PairsConfig.model_validate(experiment["pairs"]),
            frontend=FrontendConfig.model_validate(experiment["frontend"]),
            augment=read_chain(experiment["augment"]),
            seed=experiment["run"]["seed"],
            source=SourceConfig.model_validate(experiment["source"]),
            total=train["epochs"] * train["pairs_per_epoch"],
            device=device,
        )

    def sounds(self, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return both views of the pairs `indices` (n,) before augmentation, their labels and their identities.

        Returns:
            (2, n, samples) float32; labels (n,) int64, -1 where there is none; identities (n,) int64, on the CPU: of a
            synthetic pair the index that keys its draws, of a recording -1 - its position in the catalogue. Pairs of
            one identity are one sound, or segments of one recording: no negatives of each other.
        """
        spread = self.pairs.delta_at(indices.to(self.device), self.total)
        indices = self.pairs.drawn(indices).to(self.device)
        labels, ids = torch.full((len(indices),), -1), indices.to("cpu", torch.int64, copy=True)
        if self.recordings is None:
            return layered(self.synth, self.pairs, self.seed, indices, spread), labels, ids
        mix = self.source.mix
        recorded = choose(mix, self.seed, indices)
        sounds = torch.empty(2, len(indices), self.recordings.samples, device=self.device)
        if recorded.any():
            views, items = self.recordings.views_and_items(rank(mix, self.seed, indices[recorded]))
            labels[recorded.cpu()], ids[recorded.cpu()] = self.recordings.labels[items], -1 - items
            sounds[:, recorded] = views.to(self.device)
        if not recorded.all():
            made = ~recorded
            sounds[:, made] = layered(self.synth, self.pairs, self.seed, indices[made], _rows(spread, made))
        return sounds, labels, ids

    @torch.inference_mode()
    def labelled(self, indices: Tensor | np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Return features of the pairs `indices` (n,), their labels and their identities.

        Returns:
            (n, 2, channels, frames, bins) float16, or (n, 2, 1, samples) if they are waveforms or the trainer computes
            the features; labels and identities, (n,) int64, as `sounds` has them. All on the CPU.
        """
        # A block's sound is freed before the next is made. Where recordings are mixed in, a block of one chunk would
        # leave the synthesizer, which renders a fixed number of sounds at a time, with too few.
        block = self.chunk * (1 if self.recordings is None else 4)
        made = [self._block(part) for part in torch.as_tensor(indices).split(block)]
        features, labels, ids = (torch.cat(parts) for parts in zip(*made, strict=True))
        return features, labels, ids

    def _block(self, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same for indices whose sounds are all held at once."""
        sounds, labels, ids = self.sounds(indices)
        out = []
        for start in range(0, len(indices), self.chunk):
            rows = slice(start, start + self.chunk)
            kept = len(indices[rows])
            part, views = indices[rows], sounds[:, rows]
            if kept < self.chunk:
                fill = [*range(kept), *[kept - 1] * (self.chunk - kept)]
                part, views = part[fill], views[:, fill]
            drawn = self.pairs.drawn(part).to(self.device)
            views = self.augment.both(views, drawn)
            if self.where == "trainer":
                features = views.unsqueeze(2)
            else:
                whole = self.frontend(views.flatten(0, 1)).unflatten(0, (2, self.chunk))
                features = self.augment.both_features(whole, drawn)
            out.append(features.half().transpose(0, 1)[:kept].cpu())
        return torch.cat(out), labels, ids

    def __call__(self, indices: Tensor | np.ndarray) -> Tensor:
        """Return the features alone."""
        return self.labelled(indices)[0]


def layered(synth: Synth, pairs: PairsConfig, seed: int, indices: Tensor, spread: Spread) -> Tensor:
    """Render synthetic pairs of `indices` (n,), each of `pairs.layers` sounds: (2, n, samples).

    Of n layers, pair i has those from n·i to n·i + n - 1. Levels and onsets are drawn for each view: what both views of
    a pair shared alone would give the pair away. A mixture that would clip is scaled to a peak of 1.
    """
    layers = pairs.layers
    parts = (indices.unsqueeze(1) * layers + torch.arange(layers, device=indices.device)).flatten()
    sounds = synth.pairs(seed, parts, _rows(spread, torch.arange(len(parts)) // layers), pairs.noise)
    if pairs.onsets > 0.0:
        latest = pairs.onsets * sounds.shape[2]
        sounds = _delayed(sounds, (rng.uniform(seed, parts, ONSETS, 2).T * latest).long())
    if layers == 1:
        return sounds
    sounds *= 10.0 ** ((rng.uniform(seed, parts, LEVELS, 2).T.unsqueeze(2) - 1.0) * LAYER_DB / 20.0)
    mixed = sounds.unflatten(1, (-1, layers)).sum(dim=2)
    return mixed / mixed.abs().amax(dim=2, keepdim=True).clamp(min=1.0)


def _delayed(sounds: Tensor, delays: Tensor) -> Tensor:
    """Start sounds (..., samples) `delays` (...) samples later, after silence, and cut them off at the end."""
    source = torch.arange(sounds.shape[-1], device=sounds.device) - delays.unsqueeze(-1)
    return sounds.gather(-1, source.clamp(min=0)).masked_fill(source < 0, 0.0)


def _rows(spread: Spread, chosen: Tensor) -> Spread:
    """Return δ of the chosen rows."""
    if isinstance(spread, Mapping):
        return {group: value[chosen] if isinstance(value, Tensor) else value for group, value in spread.items()}
    return spread[chosen] if isinstance(spread, Tensor) else spread
