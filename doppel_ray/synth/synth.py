"""`Synth`: an architecture at a sample rate, a duration and a control rate; it draws parameters and renders sounds."""

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from doppel_ray.section import ConfigError, Section
from doppel_ray.synth import counter
from doppel_ray.synth.architecture import Architecture
from doppel_ray.synth.counter import Stream
from doppel_ray.synth.modules import NoiseSource, Rack
from doppel_ray.synth.parameters import Parameter
from doppel_ray.synth.parametric import Parametric
from doppel_ray.synth.sampling import Ranges
from doppel_ray.synth.timing import Tables, Timing
from doppel_ray.synth.voice import Voice
from doppel_ray.synth.voicefm import VoiceFM

ARCHITECTURES: dict[str, type[Architecture]] = {"voice": Voice, "voicefm": VoiceFM, "parametric": Parametric}

Indices = Tensor | Sequence[int]
"""Indices of pairs in the stream: int64 `(n,)`, or a range or list of ints."""

CHUNK = 64
"""Sounds rendered at a time: memory does not grow with what is asked for, and the work fits the processor's cache."""


class Synth:
    """A synthesizer whose sounds are a function of (seed, index).

    `theta` is always float32 `(n, P)` in [0, 1], one column per entry of `parameters`.
    """

    def __init__(self, architecture: Architecture, timing: Timing) -> None:
        self.architecture = architecture
        self.timing = timing
        self.parameters = tuple(
            Parameter(f"{module}.{knob}", row.minimum, row.maximum, row.curve, row.symmetric, row.group)
            for module, kind in architecture.modules.items()
            for knob, row in kind.table().items()
        )
        self._ranges = Ranges(self.parameters)
        self._tables: dict[torch.device, Tables] = {}

    @classmethod
    def create(
        cls, name: str, sample_rate: int = 16000, duration: float = 1.0, control_rate: int = 480, **options: Any
    ) -> Self:
        """A synthesizer by name: "voice", "voicefm" or "parametric".

        Rates are in Hz, `duration` in seconds. `options` go to the architecture: `sine`, `square_saw`, `fm_sine`,
        `fm_square_saw` for "parametric", `noise_curve` for "voice". Raises `ConfigError` for what cannot be.
        """
        if name not in ARCHITECTURES:
            raise ConfigError(f"architecture is {name!r}: it must be one of {', '.join(ARCHITECTURES)}")
        kind = ARCHITECTURES[name]
        allowed = list(inspect.signature(kind).parameters)
        for option in options:
            if option not in allowed:
                known = f"its options are {', '.join(allowed)}" if allowed else "it has no options"
                raise ConfigError(f"{name} has no option {option!r}: {known}")
        return cls(kind(**options), Timing(sample_rate, duration, control_rate))

    @property
    def samples(self) -> int:
        """Audio samples in a sound."""
        return self.timing.samples

    def sample(self, seed: int, indices: Indices) -> Tensor:
        """The parameters of each index, `(n, P)`: uniform over their human ranges, a function of (seed, index)."""
        return self._ranges.prior(seed, _as_indices(indices))

    def doppelgangers(self, seed: int, indices: Indices, delta: float | Mapping[str, float]) -> tuple[Tensor, Tensor]:
        """The parameters of the two views of each index: `sample`, perturbed twice by `delta`, each `(n, P)`."""
        indices = _as_indices(indices)
        first, second = self._ranges.views(self._ranges.prior(seed, indices), seed, indices, delta)
        return first, second

    def pairs(self, seed: int, indices: Indices, delta: float | Mapping[str, float]) -> Tensor:
        """Both views of each index as sound, float32 `(2, n, samples)`; they share the noise of their index."""
        indices = _as_indices(indices)
        theta = torch.stack(self.doppelgangers(seed, indices, delta))
        sounds = self.render(theta.flatten(0, 1), seed=seed, indices=indices.repeat(2))
        return sounds.unflatten(0, (2, len(indices)))

    def render(
        self, theta: Tensor, noise: Tensor | None = None, *, seed: int = 0, indices: Indices | None = None
    ) -> Tensor:
        """Sounds, float32 `(n, samples)` in [-1, 1], of parameters `(n, P)`, on the device of `theta`.

        Noise comes from `noise`, `(1 or n, samples)` in [-1, 1], if given; else from the counter-based generator: for
        sound i that of `(seed, indices[i])`, or without `indices` one noise that all sounds share. Raises
        `ConfigError` if `theta` has the wrong width, or holds a value outside [0, 1].
        """
        self._check(theta)
        theta = theta.detach()
        if noise is not None and (
            noise.ndim != 2 or noise.shape[0] not in (1, len(theta)) or noise.shape[1] != self.samples
        ):
            raise ConfigError(f"noise has shape {tuple(noise.shape)}: it must be (1 or {len(theta)}, {self.samples})")
        own = torch.zeros(len(theta), dtype=torch.int64) if indices is None else _as_indices(indices)
        if len(own) != len(theta):
            raise ConfigError(f"indices has {len(own)} entries: theta has {len(theta)} rows, and they must match")
        keys = counter.keys(seed, own.to(theta.device), Stream.NOISE)

        sounds = torch.empty(len(theta), self.samples, device=theta.device)
        for start in range(0, len(theta), CHUNK):
            rows = slice(start, start + CHUNK)
            source: NoiseSource = (keys[0][rows], keys[1][rows])
            if noise is not None:
                source = (noise if len(noise) == 1 else noise[rows]).T
            sounds[rows] = self._play(self._ranges.to_human(theta[rows]), source).T
        return sounds

    def to_human(self, theta: Tensor) -> dict[str, Tensor]:
        """Each parameter's value in its own unit, float32 `(n,)`, by name."""
        self._check(theta)
        return dict(zip(self._ranges.names, self._ranges.to_human(theta).float().unbind(-1), strict=True))

    def from_human(self, values: Mapping[str, float | Tensor]) -> Tensor:
        """The knobs, `(n, P)`, of values in human units: a number or `(n,)` each.

        Parameters that are not named stand in the middle of their range. Raises `ConfigError` for a name that does not
        exist, or a value outside its range.
        """
        columns = [torch.tensor((p.minimum + p.maximum) / 2.0, dtype=torch.float64) for p in self.parameters]
        for name, value in values.items():
            if name not in self._ranges.names:
                near = difflib.get_close_matches(name, self._ranges.names, 3)
                hint = f"; did you mean {' or '.join(near)}?" if near else ""
                raise ConfigError(f"there is no parameter {name!r}{hint}")
            column = self._ranges.names.index(name)
            row, columns[column] = self.parameters[column], torch.as_tensor(value, dtype=torch.float64)
            slack = 1e-6 * (row.maximum - row.minimum)  # float32 values may round past an end
            outside = ~((columns[column] >= row.minimum - slack) & (columns[column] <= row.maximum + slack))
            if outside.any():
                found = columns[column][outside].flatten()[0].item()
                raise ConfigError(f"{name} is {found:g}: it must lie in [{row.minimum:g}, {row.maximum:g}]")
            columns[column] = columns[column].clamp(row.minimum, row.maximum)
        broadcast = torch.broadcast_tensors(*(torch.atleast_1d(column) for column in columns))
        return self._ranges.from_human(torch.stack(broadcast, dim=-1))

    def _play(self, human: Tensor, noise: NoiseSource) -> Tensor:
        """One chunk, `(samples, sounds)`, from knobs in human units, float64 `(sounds, P)`."""
        if human.device not in self._tables:
            self._tables[human.device] = self.timing.tables(human.device)
        knobs = dict(zip(self._ranges.names, human.unbind(-1), strict=True))
        rack = Rack(self.architecture.modules, knobs, self.timing, self._tables[human.device])
        return self.architecture.patch(rack, noise)

    def _check(self, theta: Tensor) -> None:
        width = len(self.parameters)
        if theta.ndim != 2 or theta.shape[1] != width:
            raise ConfigError(
                f"theta has shape {tuple(theta.shape)}: it must be (n, {width}), one column per entry of `parameters`"
            )
        inside = (theta >= 0.0) & (theta <= 1.0)
        if not inside.all():
            row, column = (~inside).nonzero()[0].tolist()
            name, value = self._ranges.names[column], theta[row, column].item()
            raise ConfigError(f"theta[{row}, {column}], which is {name}, is {value:g}: it must lie in [0, 1]")


