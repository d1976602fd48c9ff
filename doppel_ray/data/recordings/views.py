"""Two views of a recording for each index, which decides the recording and the segments."""

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from doppel_ray.core import rng
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.schema import Names, Section
from doppel_ray.data import audio_files
from doppel_ray.data.audio_folders import printable
from doppel_ray.data.recordings import catalogue
from doppel_ray.data.recordings.catalogue import Catalogue
from doppel_ray.data.recordings.datasets import DATA_SETS, Layout, Subset, of_layout
from doppel_ray.data.recordings.order import permuted
from doppel_ray.synth.timing import length

log = logging.getLogger(__name__)

SEGMENT_STREAM = 2**20 + 3
"""Stream of the draws of where segments begin: a column for each view and layer."""

_LARGEST_CACHED = 1 / 16
"""Largest share of the cache for one recording, so that a few long ones do not fill it."""


class RecordingsConfig(Section):
    """Recordings as a source of pairs."""

    layout: Literal["folder", "manifest", Layout] = "folder"
    """How the recordings are organised. folder: all audio files below root, without labels. manifest: a table of files
    (CSV, TSV or Parquet). Others: the published layout of that data set (ESC-50, UrbanSound8K, VIVAE, Speech Commands
    v2, NSynth), with its labels and splits."""
    root: Path | None = None
    """Folder of the recordings; for manifest, the table."""
    subset: Subset | None = None
    """Part of the data set. esc10: ESC-10's ten classes of esc50. sc09: the ten digits of speech_commands. null:
    all."""
    label: str | None = None
    """manifest: column of the labels; null: `label`, if that column exists. nsynth: family or pitch; null: family."""
    path_column: str = "path"
    """manifest: column of the file paths, absolute or relative to the manifest."""
    fold_column: str | None = None
    """manifest: column of the folds or splits; null: `fold` or `split`, if such a column exists."""
    classes: tuple[str, ...] | None = None
    """manifest: the allowed labels, in the order of their class numbers; null: the labels that occur."""
    folds: Names | None = Field(default=None, min_length=1)
    """Folds or splits to train on, such as [1, 2, 3, 4] (esc50) or [train] (speech_commands, nsynth: train, valid,
    test); null: all."""
    labelled: float = Field(default=1.0, ge=0.0, le=1.0)
    """Fraction of each class's recordings that keep their label (at least one recording, unless 0); CLAR uses 0.01,
    0.1, 0.2 and 1."""
    views: Literal["same", "jitter"] = "jitter"
    """The two views of a pair. same: one segment twice, to which augmentations apply separately, as in CLAR. jitter:
    two segments of one recording, as the paper's temporal jitter."""
    segment: Literal["random", "start"] = "random"
    """Where a segment begins. random: anywhere; a silent segment is replaced by one around the loudest moment. start:
    at the beginning, as in CLAR. Recordings shorter than a segment are padded with zeros."""
    mixture: int = Field(default=1, ge=1, le=64)
    """Number of segments of one recording that are summed into each view, scaled to the level of the loudest: the
    paper's dense mixtures."""
    on_error: Literal["fail", "skip"] = "fail"
    """What to do about a recording that is unreadable or silent. fail: stop the run. skip: use the next recording
    instead, and log the file and the number of such files."""
    cache_mb: int = Field(default=256, ge=0)
    """Memory of each process for decoded recordings, in MB."""
    threads: int = Field(default=4, ge=1, le=64)
    """Recordings that each process decodes in parallel; increase it for slow storage."""

    @model_validator(mode="after")
    def _consistent(self) -> "RecordingsConfig":
        if self.subset is not None and (layout := DATA_SETS[self.subset].layout) != self.layout:
            raise ValueError(f"subset is {self.subset}, which is of layout {layout}, but layout is {self.layout}")
        labels = [found.label for found in DATA_SETS.values() if found.layout == self.layout and found.label]
        if labels and self.label not in (None, *labels):
            raise ValueError(f"label is {self.label!r}; expected {' or '.join(labels)} for layout {self.layout}")
        for name in ("label", "fold_column", "classes"):
            if self.layout == "manifest" or (name == "label" and labels):
                continue
            if getattr(self, name) is not None:
                raise ValueError(f"{name} is set, but layout {self.layout} has its own; it is for manifest")
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise ValueError("classes names a class twice")
        if self.segment == "start" and (self.views == "jitter" or self.mixture > 1):
            raise ValueError("segment is start, which is one segment; expected views same and mixture 1 with it")
        return self

    def catalogue(self) -> Catalogue:
        """Return the recordings to train on, with all their labels.

        Raises:
            ConfigError: recordings are missing, or not as the layout has them.
        """
        if self.root is None:
            raise ConfigError("source.recordings.root is not set: give the folder that holds the recordings")
        try:
            found = self._listed(self.root)
        except ConfigError as error:
            raise ConfigError(f"source.recordings: {error}") from None
        absent = found.absent() if self.on_error == "fail" else []
        if absent:
            raise ConfigError(
                f"source.recordings: {len(absent)} of {len(found)} files are not there, first "
                f"{', '.join(absent[:3])} (below {found.root}); mend the list, or leave them out with "
                "source.recordings.on_error skip"
            )
        return found

    def _listed(self, root: Path) -> Catalogue:
        if self.layout == "folder":
            found = catalogue.folder(root)
        elif self.layout == "manifest":
            found = catalogue.manifest(root, self.path_column, self.label, self.fold_column, self.classes)
        else:
            return of_layout(self.layout, self.subset, self.label).read(root, self.folds)
        return found if self.folds is None else found.of_folds(self.folds)


