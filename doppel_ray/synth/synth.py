"""`Synth`: an architecture at a sample rate, a duration and a control rate; it draws parameters and renders sounds."""

import difflib
import functools
import inspect
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from doppel_ray.core import rng
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.rng import Stream
from doppel_ray.core.schema import Section
from doppel_ray.synth import compiled
from doppel_ray.synth.architecture import Architecture
from doppel_ray.synth.modules import Rack
from doppel_ray.synth.parameters import Parameter
from doppel_ray.synth.parametric import Parametric
from doppel_ray.synth.sampling import Ranges, Spread
from doppel_ray.synth.timing import Tables, Timing
from doppel_ray.synth.voice import Voice
from doppel_ray.synth.voicefm import VoiceFM

ARCHITECTURES: dict[str, type[Architecture]] = {"voice": Voice, "voicefm": VoiceFM, "parametric": Parametric}

Indices = Tensor | Sequence[int]
"""Indices of pairs in the stream: int64 `(n,)`, or a range or list of ints."""

Compile = bool | Literal["auto"]

NoiseKind = Literal["shared", "view"]
"""White noise of pairs: one buffer for all sounds of a seed, as published, or a draw for each view."""

CHUNK = {"cpu": 32, "cuda": 1024}
"""Sounds rendered at a time, so that memory is bounded and the work fits into a processor's cache."""


