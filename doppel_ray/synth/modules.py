"""The modules of the synthesizers: each a table of knobs and a function of signals.

Inside a synthesizer, time comes first and sounds last: a control signal is `(controls, sounds)`, an audio signal
`(samples, sounds)`, and a knob `(sounds,)`, so that knobs broadcast over time by themselves and the processor's vectors
run across sounds. What a function needs at one moment then lies side by side in memory for all sounds, and sums along
time never cross a vector.

Modules, their knobs and their equations are SynthAX 0.2.2's, which follow torchsynth (Turian et al., "One Billion Audio
Sounds from GPU-enabled Modular Synthesis", DAFx 2021). Where the two differ, or are wrong, the module says so.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from doppel_ray.synth import counter
from doppel_ray.synth.maths import exp2m1, midi_to_hz, radians, to_phase
from doppel_ray.synth.parameters import Group, Range
from doppel_ray.synth.timing import Tables, Timing

NoiseSource = tuple[Tensor, Tensor] | Tensor
"""Where noise comes from: two int32 keys, each `(sounds,)`, or a buffer `(samples, 1 or sounds)`."""

HIGHEST_NOTE = 127.0
"""MIDI notes end here, and a modulated pitch is held between 0 and here."""


@dataclass(frozen=True)
class Module:
    """A kind of module. `knobs` is its table: knob name -> `Range`, in SynthAX's order of definition."""

    knobs: ClassVar[dict[str, Range]] = {}

    def table(self) -> dict[str, Range]:
        """Its knobs; arrays are spelt out, as "level.0", "level.1"."""
        return self.knobs


@dataclass(frozen=True)
class Panel:
    """What a module finds when it is played: its own knobs in human units, and the clocks."""

    timing: Timing
    tables: Tables
    knobs: Mapping[str, Tensor]
    """Knob name -> float64 `(sounds,)`."""

    def __getitem__(self, knob: str) -> Tensor:
        """A knob, float32 `(sounds,)`."""
        return self.knobs[knob].to(torch.float32)

    def exact(self, knob: str) -> Tensor:
        """A knob, float64 `(sounds,)`: pitches need it, because their rounding adds up over a long sound."""
        return self.knobs[knob]

    def upsample(self, control: Tensor) -> Tensor:
        """A control signal at audio rate, by straight lines between control points. SynthAX: `ControlRateUpsample`."""
        before, after = control[self.tables.point], control[self.tables.point + 1]
        return before + self.tables.weight * (after - before)


class Keyboard(Module):
    """One key, pressed once at time 0. SynthAX: `MonophonicKeyboard`."""

    knobs: ClassVar[dict[str, Range]] = {
        "midi_f0": Range(0.0, 127.0, "pitch"),
        "duration": Range(0.01, 4.0, "envelope", curve=0.5),
    }

    def play(self, panel: Panel) -> tuple[Tensor, Tensor]:
        """The note (MIDI number, float64 `(sounds,)`) and how long the key is held (seconds, `(sounds,)`)."""
        return panel.exact("midi_f0"), panel["duration"]


@dataclass(frozen=True)
class ADSR(Module):
    """Attack, decay, sustain, release: an envelope in [0, 1]. Times in seconds; `alpha` bends the ramps.

    Two habits of the original are kept: a decay of length 0 stays at 1 and never falls to `sustain`, and a release of
    length 0 never silences the sound.
    """

    group: Group = "envelope"

    def table(self) -> dict[str, Range]:
        return {
            "attack": Range(0.0, 2.0, self.group, curve=0.5),
            "decay": Range(0.0, 2.0, self.group, curve=0.5),
            "sustain": Range(0.0, 1.0, self.group),
            "release": Range(0.0, 5.0, self.group, curve=0.5),
            "alpha": Range(0.1, 6.0, self.group),
        }

    def play(self, panel: Panel, held: Tensor) -> Tensor:
        """The envelope, `(controls, sounds)`, of a key held for `held` seconds; its release starts there."""
        rate, time = panel.timing.control_rate, panel.tables.control
        alpha, sustain = panel["alpha"], panel["sustain"]
        attack = torch.minimum(panel["attack"], held)
        decay = torch.minimum((held - panel["attack"]).clamp(min=0.0), panel["decay"])

        rising = _ramp(time, attack * rate)
        falling = _ramp_down(time - attack * rate, decay * rate)
        released = _ramp_down(time - held * rate, panel["release"] * rate)
        # rising**alpha * released**alpha, with one power instead of two
        return (rising * released) ** alpha * (sustain + (1.0 - sustain) * falling**alpha)


