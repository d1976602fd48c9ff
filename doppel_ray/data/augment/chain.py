"""Chains of augmentations, from a list in YAML.

Draws are keyed by index: a pair is augmented in the same way on any machine and in any batch.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

import torch
from pydantic import BeforeValidator, Discriminator, Tag, TypeAdapter
from torch import Tensor

from doppel_ray.core.schema import kind_of
from doppel_ray.data.augment.augmentation import Augmentation, Draws
from doppel_ray.data.augment.noise import AddNoise
from doppel_ray.data.augment.spectral import SpecAugment, SpecMask
from doppel_ray.data.augment.waveform import (
    Fade,
    Gain,
    HighPass,
    ImpulseResponse,
    LowPass,
    PitchShift,
    Shift,
    TimeMask,
    TimeShift,
    TimeStretch,
)


def _tag(value: Any) -> str:
    # Tags appear in the paths of validation errors; the space distinguishes this one from the user's keys.
    return f"kind {kind_of(value)}"


def _known(value: Any) -> Any:
    if kind_of(value) not in KINDS:
        raise ValueError(f"kind is {kind_of(value)!r}; expected one of {', '.join(KINDS)}")
    return value


_Any = (
    Annotated[Gain, Tag("kind gain")]
    | Annotated[Fade, Tag("kind fade")]
    | Annotated[AddNoise, Tag("kind noise")]
    | Annotated[TimeMask, Tag("kind time_mask")]
    | Annotated[TimeShift, Tag("kind time_shift")]
    | Annotated[TimeStretch, Tag("kind time_stretch")]
    | Annotated[PitchShift, Tag("kind pitch_shift")]
    | Annotated[HighPass, Tag("kind high_pass")]
    | Annotated[LowPass, Tag("kind low_pass")]
    | Annotated[Shift, Tag("kind shift")]
    | Annotated[ImpulseResponse, Tag("kind impulse_response")]
    | Annotated[SpecAugment, Tag("kind spec_augment")]
    | Annotated[SpecMask, Tag("kind spec_mask")]
)
AugmentConfig = Annotated[_Any, Discriminator(_tag), BeforeValidator(_known)]
"""The settings of any one augmentation, told apart by `kind`."""

KINDS = tuple(get_args(tagged)[1].tag.removeprefix("kind ") for tagged in get_args(_Any))
"""Names of all kinds."""

_CHAIN: TypeAdapter[tuple[AugmentConfig, ...]] = TypeAdapter(tuple[AugmentConfig, ...])


def read_chain(plain: Sequence[Mapping[str, Any]]) -> tuple[AugmentConfig, ...]:
    """Return a chain from plain data, such as the list under `augment:`.

    Raises:
        pydantic.ValidationError: a kind, a key or a value is not allowed.
    """
    return _CHAIN.validate_python(plain)


def check_chain(
    chain: Sequence[Augmentation], sample_rate: int, domain: Literal["waveform", "spectrogram"] = "spectrogram"
) -> None:
    """Refuse a chain that cannot be applied.

    Args:
        chain: in order.
        sample_rate: of the sound in Hz.
        domain: of the frontend; "waveform" has no features to mask.

    Raises:
        ValueError: names the position, the augmentation and the reason.
    """
    spectral: str | None = None
    for position, augmentation in enumerate(chain):
        name = f"augment.{position}, {kind_of(augmentation)},"
        if augmentation.domain == "spectrogram":
            if domain == "waveform":
                raise ValueError(f"{name} masks a spectrogram, and the raw frontend gives none")
            spectral = spectral or name.rstrip(",")
        elif spectral:
            raise ValueError(
                f"{name} changes the waveform, so it must come before {spectral}, which needs its features"
            )
        try:
            augmentation.check(sample_rate)
        except ValueError as error:
            raise ValueError(f"{name} cannot be applied: {error}") from None


class Augment:
    """A chain of augmentations.

    Args:
        chain: what to apply, in order; those of the waveform first.
        seed: the run's seed; with a pair's index it decides every draw.
        sample_rate: of the sound in Hz.

    Raises:
        ValueError: the chain cannot be applied.
    """

    def __init__(self, chain: Sequence[Augmentation], seed: int, sample_rate: int) -> None:
        check_chain(chain, sample_rate)
        self.chain = tuple(chain)
        self.seed = seed
        self.sample_rate = sample_rate

    def __call__(self, sound: Tensor, indices: Tensor, view: int) -> Tensor:
        """Augment the waveforms of one view (0 or 1) of the pairs `indices` (batch,): (batch, samples) in and out."""
        return self._apply("waveform", sound, indices, view)

    def features(self, features: Tensor, indices: Tensor, view: int) -> Tensor:
        """Augment the features of one view, as above: (batch, channels, frames, bins) in and out."""
        return self._apply("spectrogram", features, indices, view)

    def both(self, sounds: Tensor, indices: Tensor) -> Tensor:
        """Augment the waveforms of both views, (2, batch, samples), each by its own draws."""
        return torch.stack([self(sound, indices, view) for view, sound in enumerate(sounds)])

    def both_features(self, features: Tensor, indices: Tensor) -> Tensor:
        """Augment the features of both views, (2, batch, channels, frames, bins), each by its own draws."""
        return torch.stack([self.features(part, indices, view) for view, part in enumerate(features)])

    def _apply(self, domain: str, batch: Tensor, indices: Tensor, view: int) -> Tensor:
        for position, augmentation in enumerate(self.chain):
            if augmentation.domain != domain:
                continue
            draws = Draws(self.seed, indices, position, view, self.sample_rate)
            rows = (draws.chance() < augmentation.p).nonzero().squeeze(1)
            if len(rows) == len(batch):
                batch = augmentation.apply(batch, draws)
            elif len(rows):
                batch = batch.index_copy(0, rows, augmentation.apply(batch[rows], draws.of(rows)))
        return batch
