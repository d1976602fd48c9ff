"""From a clip of any length to its embedding: the one path of probes, the HEAR API, `embed` and `export`.

A clip is cut into windows (`Reading`), the windows are embedded a batch at a time (`embed_windows`), and the clip's
embedding is the mean over its windows. A batch holds windows of one length, from one clip or several, so that
nothing is padded to fit a batch, and a clip's embedding does not depend on the other clips.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from doppel_ray.data.audio_files import Clip
from doppel_ray.data.frontends import Frontend
from doppel_ray.data.windows import cut, tiles
from doppel_ray.models.model import Model

K = TypeVar("K")

BATCH = 64
"""Windows of training's length that are embedded at once."""

LONGEST = 60.0
"""Longest window in seconds. A longer recording that is read whole is cut into windows of this length, whose embeddings
are averaged: memory is bounded, and every command gives the same numbers."""


@dataclass(frozen=True)
class Reading:
    """How clips are cut into windows.

    Attributes:
        shortest: samples of the shortest window; a clip that is shorter is padded with zeros at its end.
        longest: samples of the longest window; a clip that is longer has several, side by side, but for the last one,
            which ends with the clip.
        at_once: most samples in a batch; a longer window is a batch by itself.
    """

    shortest: int
    longest: int
    at_once: int

    @classmethod
    def of(cls, samples: int, sample_rate: int, whole: bool) -> "Reading":
        """Return the reading of an encoder trained on sounds of `samples` samples at `sample_rate` Hz.

        Args:
            samples: of a training sound.
            sample_rate: in Hz.
            whole: recordings are read whole (`encoder.reading`), not in windows.
        """
        longest = max(samples, round(LONGEST * sample_rate)) if whole else samples
        return cls(samples, longest, BATCH * samples)

    def size(self, samples: int) -> int:
        """Return the length of a clip's windows from that of the clip, in samples."""
        return min(max(samples, self.shortest), self.longest)

    def cut(self, clip: Clip, starts: Sequence[int] | None = None) -> Iterator[Tensor]:
        """Yield a clip's windows in order; each part is read when it is needed.

        Args:
            clip: of any length.
            starts: ascending first samples of windows of the shortest length; None: the windows that cover the clip.

        Yields:
            (n, size) float32, of at most `at_once` samples or of one window.
        """
        size = self.shortest if starts is not None else self.size(clip.samples)
        starts = tiles(clip.samples, size) if starts is None else starts
        most = max(1, self.at_once // size)
        for i in range(0, len(starts), most):
            part = starts[i : i + most]
            begin = max(part[0], 0)
            sound = clip.read(begin, part[-1] + size - begin)
            yield cut(sound, [start - begin for start in part], size)


@torch.inference_mode()
def embed_windows(
    windows: Iterable[tuple[K, Tensor]], embedder: Callable[[Tensor], Tensor], at_once: int
) -> Iterator[tuple[K, Tensor]]:
    """Embed the windows of many clips; consecutive windows of one length share batches.

    Args:
        windows: (key of its clip, (samples,) float32) each, the windows of a clip one after another.
        embedder: (n, samples) float32 -> (n, width).
        at_once: most samples in a batch; a longer window is a batch by itself.

    Yields:
        Of each clip in order its key and the embeddings of all its windows, (windows, width) float32.
    """
    for key, vectors in itertools.groupby(_embedded(windows, embedder, at_once), key=lambda pair: pair[0]):
        yield key, torch.stack([vector for _, vector in vectors])


def _embedded(
    windows: Iterable[tuple[K, Tensor]], embedder: Callable[[Tensor], Tensor], at_once: int
) -> Iterator[tuple[K, Tensor]]:
    """Yield each window's key and embedding (width,)."""
    for size, alike in itertools.groupby(windows, key=lambda pair: len(pair[1])):
        while batch := list(itertools.islice(alike, max(1, at_once // size))):
            keys, parts = zip(*batch, strict=True)
            yield from zip(keys, embedder(torch.stack(parts)).float(), strict=True)


class WaveformEncoder(nn.Module):
    """A trained model with its frontend before it: sound in, representation out. In evaluation mode.

    Args:
        model: returns its `representation`.
        frontend: of the model; one of a model that reads clips whole returns every frame.
        sample_rate: of the sounds, in Hz.
        samples: length of a training sound.
        whole: longer sounds are read whole, not in windows of that length (`encoder.reading`).

    Attributes:
        sample_rate, samples, whole: as above.
        reading: how clips of other lengths are cut into windows.
        scene_embedding_size: width of a whole sound's embedding.
        timestamp_embedding_size: width of a moment's.
    """

    def __init__(self, model: Model, frontend: Frontend, sample_rate: int, samples: int, whole: bool) -> None:
        super().__init__()
        self.model, self.frontend = model, frontend
        self.sample_rate, self.samples, self.whole = sample_rate, samples, whole
        self.reading = Reading.of(samples, sample_rate, whole)
        self.scene_embedding_size = self.timestamp_embedding_size = model.size
        self.eval()

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def centre(self) -> int:
        """The middle of the part of a window that the frontend reads, in samples."""
        return round(self.frontend.centre(self.samples))

    def forward(self, sound: Tensor) -> Tensor:
        """Embed windows of sound: (batch, samples) float32 in [-1, 1] -> (batch, size) float32."""
        return self.model.represent(self.frontend(sound))

    def embed(self, windows: Tensor) -> Tensor:
        """Embed windows that may be on another device; the embeddings are on the model's."""
        return self(windows.to(self.device))