_EPSILON = 1e-6  # SynthAX's guard for ramps of length 0


def _ramp(time: Tensor, length: Tensor) -> Tensor:
    """From 0 at time 0 up to 1 at `length`, both in control points; 1 everywhere if the length is 0."""
    return ((time.clamp(min=0.0) + _EPSILON) / length + _EPSILON).clamp(max=1.0)


def _ramp_down(time: Tensor, length: Tensor) -> Tensor:
    """From 1 at time 0 down to 0 at `length`; 1 everywhere if the length is 0."""
    return torch.where(length > 0.0, 1.0 - _ramp(time, length), 1.0)


class LFO(Module):
    """Low-frequency oscillator: a blend of five shapes, each in [0, 1]. Rates in Hz.

    The weights of the shapes are their knobs to the power e, divided by their sum. If all five knobs are 0 the original
    divides 0 by 0; here the shapes then weigh the same.
    """

    knobs: ClassVar[dict[str, Range]] = {
        "frequency": Range(0.0, 20.0, "modulation", curve=0.25),
        "mod_depth": Range(-10.0, 20.0, "modulation", curve=0.5, symmetric=True),
        "initial_phase": Range(-math.pi, math.pi, "modulation"),
        "sin": Range(0.0, 1.0, "modulation"),
        "tri": Range(0.0, 1.0, "modulation"),
        "saw": Range(0.0, 1.0, "modulation"),
        "rsaw": Range(0.0, 1.0, "modulation"),
        "sqr": Range(0.0, 1.0, "modulation"),
    }

    def play(self, panel: Panel, rate_modulation: Tensor) -> Tensor:
        """The oscillation, `(controls, sounds)`; `rate_modulation` scales `mod_depth`, which adds to the rate."""
        frequency = (panel["frequency"] + panel["mod_depth"] * rate_modulation).clamp(min=0.0)
        steps = to_phase(frequency / panel.timing.control_rate)
        start = to_phase(panel["initial_phase"] / (2.0 * math.pi))
        angle = radians(torch.cumsum(steps, dim=0, dtype=torch.int32) + start)

        cosine = -torch.cos(angle)  # half a turn late, as in the original
        saw = angle / (2.0 * math.pi)
        saw = torch.where(saw < 0.0, saw + 1.0, saw)
        triangle = 1.0 - (2.0 * saw - 1.0).abs()
        shapes = (0.5 + 0.5 * cosine, triangle, saw, 1.0 - saw, 0.5 + 0.5 * torch.sign(cosine))

        knobs = [panel[name] for name in ("sin", "tri", "saw", "rsaw", "sqr")]
        highest = torch.stack(knobs).amax(dim=0)
        weights = [torch.where(highest > 0.0, knob / highest, 1.0) ** math.e for knob in knobs]
        total = sum(weights[1:], weights[0])
        parts = [weight / total * shape for weight, shape in zip(weights, shapes, strict=True)]
        return sum(parts[1:], parts[0])


@dataclass(frozen=True)
class ModulationMixer(Module):
    """Every output is a weighted sum of all inputs. Knob `mod` is a matrix, outputs by inputs, spelt out row by row."""

    inputs: int
    outputs: int

    def table(self) -> dict[str, Range]:
        return {f"mod.{i}": Range(0.0, 1.0, "modulation", curve=0.5) for i in range(self.inputs * self.outputs)}

    def play(self, panel: Panel, *signals: Tensor) -> list[Tensor]:
        """The outputs, each `(controls, sounds)`."""
        mixed = []
        for row in range(self.outputs):
            parts = [panel[f"mod.{row * self.inputs + i}"] * signal for i, signal in enumerate(signals)]
            mixed.append(sum(parts[1:], parts[0]))
        return mixed


