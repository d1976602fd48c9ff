"""Arithmetic that the modules share: pitch, phase as an integer, and a few functions in forms that keep their accuracy.

A phase is an int32, a fraction of a turn in units of 2**-32. Sums of phases wrap around by themselves and are exact in
any order: no drift, no growing argument, the same bits for any split of the work.
"""

import math

import torch
from torch import Tensor

_TURN = 2.0**32
_LN2 = math.log(2.0)
_EXP2M1 = [_LN2**k / math.factorial(k) for k in range(7, 0, -1)]


def midi_to_hz(midi: Tensor) -> Tensor:
    """Frequency in Hz of a MIDI note number: 440 Hz at 69, an octave every 12."""
    return 440.0 * torch.exp2((midi - 69.0) / 12.0)


def exp2m1(x: Tensor) -> Tensor:
    """2**x - 1, accurate relative to its own size near 0, where `exp2(x) - 1` would cancel."""
    whole = torch.round(x)
    rest = x - whole
    series = torch.full_like(rest, _EXP2M1[0])
    for coefficient in _EXP2M1[1:]:
        series = series * rest + coefficient
    scale = torch.exp2(whole)
    return scale * (series * rest) + (scale - 1.0)


def to_phase(turns: Tensor) -> Tensor:
    """A phase (int32) from turns: whole turns drop out."""
    return ((turns - torch.round(turns)) * _TURN).to(torch.int32)


def radians(phase: Tensor) -> Tensor:
    """A phase as an angle, float32 in [-π, π]."""
    return phase.to(torch.float32) * (2.0 * math.pi / _TURN)
