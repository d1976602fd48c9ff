"""Embedding spaces: what turns sounds into vectors that are near each other if the sounds are alike."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from doppel_ray.analyze import pretrained
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.schema import Section
from doppel_ray.hear import get_scene_embeddings, load_model
from doppel_ray.probe.embed import by_mel_statistics

Name = Literal["mel", "checkpoint", "clap"]


class SpacesConfig(Section):
    """In which spaces sounds are compared."""

    space: tuple[Name, ...] | None = Field(None, min_length=1)
    """mel: mean and deviation over time of 64 log-mel bands. checkpoint: that of --checkpoint. clap: that of --clap.
    Default: clap if it is given, else checkpoint if it is given, else mel; for `all`, every one that is given, and
    mel."""
    checkpoint: Path | None = None
    """A checkpoint's folder, or the safetensors folder that doppel_ray.export makes of one."""
    clap: str | None = None
    """A CLAP model: a local folder, or a name such as laion/clap-htsat-unfused (the extra `clap`)."""
    batch: int = Field(32, ge=1)
    """Sounds embedded at a time."""

    @model_validator(mode="after")
    def _given(self) -> "SpacesConfig":
        for name in self.space or ():
            if name != "mel" and getattr(self, name) is None:
                raise ValueError(f"space is {name}, which is not given: give it with --{name}")
        return self

    def names(self, every: bool) -> tuple[Name, ...]:
        """The spaces to compare in; `every`: where none is named, all that can be."""
        if self.space is not None:
            return tuple(dict.fromkeys(self.space))
        optional: tuple[Name, ...] = ("checkpoint", "clap")
        given: tuple[Name, ...] = ("mel", *(name for name in optional if getattr(self, name) is not None))
        return given if every else given[-1:]

    def build(self, name: Name, sample_rate: int, device: torch.device) -> "Space":
        """A space for sounds at `sample_rate` Hz, its model on `device`.

        Raises:
            ConfigError: its model cannot be loaded.
        """
        if name == "mel":
            return Mel(sample_rate, self.batch)
        if name == "checkpoint":
            assert self.checkpoint is not None
            return Checkpoint(self.checkpoint, sample_rate, self.batch, device)
        assert self.clap is not None
        return Clap(self.clap, sample_rate, self.batch, device)


class Space(ABC):
    """An embedding space.

    Attributes:
        name: for titles and files.
        batch: sounds embedded at a time.
        cosine: similarity is the cosine of embeddings as they are, as the space was trained for. Elsewhere all
            embeddings share a large mean, and some numbers vary a hundred times more than others, so that the cosine of
            any two is near 1: there it is taken of embeddings standardised over all sounds that are compared.
    """

    name: Name
    cosine: bool = False

    def __init__(self, batch: int) -> None:
        self.batch = batch

    @abstractmethod
    def embed(self, sounds: Tensor) -> Tensor:
        """Sounds (n, samples), n at most `batch`, into vectors (n, size) float32 on the CPU."""

    @torch.inference_mode()
    def __call__(self, sounds: Tensor) -> Tensor:
        """Sounds (..., samples) into vectors (..., size) float32 on the CPU."""
        flat = sounds.flatten(0, -2)
        return torch.cat([self.embed(part) for part in flat.split(self.batch)]).unflatten(0, sounds.shape[:-1])

    def levelled(self, groups: Sequence[Tensor]) -> list[Tensor]:
        """Groups of embeddings (..., size) in which cosines say something; see `cosine`. Each group counts alike."""
        if self.cosine:
            return list(groups)
        means = torch.stack([group.flatten(0, -2).mean(dim=0) for group in groups])
        squares = torch.stack([group.flatten(0, -2).square().mean(dim=0) for group in groups])
        centre = means.mean(dim=0)
        scale = (squares.mean(dim=0) - centre.square()).clamp(min=0.0).sqrt()
        scale = torch.where(scale > 1e-6, scale, torch.inf)  # a number that never varies says nothing
        return [(group - centre) / scale for group in groups]


class Mel(Space):
    """Mean and standard deviation over time of 64 log-mel bands: what every probe is compared with."""

    name = "mel"

    def __init__(self, sample_rate: int, batch: int) -> None:
        super().__init__(batch)
        self.embedder = by_mel_statistics(sample_rate)

    def embed(self, sounds: Tensor) -> Tensor:
        return self.embedder.embed(sounds)


class Checkpoint(Space):
    """The representation of a checkpoint's model, as probes read it."""

    name = "checkpoint"

    def __init__(self, folder: Path, sample_rate: int, batch: int, device: torch.device) -> None:
        super().__init__(batch)
        self.model = load_model(folder).to(device)
        if self.model.sample_rate != sample_rate:
            raise ConfigError(
                f"{folder} reads sound at {self.model.sample_rate} Hz and synth.sample_rate is {sample_rate}; "
                f"give --synth.sample_rate {self.model.sample_rate}"
            )

    def embed(self, sounds: Tensor) -> Tensor:
        return get_scene_embeddings(sounds, self.model).cpu()


class Clap(Space):
    """CLAP's audio embeddings (Wu et al., ICASSP 2023), which cosines are meant for: the space of the paper's figure 2.

    Args:
        name: of the model, or its folder.
        sample_rate: of the sounds, which are brought to CLAP's own.
        batch: sounds embedded at a time.
        device: where the model works.
    """

    name = "clap"
    cosine = True

    def __init__(self, name: str, sample_rate: int, batch: int, device: torch.device) -> None:
        super().__init__(batch)
        self.model, extractor = pretrained.load("ClapModel", name, "--clap")
        self.model, self.device = self.model.to(device), device
        self.ears = pretrained.FeatureExtractor(extractor, sample_rate)

    def embed(self, sounds: Tensor) -> Tensor:
        found = self.model.get_audio_features(**self.ears(sounds, self.device))
        # A tensor, or since transformers 5 an output that holds it.
        vectors = found if isinstance(found, Tensor) else found.pooler_output
        return torch.nn.functional.normalize(vectors, dim=-1).cpu()