@dataclass(frozen=True)
class AudioMixer(Module):
    """A weighted sum of audio signals, scaled back to [-1, 1] if it leaves it.

    The original divides a whole batch by the peak of its first sound; here each sound is divided by its own peak, and
    the two agree for a batch of one. `curves` bends the level of an input. torchsynth bends the noise of a Voice by
    0.025, which makes noise rare; SynthAX means to, but its test for a curve fails on arrays and the level stays
    straight, so the published Voice is noisier than intended. Without `curves` the levels are straight, as published.
    """

    inputs: int
    curves: tuple[float, ...] = ()

    def table(self) -> dict[str, Range]:
        curves = self.curves or (1.0,) * self.inputs
        return {f"level.{i}": Range(0.0, 1.0, "mix", curve=curve) for i, curve in enumerate(curves)}

    def play(self, panel: Panel, *signals: Tensor) -> Tensor:
        """The mix, `(samples, sounds)`, in [-1, 1]."""
        parts = [panel[f"level.{i}"] * signal for i, signal in enumerate(signals)]
        mixed = sum(parts[1:], parts[0])
        return mixed / mixed.abs().amax(dim=0).clamp(min=1.0)


class VCO(Module):
    """Voltage-controlled oscillator: a pitch (MIDI), bent by a control signal times `mod_depth` (semitones).

    The phase is the sum of the frequency over time. A control signal is a straight line over a stretch of samples, so
    the frequency there is a geometric series, and its sum has a closed form: no running sum at audio rate is needed,
    only one over stretches. Where the bent pitch leaves [0, 127] the frequency is constant and the sum is linear: a
    stretch is a run of constant frequency, a run of geometric and another run of constant; any of them may be empty.
    """

    knobs: ClassVar[dict[str, Range]] = {
        "tuning": Range(-24.0, 24.0, "pitch"),
        "mod_depth": Range(-96.0, 96.0, "modulation", curve=0.2, symmetric=True),
        "initial_phase": Range(-math.pi, math.pi, "timbre"),
    }

    def play(self, panel: Panel, midi_f0: Tensor, modulation: Tensor) -> Tensor:
        """The oscillation, `(samples, sounds)`; `modulation` is `(controls, sounds)`."""
        return self.shape(panel, midi_f0, self.phase(panel, midi_f0, modulation))

    def shape(self, panel: Panel, midi_f0: Tensor, phase: Tensor) -> Tensor:
        """The waveform at a phase (int32, `(samples, sounds)`)."""
        raise NotImplementedError

    def phase(self, panel: Panel, midi_f0: Tensor, modulation: Tensor) -> Tensor:
        """The phase at every sample, int32 `(samples, sounds)`, the sample's own step included."""
        timing, tables = panel.timing, panel.tables
        pitch = midi_f0 + panel.exact("tuning")
        frequency = midi_to_hz(pitch) / timing.sample_rate  # turns per sample, float64
        lowest, highest = (440.0 * 2.0 ** ((note - 69.0) / 12.0) / timing.sample_rate for note in (0.0, HIGHEST_NOTE))
        # Everything below is in octaves above `pitch`.
        floor, ceiling = (-pitch / 12.0).float(), ((HIGHEST_NOTE - pitch) / 12.0).float()
        octaves = panel["mod_depth"] / 12.0 * modulation

        before = octaves[tables.stretch_point]
        rise = octaves[tables.stretch_point + 1] - before  # from one control point to the next
        start = before + tables.stretch_weight * rise
        slope = (rise * ((timing.controls - 1) / (timing.samples - 1))).clamp(-60.0, 60.0)  # per sample
        level = slope.abs() < 1e-9
        slope = torch.where(level, 1e-9, slope)
        rising = slope > 0.0
        entry, exit_ = torch.where(rising, floor, ceiling), torch.where(rising, ceiling, floor)
        entry_frequency, exit_frequency = (torch.where(side, lowest, highest) for side in (rising, ~rising))
        count = tables.stretch_count
        entered = torch.minimum(torch.ceil((entry - start) / slope).clamp(min=0.0), count)
        left = torch.minimum(torch.maximum(torch.ceil((exit_ - start) / slope), entered), count)
        inside = left - entered
        first = torch.minimum(torch.maximum(start + slope * entered, floor), ceiling)

        # Turns over a whole stretch, in units of `frequency` for the geometric run. The level case is exact.
        geometric = torch.exp2(first) / exp2m1(slope)
        series = torch.where(level, torch.exp2(first) * inside, geometric * exp2m1(slope * inside))
        turns = entered * entry_frequency.double() + series * frequency + (count - left) * exit_frequency.double()
        steps = to_phase(turns)
        begin = to_phase(panel.exact("initial_phase") / (2.0 * math.pi))
        begin = torch.cumsum(steps, dim=0, dtype=torch.int32) - steps + begin
        geometric = geometric * frequency.float()

        # Audio rate.
        at, place = tables.stretch, tables.place
        travelled = (
            entry_frequency[at] * torch.minimum(place, entered[at])
            + geometric[at] * exp2m1(slope[at] * torch.minimum((place - entered[at]).clamp(min=0.0), inside[at]))
            + exit_frequency[at] * (place - left[at]).clamp(min=0.0)
        )
        return begin[at] + to_phase(travelled)


