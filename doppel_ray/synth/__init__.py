"""Synthetic sounds in pairs: SynthAX's synthesizers in PyTorch, each sound a function of (seed, index)."""

from doppel_ray.synth.parameters import GROUPS, Parameter
from doppel_ray.synth.sampling import Delta, check_delta
from doppel_ray.synth.synth import ARCHITECTURES, NoiseKind, Synth, SynthConfig

__all__ = ["ARCHITECTURES", "GROUPS", "Delta", "NoiseKind", "Parameter", "Synth", "SynthConfig", "check_delta"]
