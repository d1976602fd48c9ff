"""Checkpoints: safetensors for the weights, JSON for what they are, and a resume file read with `weights_only=True`.

A checkpoint is a folder:

    model.safetensors   weights and buffers of encoder and head
    checkpoint.json     format, experiment, classes of its labels, position in the stream, metrics
    resume.pt           what else training resumes from; not needed to use the model
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from doppel_ray.core import dotted_keys
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.schema import Section
from doppel_ray.data.frontends import FrontendConfig
from doppel_ray.models import EncoderConfig, HeadConfig, Model
from doppel_ray.models.clips import WaveformEncoder
from doppel_ray.synth import SynthConfig
from doppel_ray.synth.timing import length

S = TypeVar("S", bound=Section)

FORMAT = 1
WEIGHTS, DESCRIPTION, RESUME = "model.safetensors", "checkpoint.json", "resume.pt"
EPOCH, WITHIN = "epoch_", "step_"
"""Prefixes of the names of checkpoints: after an epoch, and within one."""
FIELDS: dict[str, type] = {"position": dict, "metrics": dict, "classes": list, "experiment": dict}
"""Fields of `checkpoint.json` beside its format."""


@dataclass(frozen=True)
class Position:
    """How far training has come."""

    epoch: int = 0
    """Epochs that are complete."""
    step: int = 0
    """Optimizer steps taken."""
    next_index: int = 0
    """First index of the stream that no step has used."""
    within: int = 0
    """Steps taken in the current epoch."""

    @property
    def name(self) -> str:
        """Name of the checkpoint's folder."""
        return f"{WITHIN}{self.step:08d}" if self.within else f"{EPOCH}{self.epoch:04d}"


def save(
    folder: Path,
    model: Model,
    experiment: dict[str, Any],
    position: Position,
    metrics: dict[str, Any],
    resume: dict[str, Any],
    classes: Sequence[str] = (),
) -> None:
    """Write a checkpoint into an existing folder."""
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / WEIGHTS)
    torch.save(resume, folder / RESUME)
    about = {
        "format": FORMAT,
        "position": asdict(position),
        "metrics": metrics,
        "classes": list(classes),
        "experiment": experiment,
    }
    # Last, so that a folder with this file is a complete checkpoint.
    (folder / DESCRIPTION).write_text(json.dumps(about, indent=1))


def about(folder: Path) -> dict[str, Any]:
    """Return the content of a checkpoint's `checkpoint.json`.

    Raises:
        ConfigError: the folder holds no checkpoint, a damaged one, or one of an unknown format.
    """
    try:
        found = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{folder} holds no checkpoint: checkpoint.json is missing") from None
    except OSError as error:
        raise ConfigError(f"{folder} holds no checkpoint: {error.strerror or error}") from None
    except ValueError as error:  # not JSON, or not text
        raise ConfigError(f"{folder}/checkpoint.json is damaged: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{folder}/checkpoint.json is damaged: it holds a {type(found).__name__}")
    if found.get("format") != FORMAT:
        raise ConfigError(f"{folder} has checkpoint format {found.get('format')!r}; this version reads {FORMAT}")
    for field, kind in FIELDS.items():
        if field not in found:
            raise ConfigError(f"{folder}/checkpoint.json lacks the field {field!r}: {_remedy(field)}")
        if not isinstance(found[field], kind):
            raise ConfigError(
                f"{folder}/checkpoint.json is damaged: {field} is {found[field]!r}, expected a {kind.__name__}"
            )
    return found


def _remedy(field: str) -> str:
    older = "an older version of doppel_ray wrote it"
    if field == "classes":
        return f'{older}, which knew no labels; add "classes": [] to the file'
    return f"{older}, or it was changed since; take another checkpoint, or train again"


def position(folder: Path) -> Position:
    return Position(**about(folder)["position"])


