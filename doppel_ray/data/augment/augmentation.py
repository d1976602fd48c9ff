"""The base of augmentations, and their random draws."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from doppel_ray.core import rng
from doppel_ray.core.rng import Stream
from doppel_ray.core.schema import Section

_FIRST_STREAM = int(Stream.AUGMENTATION) << 32
_PURPOSES = ("chance", "parameters", "noise")


@dataclass(frozen=True)
class Draws:
    """The random numbers of one augmentation of a chain, for the rows it is applied to.

    Attributes:
        seed: the run's.
        indices: (rows,) int64, the pairs.
        position: of the augmentation in its chain.
        view: of the pair.
        sample_rate: of the sound in Hz.
    """

    seed: int
    indices: Tensor
    position: int
    view: int
    sample_rate: int

    def _stream(self, purpose: str) -> int:
        """Return a stream for each position, view and purpose, far above those that other parts number by hand."""
        return _FIRST_STREAM + (2 * self.position + self.view) * len(_PURPOSES) + _PURPOSES.index(purpose)

    def chance(self) -> Tensor:
        """Draw uniformly from [0, 1), (rows,): whether the augmentation is applied."""
        return rng.uniform(self.seed, self.indices, self._stream("chance"), 1).squeeze(1)

    def uniform(self, columns: int) -> Tensor:
        """Draw uniformly from [0, 1), (rows, columns)."""
        return rng.uniform(self.seed, self.indices, self._stream("parameters"), columns)

    def between(self, low: float, high: float) -> Tensor:
        """Draw uniformly from `low` to `high`, (rows, 1), for augmentations of one parameter."""
        return low + (high - low) * self.uniform(1)

    def noise(self, samples: int) -> Tensor:
        """Draw white noise, standard normal, (rows, samples).

        Box and Muller's transform in float32, both of its halves used: ten times as fast as `rng.normal`, and 24
        bits are enough for a sample of noise.
        """
        half = (samples + 1) // 2
        first, second = rng.keys(self.seed, self.indices, self._stream("noise"))
        column = torch.arange(2 * half, dtype=torch.int32, device=self.indices.device)
        draws = rng.to_uniform(rng.bits((first.unsqueeze(1), second.unsqueeze(1)), column))
        radius = (draws[:, :half] + 2.0**-25).log_().mul_(-2.0).sqrt_()
        angle = draws[:, half:] * (2.0 * math.pi)
        return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)[:, :samples]

    def of(self, rows: Tensor) -> "Draws":
        """Return the same draws for some of the rows."""
        return Draws(self.seed, self.indices[rows], self.position, self.view, self.sample_rate)


class Augmentation(Section):
    """One augmentation of a chain: its settings and its function, applied to each view of a pair on its own."""

    domain: ClassVar[Literal["waveform", "spectrogram"]] = "waveform"

    p: float = Field(default=0.5, ge=0.0, le=1.0)
    """Probability that it is applied to a view."""

    def check(self, sample_rate: int) -> None:
        """Refuse settings that sound at `sample_rate` Hz does not allow.

        Raises:
            ValueError: names the setting and the reason.
        """

    def apply(self, batch: Tensor, draws: Draws) -> Tensor:
        """Return each row augmented by its own draws.

        Args:
            batch: (rows, samples) or (rows, channels, frames, bins), by `domain`; it is not written to.
            draws: the random numbers of these rows.
        """
        raise NotImplementedError


def ascending(low: float, high: float) -> None:
    """Refuse a range whose low end is above its high end."""
    if low > high:
        raise ValueError(f"low is {low:g}, above high, which is {high:g}")
