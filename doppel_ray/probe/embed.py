"""Embeddings of a task's sounds, by a model or by the mel statistics that are the baseline."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from doppel_ray.data.audio_files import Decoded
from doppel_ray.data.frontends import VGGish
from doppel_ray.models.clips import BATCH, LONGEST, Reading, WaveformEncoder, embed_windows
from doppel_ray.probe.sounds import stream
from doppel_ray.probe.task import Sounds


@dataclass(frozen=True)
class Embedder:
    """Turns windows of sound into vectors.

    Attributes:
        embed: (windows, samples) float32 -> (windows, size), both on the CPU.
        reading: the rule that cuts sounds into windows.
    """

    embed: Callable[[Tensor], Tensor]
    reading: Reading


def by_model(model: WaveformEncoder, device: torch.device | str = "cpu") -> Embedder:
    """Embed by the model's representation (`encoder.representation`), computed on `device`."""
    model = model.to(device).eval()
    return Embedder(lambda windows: model.embed(windows).cpu(), model.reading)


def by_mel_statistics(sample_rate: int) -> Embedder:
    """Embed by the mean and standard deviation over time of each log-mel band, over the whole sound.

    The bands are VGGish's, whatever frontend the model has; at sample rates below 15 kHz they reach up to half the rate
    instead of 7500 Hz. Only a sound shorter than two frames (35 ms), which has no deviation, is padded with zeros.

    Args:
        sample_rate: of the sounds, in Hz.
    """
    frontend = VGGish(sample_rate, high_hz=min(VGGish.HIGH_HZ, sample_rate / 2), every_frame=True)
    least = frontend.window_length + frontend.hop_length

    def embed(sounds: Tensor) -> Tensor:
        bands = frontend(pad(sounds, (0, max(0, least - sounds.shape[1])))).squeeze(1)
        return torch.cat([bands.mean(dim=1), bands.std(dim=1)], dim=1)

    return Embedder(embed, Reading(1, round(LONGEST * sample_rate), BATCH * sample_rate))


def embed_sounds(sounds: Sounds, items: Sequence[int], embedder: Embedder) -> np.ndarray:
    """Return one embedding for each sound, the mean over its windows; at most a batch of windows is in memory.

    Args:
        sounds: of the task.
        items: numbers of the sounds to embed.
        embedder: embeds their windows.

    Returns:
        (items, size) float32. The row of a sound that cannot be read is NaN, with the reason in `sounds.failed`; if
        none can be read, size is 0.
    """
    reading = embedder.reading
    embedded = embed_windows(_windows(sounds, items, reading), embedder.embed, reading.at_once)
    scenes = {row: vectors.mean(dim=0).numpy() for row, vectors in embedded}
    size = len(next(iter(scenes.values()))) if scenes else 0
    embeddings = np.full((len(items), size), np.nan, dtype=np.float32)
    for row, scene in scenes.items():
        embeddings[row] = scene
    return embeddings


def _windows(sounds: Sounds, items: Sequence[int], reading: Reading) -> Iterator[tuple[int, Tensor]]:
    """Yield the row of its sound and the samples of each window."""
    for row, sound in enumerate(stream(sounds, items)):
        if sound is not None:
            yield from ((row, window) for part in reading.cut(Decoded(sound, step=1)) for window in part)
