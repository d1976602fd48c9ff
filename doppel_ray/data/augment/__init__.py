"""Augmentations of sounds and of their features, drawn by index."""

from doppel_ray.data.augment.augmentation import Augmentation
from doppel_ray.data.augment.chain import KINDS, Augment, AugmentConfig, check_chain, read_chain
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

__all__ = [
    "KINDS",
    "AddNoise",
    "Augment",
    "AugmentConfig",
    "Augmentation",
    "Fade",
    "Gain",
    "HighPass",
    "ImpulseResponse",
    "LowPass",
    "PitchShift",
    "Shift",
    "SpecAugment",
    "SpecMask",
    "TimeMask",
    "TimeShift",
    "TimeStretch",
    "check_chain",
    "read_chain",
]
