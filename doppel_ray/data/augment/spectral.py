"""Augmentations of features, after the frontend: rectangles of a spectrogram masked."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from doppel_ray.data.augment.augmentation import Augmentation, Draws


class _Masks(Augmentation):
    """Masks of random width at random places, the same for all channels.

    A mask's width is uniform from 0 to its limit, its place uniform over where it fits (Park et al., 2019).
    """

    domain: ClassVar[Literal["waveform", "spectrogram"]] = "spectrogram"

    p: float = Field(default=1.0, ge=0.0, le=1.0)
    """Probability that it is applied to a view."""
    fill: Literal["mean"] | float = "mean"
    """What replaces the masked: a number, or the mean of the channel, the 0 of SpecAugment's normalised features."""
    time_masks: int = Field(ge=0)
    frames: int = Field(ge=0)
    frequency_masks: int = Field(ge=0)
    bins: int = Field(ge=0)

    def apply(self, batch: Tensor, draws: Draws) -> Tensor:
        frames, bins = batch.shape[-2:]
        masks = draws.uniform(2 * (self.time_masks + self.frequency_masks))
        in_time, in_frequency = masks.split([2 * self.time_masks, 2 * self.frequency_masks], dim=1)
        masked = (
            _covered(in_time, self.frames, frames)[:, None, :, None]
            | _covered(in_frequency, self.bins, bins)[:, None, None, :]
        )
        if self.fill != "mean":
            return batch.masked_fill(masked, self.fill)
        return torch.where(masked, batch.float().mean(dim=(-2, -1), keepdim=True).to(batch.dtype), batch)


def _covered(draws: Tensor, widest: int, size: int) -> Tensor:
    """Return which of `size` places are masked, (rows, size) bool, from two draws for each mask, (rows, 2 * masks)."""
    width, place = draws.unflatten(1, (-1, 2)).unbind(2)
    width = torch.floor(width * (min(widest, size) + 1))
    start = torch.floor(place * (size - width + 1))
    position = torch.arange(size, device=draws.device)
    return ((position >= start.unsqueeze(2)) & (position < (start + width).unsqueeze(2))).any(dim=1)


class SpecAugment(_Masks):
    """Audio Doppelgängers: SpecAugment's masks in time and frequency, without its warping."""

    kind: Literal["spec_augment"] = "spec_augment"
    time_masks: int = Field(default=4, ge=0)
    """Masks in time."""
    frames: int = Field(default=40, ge=0)
    """Widest of them in frames."""
    frequency_masks: int = Field(default=2, ge=0)
    """Masks in frequency."""
    bins: int = Field(default=20, ge=0)
    """Widest of them in bins."""


class SpecMask(_Masks):
    """Audio Doppelgängers: one mask in time and one in frequency."""

    kind: Literal["spec_mask"] = "spec_mask"
    time_masks: int = Field(default=1, ge=0)
    """Masks in time."""
    frames: int = Field(default=40, ge=0)
    """Widest of them in frames."""
    frequency_masks: int = Field(default=1, ge=0)
    """Masks in frequency."""
    bins: int = Field(default=40, ge=0)
    """Widest of them in bins."""