def _as_indices(indices: Indices) -> Tensor:
    if isinstance(indices, Tensor):
        return indices.to(torch.int64)
    return torch.tensor(list(indices), dtype=torch.int64)


class SynthConfig(Section):
    """Which synthesizer, and at what rates."""

    architecture: Literal["voice", "voicefm", "parametric"] = "voice"
    """voice: 78 parameters; voicefm: 130, adds frequency modulation; parametric: any number of oscillators."""
    sample_rate: int = Field(16000, ge=1000, le=384000)
    """Audio samples per second, in Hz."""
    duration: float = Field(1.0, gt=0.0, le=600.0)
    """Length of a sound, in seconds."""
    control_rate: int = Field(480, ge=1, le=384000)
    """Points per second of envelopes and modulation, in Hz. At most the sample rate."""
    noise_curve: Literal["synthax", "torchsynth"] = "synthax"
    """Voice only. The noise level: straight, as in SynthAX and the paper, or bent towards silence, as in torchsynth."""
    sine: int = Field(2, ge=0, le=64)
    """Parametric only. Sine oscillators."""
    square_saw: int = Field(2, ge=0, le=64)
    """Parametric only. Square-saw oscillators."""
    fm_sine: int = Field(1, ge=0, le=64)
    """Parametric only. Sine oscillators that modulate the frequency of another."""
    fm_square_saw: int = Field(1, ge=0, le=64)
    """Parametric only. Square-saw oscillators that modulate the frequency of another."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        Timing(self.sample_rate, self.duration, self.control_rate)
        self._architecture()
        return self

    def _architecture(self) -> Architecture:
        kind = ARCHITECTURES[self.architecture]
        return kind(**{option: getattr(self, option) for option in inspect.signature(kind).parameters})

    def build(self) -> Synth:
        """The synthesizer."""
        return Synth(self._architecture(), Timing(self.sample_rate, self.duration, self.control_rate))
