"""Noise from outside mixed into a sound: white, or recorded."""

import functools
from pathlib import Path
from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor

from doppel_ray.data import audio_files, audio_folders
from doppel_ray.data.augment.augmentation import Augmentation, Draws, ascending

WHITE_SHARE = 0.25
"""Share of the views that get white noise where it is mixed with recordings: one in four, as in CLAR's code."""


class AddNoise(Augmentation):
    """CLAR: add noise at a random signal-to-noise ratio, uniform in dB. Silence is left silent, as it has no ratio.

    CLAR's code scales recorded noise sample by sample with uniform draws and clips the negative half of the sum away.
    Here recorded noise is added at a ratio like white noise, as the paper describes it.
    """

    kind: Literal["noise"] = "noise"
    source: Literal["white", "recordings", "mixed"] = "white"
    """white: Gaussian white noise. recordings: a random part of a random file in `recordings`. mixed: white noise in
    one view of four, a recording in the others, as CLAR."""
    recordings: Path | None = None
    """Folder of noise recordings, searched to any depth; a file shorter than the sound is repeated."""
    low: float = 0.0
    """Lowest ratio in dB."""
    high: float = 20.0
    """Highest ratio in dB."""

    @model_validator(mode="after")
    def _consistent(self) -> "AddNoise":
        ascending(self.low, self.high)
        if (self.source == "white") != (self.recordings is None):
            raise ValueError(
                f"source is {self.source} and recordings is {self.recordings}; "
                "expected a folder with source recordings and mixed, and none with white"
            )
        return self

    def check(self, sample_rate: int) -> None:
        if self.recordings is not None:
            _listed(self.recordings)

    def apply(self, batch: Tensor, draws: Draws) -> Tensor:
        level, kind, *place = draws.uniform(4).unbind(1)
        if self.recordings is None:
            noise = draws.noise(batch.shape[1])
        else:
            noise = _recorded(self.recordings, torch.stack(place, dim=1), batch.shape[1], draws.sample_rate)
            noise = noise.to(batch.device)
            if self.source == "mixed" and len(rows := (kind < WHITE_SHARE).nonzero().squeeze(1)):
                noise[rows] = draws.of(rows).noise(batch.shape[1])
        ratio = 10.0 ** (-(self.low + (self.high - self.low) * level.unsqueeze(1)) / 20.0)
        return torch.addcmul(batch, batch.square().mean(dim=1, keepdim=True).sqrt() * ratio, noise)


def _recorded(folder: Path, place: Tensor, samples: int, sample_rate: int) -> Tensor:
    """Return parts of a folder's recordings at a root mean square of 1, (rows, samples) float32 on the CPU.

    A part that is silent stays so: scaled up, it would be the rounding of its file.

    Args:
        folder: of the recordings.
        place: (rows, 2) in [0, 1): which recording, and where in it the part begins.
    """
    paths = _listed(folder)
    parts = torch.stack(
        [_part(paths[int(which * len(paths))], at, samples, sample_rate) for which, at in place.tolist()]
    )
    return parts / parts.square().mean(dim=1, keepdim=True).sqrt().clamp(min=audio_files.SILENCE)


def _part(path: Path, at: float, samples: int, sample_rate: int) -> Tensor:
    """Return `samples` of a recording, which begins again where it ends too early."""
    with audio_files.opened(path, sample_rate) as clip:
        if clip.samples <= samples:
            return clip.read(0, clip.samples).roll(int(at * clip.samples)).repeat(-(-samples // clip.samples))[:samples]
        places = (clip.samples - samples) // clip.step + 1
        return clip.read(int(at * places) * clip.step, samples)


@functools.lru_cache(maxsize=4)
def _listed(folder: Path) -> tuple[Path, ...]:
    """List the recordings of a folder, once a process.

    Raises:
        ValueError: there is none, or one cannot be read.
    """
    paths = audio_folders.find(folder).paths
    if not paths:
        raise ValueError(f"recordings is {folder}; expected a folder with audio files in or below it")
    if broken := audio_files.scan(paths):
        path, reason = next(iter(broken.items()))
        raise ValueError(f"{len(broken)} of {len(paths)} recordings in {folder} cannot be read, first {path}: {reason}")
    return tuple(paths)