class Synth:
    """A synthesizer whose sounds are a function of (seed, index).

    `theta` is always float32 `(n, P)` in [0, 1], one column per entry of `parameters`.
    """

    def __init__(self, architecture: Architecture, timing: Timing, compile: Compile = "auto") -> None:
        self.architecture = architecture
        self.timing = timing
        self.compile = compile
        self.parameters = tuple(
            Parameter(f"{module}.{knob}", row.minimum, row.maximum, row.curve, row.symmetric, row.group)
            for module, kind in architecture.modules.items()
            for knob, row in kind.table().items()
        )
        self._ranges = Ranges(self.parameters)
        self._tables: dict[torch.device, tuple[Tensor, ...]] = {}
        self._lock = threading.Lock()
        self._programs: dict[tuple[torch.device, torch.dtype], compiled.Program | None] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.architecture, self.timing, self.compile)  # programs stay with their process

    @classmethod
    def create(
        cls,
        name: str,
        sample_rate: int = 16000,
        duration: float = 1.0,
        control_rate: int = 480,
        compile: Compile = "auto",
        **options: Any,
    ) -> Self:
        """Return a synthesizer by name: "voice", "voicefm" or "parametric".

        Rates are in Hz, `duration` in seconds; `compile` is `SynthConfig.compile`. `options` go to the architecture:
        `sine`, `square_saw`, `fm_sine`, `fm_square_saw` for "parametric", `noise_curve` for "voice". Raises
        `ConfigError` for an unknown name or option, or a value that is not allowed.
        """
        if name not in ARCHITECTURES:
            raise ConfigError(f"architecture is {name!r}: it must be one of {', '.join(ARCHITECTURES)}")
        kind = ARCHITECTURES[name]
        allowed = list(inspect.signature(kind).parameters)
        for option in options:
            if option not in allowed:
                known = f"its options are {', '.join(allowed)}" if allowed else "it has no options"
                raise ConfigError(f"{name} has no option {option!r}: {known}")
        return cls(kind(**options), Timing(sample_rate, duration, control_rate), compile)

    @property
    def samples(self) -> int:
        """Audio samples in a sound."""
        return self.timing.samples

    def sample(self, seed: int, indices: Indices) -> Tensor:
        """Draw the parameters of each index, `(n, P)`: uniform over their human ranges, a function of (seed, index)."""
        return self._ranges.prior(seed, _as_indices(indices))

    def doppelgangers(self, seed: int, indices: Indices, delta: Spread) -> tuple[Tensor, Tensor]:
        """Draw the parameters of both views of each index, each `(n, P)`: `sample`, perturbed twice by `delta`."""
        indices = _as_indices(indices)
        first, second = self._ranges.views(self._ranges.prior(seed, indices), seed, indices, delta)
        return first, second

    def pairs(self, seed: int, indices: Indices, delta: Spread, noise: NoiseKind = "shared") -> Tensor:
        """Render both views of each index, float32 `(2, n, samples)`."""
        return self.render_views(torch.stack(self.doppelgangers(seed, indices, delta)), seed, indices, noise)

    def render_views(self, theta: Tensor, seed: int, indices: Indices, noise: NoiseKind = "shared") -> Tensor:
        """Render the parameters `(2, n, P)` of both views of each index, float32 `(2, n, samples)`.

        The noise is one for all sounds or one for each view. A noise that only the two views of a pair share would
        identify the pair, and training would learn to find it and nothing else.
        """
        indices = _as_indices(indices).to(theta.device)
        if noise == "shared":
            keys = torch.stack(_shared_keys(seed, theta.device)).expand(-1, 2 * len(indices))
        else:
            streams = (Stream.NOISE, Stream.SECOND_VIEW_NOISE)
            keys = torch.cat([torch.stack(rng.keys(seed, indices, stream)) for stream in streams], dim=1)
        flat = theta.flatten(0, 1)
        self._check(flat)
        return self._render(flat.detach(), keys).unflatten(0, (2, len(indices)))

    def render(
        self, theta: Tensor, noise: Tensor | None = None, *, seed: int = 0, indices: Indices | None = None
    ) -> Tensor:
        """Render float32 `(n, samples)` in [-1, 1], of parameters `(n, P)`, on the device of `theta`.

        Noise comes from `noise`, `(1 or n, samples)` in [-1, 1], if given; else from the counter-based generator: for
        sound i that of `(seed, indices[i])`, or without `indices` one noise that all sounds share. Raises
        `ConfigError` if `theta` has the wrong width, or holds a value outside [0, 1].
        """
        self._check(theta)
        theta = theta.detach()
        if noise is not None:
            if noise.ndim != 2 or noise.shape[0] not in (1, len(theta)) or noise.shape[1] != self.samples:
                raise ConfigError(
                    f"noise has shape {tuple(noise.shape)}: it must be (1 or {len(theta)}, {self.samples})"
                )
            return self._render(theta, noise.expand(len(theta), -1).T)
        if indices is None:
            return self._render(theta, torch.stack(_shared_keys(seed, theta.device)).expand(-1, len(theta)))
        own = _as_indices(indices)
        if len(own) != len(theta):
            raise ConfigError(f"indices has {len(own)} entries: theta has {len(theta)} rows, and they must match")
        return self._render(theta, torch.stack(rng.keys(seed, own.to(theta.device), Stream.NOISE)))

    def _render(self, theta: Tensor, noise: Tensor) -> Tensor:
        """Render parameters `(n, P)` to `(n, samples)` in chunks; `noise` is as `_patch` takes it."""
        chunk = CHUNK[theta.device.type]
        sounds = torch.empty(len(theta), self.samples, device=theta.device)
        inference = torch.is_inference_mode_enabled()  # a thread's own matter, but `sounds` is of the caller's mode

        def play(start: int) -> None:
            rows = slice(start, start + chunk)
            with torch.inference_mode(inference):
                self._play(self._ranges.to_human(theta[rows]).T, noise[:, rows], sounds[rows])

        starts = range(0, len(theta), chunk)
        threads = torch.get_num_threads() if theta.device.type == "cpu" else 1
        if threads == 1 or len(starts) == 1:
            for start in starts:
                play(start)
        else:
            list(_pool(threads).map(play, starts))
        return sounds

    def to_human(self, theta: Tensor) -> dict[str, Tensor]:
        """Return each parameter's value in its own unit, float32 `(n,)`, by name."""
        self._check(theta)
        return dict(zip(self._ranges.names, self._ranges.to_human(theta).float().unbind(-1), strict=True))

    def from_human(self, values: Mapping[str, float | Tensor]) -> Tensor:
        """Return the knobs, `(n, P)`, of values in human units: a number or `(n,)` each.

        Parameters that are not named are in the middle of their range. Raises `ConfigError` for a name that does not
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

    def _play(self, human: Tensor, noise: Tensor, out: Tensor) -> None:
        """Render a chunk into `out`, `(n, samples)`, from knobs in human units, `(P, n)`, and noise as in `_patch`."""
        device, chunk, n = human.device, CHUNK[human.device.type], human.shape[1]
        with self._lock:
            if device not in self._tables:
                self._tables[device] = self.timing.tables(device).tensors()
            tables, kind = self._tables[device], (device, noise.dtype)
            if kind not in self._programs:
                example = (out.new_empty(chunk, self.samples), _fill(human, chunk), _fill(noise, chunk), *tables)
                self._programs[kind] = compiled.program(self._into, example, self._identity(), self.compile)
        program = self._programs[kind]
        if program is None:  # whole SIMD vectors, so that each sound is computed alike
            width = -(-n // 16) * 16
            out.copy_(self._patch(_fill(human, width), _fill(noise, width), *tables)[:n])
        elif n == chunk:
            program(out, _fill(human, chunk), _fill(noise, chunk), *tables)
        else:
            whole = out.new_empty(chunk, self.samples)
            program(whole, _fill(human, chunk), _fill(noise, chunk), *tables)
            out.copy_(whole[:n])

    def _into(self, out: Tensor, human: Tensor, noise: Tensor, *tables: Tensor) -> Tensor:
        """Write `_patch` into `out`, which saves the compiled program a copy."""
        return out.copy_(self._patch(human, noise, *tables))

    def _patch(self, human: Tensor, noise: Tensor, *tables: Tensor) -> Tensor:
        """Return the sounds, `(n, samples)`, from knobs `(P, n)` and noise: keys `(2, n)` or samples `(samples, n)`."""
        rack = Rack(self.architecture.modules, human, self.timing, Tables(*tables))
        source = (noise[0], noise[1]) if noise.dtype == torch.int32 else noise
        return self.architecture.patch(rack, source).T

    def _identity(self) -> str:
        """Return what `_patch` depends on besides its inputs and this package's source."""
        kind = type(self.architecture)
        return repr((inspect.getsource(inspect.getmodule(kind) or kind), dict(self.architecture.modules), self.timing))

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


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Return a pool that is kept: the kernel clears memory for each new thread."""
    return ThreadPoolExecutor(threads, thread_name_prefix="render")


def _fill(columns: Tensor, chunk: int) -> Tensor:
    """Repeat the last column up to `chunk` columns, the one width that is compiled."""
    missing = chunk - columns.shape[1]
    return torch.cat([columns, columns[:, -1:].expand(-1, missing)], dim=1) if missing else columns.contiguous()


def _shared_keys(seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the keys of the noise that all sounds of a seed share, each `(1,)`."""
    return rng.keys(seed, torch.zeros(1, dtype=torch.int64, device=device), Stream.NOISE)


