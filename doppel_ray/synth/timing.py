"""The two clocks of a synthesizer, audio and control, and how samples fall between control points.

Positions are computed once, as exact ratios of integers, so clocks do not drift in long sounds.
"""

import math
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from doppel_ray.core.errors import ConfigError

LONGEST_STRETCH = 64
"""Most samples in a stretch: its phase is a float32, whose error stays near 1e-6 turns over 64 samples."""


def length(duration: float, rate: float) -> int:
    """Return how many samples or control points cover `duration` seconds at `rate` Hz.

    Rounded up in float32, as SynthAX does. Synthetic sounds, recordings and models all take their length from here,
    so that they agree.
    """
    return math.ceil(np.float32(duration * rate))


@dataclass(frozen=True)
class Timing:
    """`sample_rate` and `control_rate` in Hz, `duration` in seconds.

    Control point `c` of `controls` sits at sample `c * (samples - 1) / (controls - 1)`: the first on the first sample,
    the last on the last. Between two points a control signal is a straight line. The samples between two points form
    a *stretch*; long ones are cut, so that none holds more than `LONGEST_STRETCH` samples.
    """

    sample_rate: int
    duration: float
    control_rate: int

    def __post_init__(self) -> None:
        for name in ("sample_rate", "duration", "control_rate"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value!r}: it must be a finite number above 0")
        if self.control_rate > self.sample_rate:
            raise ConfigError(
                f"control_rate is {self.control_rate} Hz: it must not exceed sample_rate, {self.sample_rate} Hz"
            )
        if self.controls < 2:
            raise ConfigError(
                f"control_rate is {self.control_rate} Hz, and duration {self.duration} s: that makes one control "
                f"point, and at least 2 are needed: a control rate above {1 / self.duration:g} Hz"
            )

    @cached_property
    def samples(self) -> int:
        """Number of audio samples in a sound."""
        return length(self.duration, self.sample_rate)

    @cached_property
    def controls(self) -> int:
        """Number of control points in a sound."""
        return length(self.duration, self.control_rate)

    def tables(self, device: torch.device) -> "Tables":
        """Return the lookup tables of this timing, on `device`."""
        gaps, steps = self.controls - 1, self.samples - 1
        sample = np.arange(self.samples, dtype=np.int64)
        point = np.minimum(sample * gaps // steps, gaps - 1)
        weight = (sample * gaps - point * steps) / steps

        opens = np.flatnonzero(np.diff(point, prepend=-1))
        stretch_starts = np.concatenate(
            [np.arange(a, b, LONGEST_STRETCH) for a, b in zip(opens, [*opens[1:], self.samples], strict=True)]
        )
        stretch = np.searchsorted(stretch_starts, sample, side="right") - 1
        counts = np.diff(stretch_starts, append=self.samples)
        spare = -len(counts) % 8  # empty stretches fill the last block of `running_sum`
        counts = np.pad(counts, (0, spare))
        stretch_starts = np.pad(stretch_starts, (0, spare), mode="edge")

        def column(values: np.ndarray, dtype: torch.dtype) -> Tensor:
            return torch.from_numpy(values).to(device=device, dtype=dtype)[:, None, None]

        return Tables(
            point=column(point, torch.int64).flatten(),
            next_point=column(point + 1, torch.int64).flatten(),
            weight=column(weight, torch.float32),
            sample=column(sample, torch.int32),
            stretch=column(stretch, torch.int64).flatten(),
            place=column(sample - stretch_starts[stretch] + 1, torch.float32),
            stretch_point=column(point[stretch_starts], torch.int64).flatten(),
            stretch_next_point=column(point[stretch_starts] + 1, torch.int64).flatten(),
            stretch_weight=column(weight[stretch_starts], torch.float32),
            stretch_count=column(counts, torch.float32),
            control=column(np.arange(self.controls), torch.float32),
        )


@dataclass(frozen=True)
class Tables:
    """Lookup tables. Index vectors are `(length,)`; the rest `(length, 1, 1)`, to broadcast over modules and sounds."""

    point: Tensor
    """Of each sample: the control point before it."""
    next_point: Tensor
    """Of each sample: the control point after it."""
    weight: Tensor
    """Of each sample: how far it is on the way to the next control point, in [0, 1]."""
    sample: Tensor
    """Of each sample: its own number."""
    stretch: Tensor
    """Of each sample: the stretch that holds it."""
    place: Tensor
    """Of each sample: its place in its stretch, counted from 1."""
    stretch_point: Tensor
    """Of each stretch: the control point before its first sample."""
    stretch_next_point: Tensor
    """Of each stretch: the control point after its first sample."""
    stretch_weight: Tensor
    """Of each stretch: how far its first sample is on the way to the next control point."""
    stretch_count: Tensor
    """Of each stretch: how many samples it holds."""
    control: Tensor
    """Of each control point: its own number."""

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all tables in order, as the constructor takes them."""
        return tuple(getattr(self, field.name) for field in fields(self))