class SineVCO(VCO):
    """A cosine."""

    def shape(self, panel: Panel, midi_f0: Tensor, phase: Tensor) -> Tensor:
        return torch.cos(radians(phase))


class SquareSawVCO(VCO):
    """From a square wave (`shape` 0) to a sawtooth (`shape` 1), without harsh aliasing.

    A sine driven into a tanh makes the square; multiplied with a cosine it leans into a saw. The drive falls with the
    highest pitch that the oscillator can reach, so that high notes get few partials: Lazzarini and Timoney, "New
    Perspectives on Distortion Synthesis for Virtual Analog Oscillators", Computer Music Journal 34(1), 2010.
    """

    knobs: ClassVar[dict[str, Range]] = VCO.knobs | {"shape": Range(0.0, 1.0, "timbre")}

    def shape(self, panel: Panel, midi_f0: Tensor, phase: Tensor) -> Tensor:
        top = midi_to_hz(midi_f0 + panel.exact("tuning") + panel.exact("mod_depth").clamp(min=0.0))
        partials = (12000.0 / (top * torch.log10(top))).float()
        shape, angle = panel["shape"], radians(phase)
        square = torch.tanh(0.5 * math.pi * partials * torch.sin(angle))
        return (1.0 - 0.5 * shape) * square * (1.0 + shape * torch.cos(angle))


class FmVCO(VCO):
    """A cosine whose frequency follows an audio signal. `mod_depth` is the modulation index: deviation / fundamental.

    The frequency is held between 0 and half the sample rate.
    """

    knobs: ClassVar[dict[str, Range]] = VCO.knobs | {
        "mod_depth": Range(-96.0, 96.0, "timbre", curve=0.2, symmetric=True)
    }

    def phase(self, panel: Panel, midi_f0: Tensor, modulation: Tensor) -> Tensor:
        """`modulation` is `(samples, sounds)` here. An audio signal has no closed form: this sum runs at audio rate."""
        pitch = midi_f0 + panel.exact("tuning")
        frequency = midi_to_hz(pitch) / panel.timing.sample_rate  # turns per sample, float64
        carrier = frequency.float()
        deviation = torch.minimum(torch.maximum(panel["mod_depth"] * carrier * modulation, -carrier), 0.5 - carrier)
        # The carrier's own step is exact; only the deviation is a float32.
        steps = to_phase(frequency) + to_phase(deviation)
        return torch.cumsum(steps, dim=0, dtype=torch.int32) + to_phase(panel.exact("initial_phase") / (2.0 * math.pi))

    def shape(self, panel: Panel, midi_f0: Tensor, phase: Tensor) -> Tensor:
        return torch.cos(radians(phase))


class Noise(Module):
    """White noise, uniform in [-1, 1), from the counter-based generator: every sound can have its own for free.

    The original shares one fixed buffer between all sounds; give that buffer to `Synth.render` to reproduce it.
    """

    def play(self, panel: Panel, source: NoiseSource) -> Tensor:
        """The noise, `(samples, 1 or sounds)`."""
        if isinstance(source, Tensor):
            return source
        return 2.0 * counter.to_uniform(counter.bits(source, panel.tables.sample)) - 1.0


class Rack:
    """The modules of one render, each bound to its panel: `rack.adsr_1(held)` plays that envelope."""

    def __init__(
        self, modules: Mapping[str, Module], knobs: Mapping[str, Tensor], timing: Timing, tables: Tables
    ) -> None:
        self._modules, self._timing, self._tables = modules, timing, tables
        self._knobs: dict[str, dict[str, Tensor]] = {name: {} for name in modules}
        for name, value in knobs.items():
            module, knob = name.split(".", 1)
            self._knobs[module][knob] = value

    def __getitem__(self, name: str) -> Any:
        panel = Panel(self._timing, self._tables, self._knobs.get(name, {}))
        if name == "upsample":
            return panel.upsample
        module: Any = self._modules[name]
        return partial(module.play, panel)

    def __getattr__(self, name: str) -> Any:
        return self[name]