def _as_indices(indices: Indices) -> Tensor:
    if isinstance(indices, Tensor):
        return indices.to(torch.int64)
    return torch.tensor(list(indices), dtype=torch.int64)


class SynthConfig(Section):
    """The synthesizer, its rates and the length of its sounds."""

    architecture: Literal["voice", "voicefm", "parametric"] = "voice"
    """Synthesizer. voice: 78 parameters. voicefm: adds frequency modulation, 130 parameters. parametric: the numbers of
    oscillators given below."""
    sample_rate: int = Field(16000, ge=1000, le=384000)
    """Audio samples per second, in Hz."""
    duration: float = Field(1.0, gt=0.0, le=600.0)
    """Length of each sound, in seconds."""
    control_rate: int = Field(480, ge=1, le=384000)
    """Rate at which envelopes and modulation are computed, in Hz; at most the sample rate."""
    compile: Compile = "auto"
    """Whether to compile the synthesizer, once per user. auto: if there is a C++ compiler, else warn. true: fail
    without a compiler. false: start at once, but render about 20 times slower."""
    noise_curve: Literal["synthax", "torchsynth"] = "synthax"
    """voice: how the noise level follows its parameter. synthax: linearly, as in SynthAX and the paper. torchsynth: on
    a curve with more values near silence."""
    sine: int = Field(2, ge=0, le=64)
    """parametric: number of sine oscillators."""
    square_saw: int = Field(2, ge=0, le=64)
    """parametric: number of square-saw oscillators."""
    fm_sine: int = Field(1, ge=0, le=64)
    """parametric: number of sine oscillators that modulate the frequency of another oscillator."""
    fm_square_saw: int = Field(1, ge=0, le=64)
    """parametric: number of square-saw oscillators that modulate the frequency of another oscillator."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        Timing(self.sample_rate, self.duration, self.control_rate)
        self._architecture()
        return self

    def _architecture(self) -> Architecture:
        kind = ARCHITECTURES[self.architecture]
        return kind(**{option: getattr(self, option) for option in inspect.signature(kind).parameters})

    def build(self) -> Synth:
        """Return the synthesizer."""
        return Synth(self._architecture(), Timing(self.sample_rate, self.duration, self.control_rate), self.compile)
