"""The sounds that are analysed: synthetic pairs by architecture, layers and δ, and recordings for reference."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from doppel_ray.core.errors import ConfigError
from doppel_ray.core.schema import Section
from doppel_ray.data.pairs import layered
from doppel_ray.data.recordings import Catalogue, Recordings, RecordingsConfig
from doppel_ray.synth import ARCHITECTURES, Synth, SynthConfig, check_delta

FIRST = 2**40
"""First index of the synthetic pairs: no run comes so far, so that none of what is analysed was trained on, whatever
the seeds of both are."""

RECORDINGS = "recordings"
"""In the place of an architecture's name."""


def _known(name: str) -> str:
    if name not in ARCHITECTURES:
        raise ValueError(f"there is no such architecture; expected {', '.join(ARCHITECTURES)}")
    return name


class SourcesConfig(Section):
    """Which sounds are analysed."""

    architectures: tuple[Annotated[str, AfterValidator(_known)], ...] = Field(tuple(ARCHITECTURES), min_length=1)
    """Synthesizers to compare."""
    delta: tuple[Annotated[float, AfterValidator(check_delta)], ...] = Field(
        (0.01, 0.05, 0.1, 0.25, 0.5, 1.0), min_length=1
    )
    """Values of δ, from 0 to 1."""
    layers: tuple[Annotated[int, Field(ge=1, le=16)], ...] = Field((1,), min_length=1)
    """Numbers of sounds heard at once, as pairs.layers has it; of recordings, seconds of one recording that are summed
    (the paper's dense mixtures)."""
    n: int = Field(256, ge=32, le=10_000)
    """Pairs of each architecture, number of layers and δ; as many of the recordings."""
    seed: int = Field(0, ge=0)
    """Of the sounds, and of which seconds of the recordings are heard."""
    recordings: Path | None = None
    """Folder of the recordings to compare with: every audio file in and below it."""
    unreadable: Literal["refuse", "skip"] = "refuse"
    """What to do about recordings that cannot be read, or are silent."""


@dataclass(frozen=True)
class Source:
    """What some sounds are of.

    Attributes:
        name: of the architecture; or `RECORDINGS`.
        layers: sounds heard at once.
        delta: δ of the pairs; None: they are recordings, and a pair is two seconds of one.
    """

    name: str
    layers: int
    delta: float | None

    def __str__(self) -> str:
        many = f", {self.layers} at once" if self.layers > 1 else ""
        return f"{self.name}{many}" if self.delta is None else f"{self.name} at δ = {self.delta:g}{many}"


@dataclass(frozen=True)
class Heard:
    """Pairs of one source.

    Attributes:
        source: what they are of.
        sounds: (2, n, samples) float32.
        items: (n,) int64, which recording each pair is of; of synthetic pairs their indices.
    """

    source: Source
    sounds: Tensor
    items: Tensor


def reader(
    synth: SynthConfig, seed: int, unreadable: Literal["refuse", "skip"], catalogue: Catalogue
) -> Callable[[int], Recordings]:
    """A number of layers -> what reads seconds of recordings, each the sum of so many of the same recording."""
    on_error: Literal["fail", "skip"] = "skip" if unreadable == "skip" else "fail"

    def read(layers: int) -> Recordings:
        config = RecordingsConfig(mixture=layers, on_error=on_error)
        return Recordings(config, synth.sample_rate, synth.duration, seed, catalogue)

    return read


class Sources:
    """All pairs, recordings first: iterating makes one source's after another's, and keeps none.

    Pair i has the same parameters, before they are perturbed, whatever δ is; so what differs between two values of δ
    is not the luck of the draw.

    Args:
        config: which.
        synth: rates and options of the synthesizers.

    Raises:
        ConfigError: there are no such recordings, or they cannot be read.
    """

    def __init__(self, config: SourcesConfig, synth: SynthConfig) -> None:
        self.config, self.synth = config, synth
        self.broken: dict[str, str] = {}
        """Recordings that could not be used so far, each with the reason."""
        self._recordings: Callable[[int], Recordings] | None = None
        if config.recordings is not None:
            catalogue = _checked(config.recordings, config.unreadable)
            self._recordings = reader(synth, config.seed, config.unreadable, catalogue)

    def __len__(self) -> int:
        kinds = len(self.config.architectures) * len(self.config.delta) + (self._recordings is not None)
        return len(self.config.layers) * kinds

    def __iter__(self) -> Iterator[Heard]:
        indices = torch.arange(self.config.n)
        if self._recordings is not None:
            for layers in self.config.layers:
                recordings = self._recordings(layers)
                sounds, items = recordings.views_and_items(indices)
                self.broken |= recordings.broken
                yield Heard(Source(RECORDINGS, layers, None), sounds, items)
        for name in self.config.architectures:
            synth = self._synth(name)
            for layers in self.config.layers:
                for delta in self.config.delta:
                    sounds = layered(synth, self.config.seed, FIRST + indices, delta, layers)
                    yield Heard(Source(name, layers, delta), sounds, FIRST + indices)

    def _synth(self, name: str) -> Synth:
        return SynthConfig.model_validate(self.synth.model_dump() | {"architecture": name}).build()


def _checked(root: Path, unreadable: str) -> Catalogue:
    """The recordings of a folder, after a look at the header of each.

    Raises:
        ConfigError: there is none, or one cannot be used.
    """
    config = RecordingsConfig(root=root, on_error="skip" if unreadable == "skip" else "fail")
    try:
        recordings = Recordings(config, sample_rate=16000, duration=1.0, seed=0)
        recordings.check()
    except ConfigError as error:
        told = str(error).removeprefix("source.recordings: ")
        told = told.replace("source.recordings.on_error skip", "--unreadable skip")
        raise ConfigError(f"--recordings: {told}") from None
    return recordings.catalogue
