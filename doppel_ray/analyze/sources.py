"""The analysed sounds: synthetic pairs by architecture, layers and δ, and recordings for reference."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from doppel_ray.core.errors import ConfigError
from doppel_ray.core.schema import Section
from doppel_ray.data.pairs import PairsConfig, layered
from doppel_ray.data.recordings import Catalogue, Recordings, RecordingsConfig
from doppel_ray.synth import ARCHITECTURES, Synth, SynthConfig, check_delta

FIRST = 2**40
"""First index of the synthetic pairs: beyond every run's, so that no analysed pair was trained on, for any seed."""

RECORDINGS = "recordings"
"""Stands for an architecture's name."""


def _known(name: str) -> str:
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown architecture; expected {', '.join(ARCHITECTURES)}")
    return name


class SourcesConfig(Section):
    """The sounds to analyse."""

    architectures: tuple[Annotated[str, AfterValidator(_known)], ...] = Field(tuple(ARCHITECTURES), min_length=1)
    """Synthesizers to compare."""
    delta: tuple[Annotated[float, AfterValidator(check_delta)], ...] = Field(
        (0.01, 0.05, 0.1, 0.25, 0.5, 1.0), min_length=1
    )
    """Values of δ, from 0 to 1."""
    layers: tuple[Annotated[int, Field(ge=1, le=16)], ...] = Field((1,), min_length=1)
    """Numbers of sounds at once, as in pairs.layers; for recordings, seconds of one recording that are summed (the
    paper's dense mixtures)."""
    n: int = Field(256, ge=32, le=10_000)
    """Number of pairs for each architecture, number of layers and δ, and of the recordings."""
    seed: int = Field(0, ge=0)
    """Seed of the sounds, and of the choice of seconds in the recordings."""
    recordings: Path | None = None
    """Folder of the recordings to compare with: every audio file in it and its subfolders."""
    unreadable: Literal["refuse", "skip"] = "refuse"
    """What to do about recordings that cannot be read or are silent."""


@dataclass(frozen=True)
class SoundSource:
    """The origin of some pairs.

    Attributes:
        name: of the architecture, or `RECORDINGS`.
        layers: number of sounds at once.
        delta: δ of the pairs; None for recordings, where a pair is two seconds of one.
    """

    name: str
    layers: int
    delta: float | None

    def __str__(self) -> str:
        many = f", {self.layers} at once" if self.layers > 1 else ""
        return f"{self.name}{many}" if self.delta is None else f"{self.name} at δ = {self.delta:g}{many}"


@dataclass(frozen=True)
class SourcePairs:
    """Pairs of one source.

    Attributes:
        source: of the pairs.
        sounds: (2, n, samples) float32.
        items: (n,) int64, the recording of each pair; the index of a synthetic pair.
    """

    source: SoundSource
    sounds: Tensor
    items: Tensor


def reader(
    synth: SynthConfig, seed: int, unreadable: Literal["refuse", "skip"], catalogue: Catalogue
) -> Callable[[int], Recordings]:
    """Return a function of the number of layers: a reader of excerpts, each the sum of that many from one recording."""
    on_error: Literal["fail", "skip"] = "skip" if unreadable == "skip" else "fail"

    def read(layers: int) -> Recordings:
        config = RecordingsConfig(mixture=layers, on_error=on_error)
        return Recordings(config, synth.sample_rate, synth.duration, seed, catalogue)

    return read


class Sources:
    """All pairs, recordings first; iterating makes the pairs of one source at a time.

    Pair i has the same parameters before perturbation for every δ, so that values of δ compare on the same sounds.

    Args:
        config: the sounds to make.
        synth: rates and options of the synthesizers.

    Raises:
        ConfigError: the recordings are missing or cannot be read.
    """

    def __init__(self, config: SourcesConfig, synth: SynthConfig) -> None:
        self.config, self.synth = config, synth
        self.broken: dict[str, str] = {}
        """Recordings found unusable so far, with the reason."""
        self._recordings: Callable[[int], Recordings] | None = None
        if config.recordings is not None:
            catalogue = _checked(config.recordings, config.unreadable)
            self._recordings = reader(synth, config.seed, config.unreadable, catalogue)

    def __len__(self) -> int:
        kinds = len(self.config.architectures) * len(self.config.delta) + (self._recordings is not None)
        return len(self.config.layers) * kinds

    def __iter__(self) -> Iterator[SourcePairs]:
        indices = torch.arange(self.config.n)
        if self._recordings is not None:
            for layers in self.config.layers:
                recordings = self._recordings(layers)
                sounds, items = recordings.views_and_items(indices)
                self.broken |= recordings.broken
                yield SourcePairs(SoundSource(RECORDINGS, layers, None), sounds, items)
        for name in self.config.architectures:
            synth = self._synth(name)
            for layers in self.config.layers:
                for delta in self.config.delta:
                    sounds = layered(synth, PairsConfig(layers=layers), self.config.seed, FIRST + indices, delta)
                    yield SourcePairs(SoundSource(name, layers, delta), sounds, FIRST + indices)

    def _synth(self, name: str) -> Synth:
        return SynthConfig.model_validate(self.synth.model_dump() | {"architecture": name}).build()


def _checked(root: Path, unreadable: str) -> Catalogue:
    """Return the recordings of a folder after checking the header of each.

    Raises:
        ConfigError: there is none, or one cannot be used.
    """
    config = RecordingsConfig(root=root, on_error="skip" if unreadable == "skip" else "fail")
    try:
        recordings = Recordings(config, sample_rate=16000, duration=1.0, seed=0)
        recordings.check()
    except ConfigError as error:
        message = str(error).removeprefix("source.recordings: ")
        message = message.replace("source.recordings.on_error skip", "--unreadable skip")
        raise ConfigError(f"--recordings: {message}") from None
    return recordings.catalogue