def load_weights(folder: Path, model: Model) -> None:
    """Load a checkpoint's weights into a model of the same shape.

    Raises:
        ConfigError: the weights are truncated, or belong to another architecture.
    """
    file = folder / WEIGHTS
    try:
        weights = load_file(file)
    except Exception as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(f"{file} belongs to another architecture: {str(error).splitlines()[-1].strip()}") from error


def load_encoder(folder: Path, model: Model) -> None:
    """Load the encoder of a checkpoint into a model, and leave the rest unchanged.

    Raises:
        ConfigError: there is no such checkpoint, or its encoder differs.
    """
    trained, _ = load(folder)
    try:
        model.encoder.load_state_dict(trained.encoder.state_dict())
    except RuntimeError as error:
        raise ConfigError(
            f"train.init is {folder}, whose encoder is another: {str(error).splitlines()[-1].strip()}"
        ) from error


def load_resume(folder: Path) -> dict[str, Any]:
    return torch.load(folder / RESUME, weights_only=True, map_location="cpu")


@dataclass(frozen=True)
class ModelSpec:
    """The sections of an experiment that specify a model and its input."""

    synth: SynthConfig
    frontend: FrontendConfig
    encoder: EncoderConfig
    head: HeadConfig
    seed: int
    classes: int = 0

    @classmethod
    def of(cls, experiment: dict[str, Any], classes: Sequence[str] = ()) -> "ModelSpec":
        """Return the specification in an experiment as a plain dictionary, with the classes of its labels.

        Raises:
            ConfigError: a section or a key is missing, unknown or not allowed.
        """
        seed = experiment.get("run", {}).get("seed")
        if not isinstance(seed, int):
            raise ConfigError(f"run.seed is {seed!r}: expected a whole number")
        return cls(
            synth=_section(experiment, "synth", SynthConfig),
            frontend=_section(experiment, "frontend", FrontendConfig),
            encoder=_section(experiment, "encoder", EncoderConfig),
            head=_section(experiment, "head", HeadConfig),
            seed=seed,
            classes=len(classes),
        )

    @property
    def sample_rate(self) -> int:
        """Sample rate of the sounds that the model reads, in Hz."""
        return self.synth.sample_rate

    @property
    def samples(self) -> int:
        """Length of the training sounds; shorter ones are followed by silence."""
        return length(self.synth.duration, self.synth.sample_rate)

    def waveform_encoder(self, model: Model) -> WaveformEncoder:
        """Return a model of this specification with the frontend before it."""
        whole = self.encoder.reading == "whole"
        frontend = self.frontend.build(self.sample_rate, every_frame=whole)
        return WaveformEncoder(model, frontend, self.sample_rate, self.samples, whole)

    def untrained(self) -> Model:
        """Return the model as training starts with it."""
        channels = self.frontend.build(self.sample_rate).channels
        return Model(self.encoder, self.head, self.seed, channels, self.classes)


def _section(experiment: dict[str, Any], name: str, model: type[S]) -> S:
    """Return one section of an experiment in a checkpoint."""
    if name not in experiment:
        raise ConfigError(f"the section {name!r} is missing")
    try:
        return model.model_validate(experiment[name])
    except ValidationError as error:
        raise ConfigError(dotted_keys.explain(error, model, prefix=f"{name}.")) from None


def recipe(folder: Path) -> ModelSpec:
    """Return the specification of a checkpoint's model.

    Raises:
        ConfigError: there is no such checkpoint, or it is damaged.
    """
    found = about(folder)
    with _naming(folder):
        return ModelSpec.of(found["experiment"], found["classes"])


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Name this checkpoint in errors about its experiment."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(
            f"{folder}/{DESCRIPTION} holds no experiment that this version reads: {error}; "
            "another version of doppel_ray wrote it, or it was changed since"
        ) from None


def load(folder: Path) -> tuple[Model, ModelSpec]:
    """Return the trained model of a checkpoint, in evaluation mode, and its specification.

    Raises:
        ConfigError: there is no such checkpoint, or it is damaged, or its weights do not fit its specification.
    """
    found = recipe(folder)
    with _naming(folder):
        model = found.untrained()
    load_weights(folder, model)
    return model.eval(), found