class Recordings:
    """Views of recordings, each a function of (seed, index) and the files.

    Each pass over the catalogue takes every recording once, in another order. With independent draws, a batch would
    often hold a recording twice (of 320 recordings, four of five batches of 32 would), which a contrastive objective
    would push apart, and a pass would miss a third of the recordings. Here only a batch that spans two passes can, and
    the objective masks those (`PairMaker.labelled` returns the identities of pairs).

    Args:
        config: what to read and how.
        sample_rate: of the views, in Hz.
        duration: of the views, in seconds.
        seed: the run's seed.
        catalogue: the recordings, if they are known already; None: those that `config` names.

    Attributes:
        catalogue: the recordings, with the labels that `labelled` leaves.
        labels: (recordings,) int64 of the catalogue's positions, -1 where there is no label.
        broken: recordings that could not be used so far, by path, with the reason (`on_error: skip`).

    Raises:
        ConfigError: recordings are missing, or not as the layout has them.
    """

    def __init__(
        self,
        config: RecordingsConfig,
        sample_rate: int,
        duration: float,
        seed: int,
        catalogue: Catalogue | None = None,
    ) -> None:
        self.config = config
        self.sample_rate, self.samples, self.seed = sample_rate, length(duration, sample_rate), seed
        self.catalogue = (catalogue or config.catalogue()).partly_labelled(config.labelled, seed)
        self.broken: dict[str, str] = {}
        self.labels = torch.tensor(self.catalogue.labels)
        self._cache = _Cache(config.cache_mb * 2**20)
        self._threads = ThreadPoolExecutor(config.threads, thread_name_prefix="decode")

    def __len__(self) -> int:
        return len(self.catalogue)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.catalogue.classes

    def check(self, decode: bool = False) -> dict[str, str]:
        """Check every file before training, and log what else is in the folder.

        Args:
            decode: decode the files, which also finds damage inside and silence; otherwise read headers alone.

        Returns:
            Files that will be skipped, by path, with the reason.

        Raises:
            ConfigError: a file cannot be used and `on_error` is fail, or none can be used.
        """
        if self.catalogue.skipped:
            log.warning("%s: %s", printable(self.catalogue.root), self.catalogue.skipped)
        paths = [self.catalogue.path(item) for item in range(len(self))]
        faults = {printable(path): reason for path, reason in audio_files.scan(paths, decode).items()}
        if faults and (self.config.on_error == "fail" or len(faults) == len(self)):
            named = [f"{path}: {reason}" for path, reason in faults.items()]
            more = f"\n  and {len(named) - 10} more" if len(named) > 10 else ""
            mend = "" if len(faults) == len(self) else ", or leave them out with source.recordings.on_error skip"
            raise ConfigError(
                f"source.recordings: {len(faults)} of {len(self)} recordings cannot be used:\n  "
                + "\n  ".join(named[:10])
                + f"{more}\nmend them{mend}"
            )
        return faults

    def views(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return both views of the pairs `indices` (n,), and the labels of their recordings.

        Returns:
            (2, n, samples) float32; (n,) int64, -1 where there is no label.

        Raises:
            UnreadableAudioError: a recording cannot be used, and `on_error` is fail, or none can.
        """
        sounds, items = self.views_and_items(indices)
        return sounds, self.labels[items]

    def views_and_items(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same views, with the recordings' positions in the catalogue, (n,) int64, in place of labels."""
        indices = indices.cpu().to(torch.int64)
        passes, positions = indices // len(self), indices % len(self)
        items = permuted(len(self), self.seed, passes, positions)
        draws = self._draws(indices)
        jobs = [(row, passes[row : row + 1], positions[row : row + 1]) for row in range(len(indices))]

        def make(job: tuple[int, Tensor, Tensor]) -> tuple[int, Tensor]:
            row, turn, position = job
            item = int(items[row])
            for step in range(1, len(self) + 1):
                # Broken files are tried again: a truncated one may be complete where an index reads it, and an index
                # must not depend on what was read before it.
                try:
                    return item, self._pair(self.catalogue.path(item), draws[row]).expand(2, -1)
                except audio_files.UnreadableAudioError as error:
                    if self.config.on_error == "fail":
                        raise
                    self.broken[printable(error.path)] = error.reason
                item = int(permuted(len(self), self.seed, turn, (position + step) % len(self)))
            raise audio_files.UnreadableAudioError(
                self.catalogue.root, f"none of the {len(self)} recordings can be used"
            )

        used, sounds = zip(*self._threads.map(make, jobs), strict=True)
        return torch.stack(sounds, dim=1), torch.tensor(used)

    def _draws(self, indices: Tensor) -> list[list[list[int]]]:
        """Draw 32 random bits for each index, view and layer, from 0 to 2**32 - 1."""
        views, layers = 1 if self.config.views == "same" else 2, self.config.mixture
        first, second = rng.keys(self.seed, indices, SEGMENT_STREAM)
        columns = torch.arange(views * layers, dtype=torch.int32)
        bits = rng.bits((first[:, None], second[:, None]), columns).to(torch.int64) & 0xFFFFFFFF
        return bits.unflatten(1, (views, layers)).tolist()

    def _pair(self, path: Path, draws: Sequence[Sequence[int]]) -> Tensor:
        """Return the views of one recording, (1 or 2, samples)."""
        with self._cache.opened(path, self.sample_rate) as clip:
            if sum(map(len, draws)) * self.samples > clip.samples:  # decoding it once is less work then
                clip = audio_files.Decoded(clip.read(0, clip.samples), clip.step)
            return torch.stack([self._view(path, clip, layers) for layers in draws])

    def _view(self, path: Path, clip: audio_files.Clip, draws: Sequence[int]) -> Tensor:
        layers = torch.stack([self._segment(path, clip, draw) for draw in draws])
        if len(layers) == 1:
            return layers[0]
        # Summed layers are brought back to the level of the loudest, so that mixtures are as loud as recordings.
        mixture = layers.sum(dim=0)
        return mixture * (layers.abs().amax() / mixture.abs().amax().clamp(min=audio_files.SILENCE))

    def _segment(self, path: Path, clip: audio_files.Clip, draw: int) -> Tensor:
        """Return `samples` of a clip, from a start that 32 random bits decide."""
        spare = max(0, clip.samples - self.samples)
        start = _scaled(draw, spare // clip.step + 1) * clip.step if self.config.segment == "random" else 0
        sound = clip.read(start, self.samples)
        if sound.abs().amax() < audio_files.SILENCE:
            sound = self._loudest(path, clip, draw)
        return torch.nn.functional.pad(sound, (0, self.samples - len(sound)))

    def _loudest(self, path: Path, clip: audio_files.Clip, draw: int) -> Tensor:
        """Return a segment with the clip's loudest moment, in place of a silent one.

        Clips are often a short sound followed by silence: of random seconds of ESC-10, 8 in 100 are digital silence, in
        which all recordings are alike.
        """
        whole = clip.read(0, clip.samples)
        peak, at = whole.abs().max(dim=0)
        if peak < audio_files.SILENCE:
            raise audio_files.UnreadableAudioError(path, "silent")
        if self.config.segment == "start":
            return whole[: self.samples]
        first = max(0, int(at) - self.samples + 1)
        last = min(int(at), max(0, len(whole) - self.samples))
        start = first + _scaled(draw, last - first + 1)
        return whole[start : start + self.samples]


def _scaled(draw: int, count: int) -> int:
    """Return a number from 0 to `count` - 1, from 32 random bits."""
    return draw * count >> 32


class _Cache:
    """Decoded recordings, kept until the cache is full; others are read from their files each time.

    Nothing is evicted: a pass reads every recording once, so the most recent one is needed again last, and a cache of
    the most recent would rarely hold the one that is needed.
    """

    def __init__(self, size: int) -> None:
        self.size, self.held = size, 0
        self.clips: dict[Path, audio_files.Decoded] = {}
        self.lock = threading.Lock()

    @contextmanager
    def opened(self, path: Path, sample_rate: int) -> Iterator[audio_files.Clip]:
        """Open a recording from memory, where it is kept if there is room, or from its file."""
        if path in self.clips:
            yield self.clips[path]
            return
        with audio_files.opened(path, sample_rate) as clip:
            if not self._has_room(clip):
                yield clip
                return
            decoded = self._decoded(path, clip)
        if decoded is not None:
            yield decoded
            return
        # Damaged, but perhaps not where it is to be read; a decoder that met damage cannot continue.
        with audio_files.opened(path, sample_rate) as clip:
            yield clip

    def _has_room(self, clip: audio_files.Clip) -> bool:
        need = 4 * clip.samples
        return need <= self.size * _LARGEST_CACHED and self.held + need <= self.size

    def _decoded(self, path: Path, clip: audio_files.Clip) -> audio_files.Decoded | None:
        try:
            decoded = audio_files.Decoded(clip.read(0, clip.samples), clip.step)
        except audio_files.UnreadableAudioError:
            return None
        with self.lock:  # another thread may have decoded the same file
            if path not in self.clips and self._has_room(clip):
                self.clips[path] = decoded
                self.held += 4 * clip.samples
        return decoded
