"""The modules of the synthesizers: each a table of knobs and a function of signals.

Inside a synthesizer a signal is `(time, modules, sounds)`: a control signal has `controls` points in time, an audio
signal `samples`. Modules of one kind are played side by side, as a bank, by one call. A knob is `(modules, sounds)`,
so knobs broadcast over time by themselves. Sounds come last because the processor's vectors then run across sounds:
what is needed at one moment lies side by side in memory for all of them, and sums along time never cross a vector.

Modules, their knobs and their equations are SynthAX 0.2.2's, which follow torchsynth (Turian et al., "One Billion Audio
Sounds from GPU-enabled Modular Synthesis", DAFx 2021). Where the two differ, or are wrong, the module says so.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from doppel_ray.core import rng
from doppel_ray.synth.maths import (
    cosine,
    exp2m1,
    materialize,
    midi_to_hz,
    power,
    running_sum,
    sine,
    tanh,
    to_phase,
    to_turns,
)
from doppel_ray.synth.parameters import Group, Range
from doppel_ray.synth.timing import Tables, Timing

NoiseSource = tuple[Tensor, Tensor] | Tensor
"""Source of white noise: two int32 keys, each `(sounds,)`, or a buffer `(samples, 1 or sounds)`."""

HIGHEST_NOTE = 127.0
"""Highest MIDI note; a modulated pitch is clipped to 0 and this."""


@dataclass(frozen=True)
class Module:
    """A kind of module; `knobs` maps the names of its knobs to their ranges."""

    knobs: ClassVar[dict[str, Range]] = {}

    def table(self) -> dict[str, Range]:
        """Return its knobs; arrays element by element, as "level.0", "level.1"."""
        return self.knobs


@dataclass(frozen=True)
class Panel:
    """What a bank of modules reads: its knobs in human units, and the clocks."""

    timing: Timing
    tables: Tables
    rows: tuple[Mapping[str, int], ...]
    """Of each module: knob name -> row of the two below."""
    values: Tensor
    """All knobs of the synthesizer, float32 `(P, sounds)`."""
    exact_values: Tensor
    """The same in float64."""

    def __getitem__(self, knob: str) -> Tensor:
        """Return a knob, float32 `(modules, sounds)`."""
        return self._pick(self.values, knob)

    def exact(self, knob: str) -> Tensor:
        """Return a knob, float64 `(modules, sounds)`, for pitches, whose rounding adds up over a long sound."""
        return self._pick(self.exact_values, knob)

    def array(self, knob: str) -> Tensor:
        """Return an array of knobs of a single module, float32 `(length, sounds)`."""
        (rows,) = self.rows
        mine = [row for name, row in rows.items() if name.startswith(f"{knob}.")]
        return self.values[mine[0] : mine[-1] + 1]

    def upsample(self, control: Tensor) -> Tensor:
        """Interpolate a control signal linearly to audio rate. SynthAX: `ControlRateUpsample`."""
        control = materialize(control)
        before, after = control[self.tables.point], control[self.tables.next_point]
        return before + self.tables.weight * (after - before)

    def _pick(self, values: Tensor, knob: str) -> Tensor:
        rows = [module[knob] for module in self.rows]
        step = rows[1] - rows[0] if len(rows) > 1 else 1
        if step > 0 and rows == list(range(rows[0], rows[-1] + 1, step)):
            return values[rows[0] : rows[-1] + 1 : step]  # evenly spaced rows: no copy
        return torch.stack([values[row] for row in rows])


class Keyboard(Module):
    """One key, pressed once at time 0. SynthAX: `MonophonicKeyboard`."""

    knobs: ClassVar[dict[str, Range]] = {
        "midi_f0": Range(0.0, 127.0, "pitch"),
        "duration": Range(0.01, 4.0, "envelope", curve=0.5),
    }

    def play(self, panel: Panel) -> tuple[Tensor, Tensor]:
        """Return the note (MIDI number, float64) and how long the key is held (seconds), each `(modules, sounds)`."""
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
        """Return the envelopes, `(controls, modules, sounds)`, of keys released after `held` seconds."""
        rate, time = panel.timing.control_rate, panel.tables.control
        alpha, sustain = panel["alpha"], panel["sustain"]
        attack = torch.minimum(panel["attack"], held)
        decay = torch.minimum((held - panel["attack"]).clamp(min=0.0), panel["decay"])

        rising = _ramp(time, materialize(attack * rate))
        falling = _ramp_down(time - materialize(attack * rate), materialize(decay * rate))
        released = _ramp_down(time - materialize(held * rate), materialize(panel["release"] * rate))
        # rising**alpha * released**alpha, with one power instead of two
        return materialize(power(rising * released, alpha) * (sustain + (1.0 - sustain) * power(falling, alpha)))


_EPSILON = 1e-6  # SynthAX's guard for ramps of length 0


def _ramp(time: Tensor, length: Tensor) -> Tensor:
    """Return a ramp from 0 at time 0 up to 1 at `length`, both in control points; 1 everywhere if the length is 0."""
    return ((time.clamp(min=0.0) + _EPSILON) / length + _EPSILON).clamp(max=1.0)


def _ramp_down(time: Tensor, length: Tensor) -> Tensor:
    """Return a ramp from 1 at time 0 down to 0 at `length`; 1 everywhere if the length is 0."""
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
        """Return the oscillations, `(controls, modules, sounds)`; `rate_modulation` is in units of `mod_depth`."""
        frequency = (panel["frequency"] + panel["mod_depth"] * rate_modulation).clamp(min=0.0)
        steps = materialize(to_phase(frequency / panel.timing.control_rate))
        phase = running_sum(steps) + to_phase(panel["initial_phase"] / (2.0 * math.pi))

        wave = -cosine(phase)  # half a turn late, as in the original
        turns = to_turns(phase)
        saw = torch.where(turns < 0.0, turns + 1.0, turns)
        triangle = 2.0 * turns.abs()
        shapes = (0.5 + 0.5 * wave, triangle, saw, 1.0 - saw, 0.5 + 0.5 * torch.sign(wave))

        knobs = [panel[name] for name in ("sin", "tri", "saw", "rsaw", "sqr")]
        highest = knobs[0]
        for knob in knobs[1:]:
            highest = materialize(torch.maximum(highest, knob))
        shares = [materialize(torch.where(highest > 0.0, knob / highest, 1.0)) for knob in knobs]
        weights = [materialize(power(share, math.e)) for share in shares]
        total = materialize(_sum(weights))
        return materialize(_sum([weight * shape for weight, shape in zip(weights, shapes, strict=True)]) / total)


@dataclass(frozen=True)
class ModulationMixer(Module):
    """Every output is a weighted sum of all inputs. Knob `mod` is a matrix, outputs by inputs, spelt out row by row."""

    inputs: int
    outputs: int

    def table(self) -> dict[str, Range]:
        return {f"mod.{i}": Range(0.0, 1.0, "modulation", curve=0.5) for i in range(self.inputs * self.outputs)}

    def play(self, panel: Panel, signals: Tensor) -> Tensor:
        """Mix `(controls, inputs, sounds)` into `(controls, outputs, sounds)`."""
        signals, weights = materialize(signals), panel.array("mod").unflatten(0, (self.outputs, self.inputs))
        return materialize(_sum([weights[:, i] * signals[:, i, None] for i in range(self.inputs)]))


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

    def play(self, panel: Panel, *banks: Tensor) -> Tensor:
        """Return the mix, `(samples, sounds)`, in [-1, 1], of banks `(samples, modules, sounds)` in order."""
        levels = panel.array("level").split([bank.shape[1] for bank in banks])
        parts = [level[i] * bank[:, i] for level, bank in zip(levels, banks, strict=True) for i in range(bank.shape[1])]
        mixed = materialize(_sum(parts))
        return mixed * materialize(1.0 / mixed.abs().amax(dim=0).clamp(min=1.0))


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
        """Return the oscillations, `(samples, modules, sounds)`; `modulation` is `(controls, modules, sounds)`."""
        return self.shape(panel, midi_f0, self.phase(panel, midi_f0, modulation))

    def shape(self, panel: Panel, midi_f0: Tensor, phase: Tensor) -> Tensor:
        """Return the waveform at a phase (int32)."""
        raise NotImplementedError

    def phase(self, panel: Panel, midi_f0: Tensor, modulation: Tensor) -> Tensor:
        """Return the phase at every sample, int32 `(samples, modules, sounds)`, the sample's own step included."""
        timing, tables = panel.timing, panel.tables
        pitch = midi_f0 + panel.exact("tuning")
        frequency = materialize(midi_to_hz(pitch) / timing.sample_rate)  # turns per sample, float64
        lowest, highest = (440.0 * 2.0 ** ((note - 69.0) / 12.0) / timing.sample_rate for note in (0.0, HIGHEST_NOTE))
        # Everything below is in octaves above `pitch`.
        floor, ceiling = materialize((-pitch / 12.0).float()), materialize(((HIGHEST_NOTE - pitch) / 12.0).float())
        depth, modulation = materialize(panel["mod_depth"] / 12.0), materialize(modulation)

        before = depth * modulation[tables.stretch_point]
        rise = depth * modulation[tables.stretch_next_point] - before  # from one control point to the next
        start = before + tables.stretch_weight * rise
        slope = (rise * ((timing.controls - 1) / (timing.samples - 1))).clamp(-16.0, 16.0)  # per sample
        level = slope.abs() < 1e-9
        slope = torch.where(level, 1e-9, slope)
        rising = slope > 0.0
        entry, exit_ = torch.where(rising, floor, ceiling), torch.where(rising, ceiling, floor)
        count = tables.stretch_count
        entered = torch.minimum(torch.ceil((entry - start) / slope).clamp(min=0.0), count)
        left = torch.minimum(torch.maximum(torch.ceil((exit_ - start) / slope), entered), count)
        inside = left - entered
        first = torch.exp2(torch.minimum(torch.maximum(start + slope * entered, floor), ceiling))

        # Turns over a whole stretch, the geometric run in units of `frequency`. The level case is exact.
        geometric = first / exp2m1(slope)
        series = torch.where(level, first * inside, geometric * exp2m1(slope * inside))
        rising_turns = entered.double() * lowest + (count - left).double() * highest
        falling_turns = entered.double() * highest + (count - left).double() * lowest
        steps = materialize(to_phase(torch.where(rising, rising_turns, falling_turns) + series.double() * frequency))
        begin = materialize(running_sum(steps) - steps + to_phase(panel.exact("initial_phase") / (2.0 * math.pi)))
        entered, left, slope = materialize(entered), materialize(left), materialize(slope)
        geometric = materialize(geometric * frequency.float())
        entry_frequency = materialize(torch.where(rising, lowest, highest))

        # Audio rate.
        at, place = tables.stretch, tables.place
        since_entry, since_exit = (place - entered[at]).relu(), (place - left[at]).relu()
        enter = entry_frequency[at]
        travelled = (
            enter * (place - since_entry)
            + geometric[at] * exp2m1(slope[at] * (since_entry - since_exit))
            + ((lowest + highest) - enter) * since_exit
        )
        return begin[at] + to_phase(travelled)


class SineVCO(VCO):
    """A cosine."""

    def shape(self, panel: Panel, midi_f0: Tensor, phase: Tensor) -> Tensor:
        return cosine(phase)


class SquareSawVCO(VCO):
    """From a square wave (`shape` 0) to a sawtooth (`shape` 1), without harsh aliasing.

    A sine driven into a tanh makes the square; multiplied with a cosine it leans into a saw. The drive falls with the
    highest pitch that the oscillator can reach, so that high notes get few partials: Lazzarini and Timoney, "New
    Perspectives on Distortion Synthesis for Virtual Analog Oscillators", Computer Music Journal 34(1), 2010.
    """

    knobs: ClassVar[dict[str, Range]] = {**VCO.knobs, "shape": Range(0.0, 1.0, "timbre")}

    def shape(self, panel: Panel, midi_f0: Tensor, phase: Tensor) -> Tensor:
        top = midi_to_hz(midi_f0 + panel.exact("tuning") + panel.exact("mod_depth").clamp(min=0.0))
        partials = 12000.0 / (top * torch.log10(top))
        drive, shape = materialize((0.5 * math.pi * partials).float()), panel["shape"]
        return (1.0 - 0.5 * shape) * tanh(drive * sine(phase)) * (1.0 + shape * cosine(phase))


class FmVCO(VCO):
    """A cosine whose frequency follows an audio signal. `mod_depth` is the modulation index: deviation / fundamental.

    The frequency is held between 0 and half the sample rate.
    """

    knobs: ClassVar[dict[str, Range]] = {
        **VCO.knobs,
        "mod_depth": Range(-96.0, 96.0, "timbre", curve=0.2, symmetric=True),
    }

    def phase(self, panel: Panel, midi_f0: Tensor, modulation: Tensor) -> Tensor:
        """Return the phase, summed at audio rate: `modulation`, `(samples, modules, sounds)`, has no closed form."""
        frequency = materialize(
            midi_to_hz(midi_f0 + panel.exact("tuning")) / panel.timing.sample_rate
        )  # turns per sample
        carrier, index = materialize(frequency.float()), materialize(panel["mod_depth"] * frequency.float())
        deviation = torch.minimum(torch.maximum(index * modulation, -carrier), 0.5 - carrier)
        # The carrier's own step is exact; only the deviation is a float32.
        steps = materialize(materialize(to_phase(frequency)) + to_phase(deviation))
        return running_sum(steps) + materialize(to_phase(panel.exact("initial_phase") / (2.0 * math.pi)))

    def shape(self, panel: Panel, midi_f0: Tensor, phase: Tensor) -> Tensor:
        return cosine(phase)


class Noise(Module):
    """White noise, uniform in [-1, 1), from the counter-based generator.

    The original plays one fixed buffer in all sounds; give that buffer to `Synth.render` to reproduce it.
    """

    def play(self, panel: Panel, source: NoiseSource) -> Tensor:
        """Return the noise, `(samples, 1, 1 or sounds)`."""
        if isinstance(source, Tensor):
            return source[:, None]
        return 2.0 * rng.to_uniform(rng.bits(source, panel.tables.sample)) - 1.0


class Rack:
    """The modules of one render, with the knobs where they are set."""

    def __init__(self, modules: Mapping[str, Module], human: Tensor, timing: Timing, tables: Tables) -> None:
        """Take `human`, all knobs in human units, float64 `(P, sounds)`, in the order of the modules' tables."""
        self._modules, self._timing, self._tables = modules, timing, tables
        self._exact, self._values = human, materialize(human.float())
        self._rows: dict[str, dict[str, int]] = {}
        first = 0
        for name, module in modules.items():
            self._rows[name] = {knob: first + i for i, knob in enumerate(module.table())}
            first += len(self._rows[name])

    def play(self, names: str | Sequence[str], *signals: Any) -> Any:
        """Play a module, or several of one kind side by side as a bank, with the signals that their kind takes."""
        names = [names] if isinstance(names, str) else names
        panel = Panel(self._timing, self._tables, tuple(self._rows[name] for name in names), self._values, self._exact)
        kind: Any = self._modules[names[0]]
        return kind.play(panel, *signals)

    def upsample(self, control: Tensor) -> Tensor:
        """Interpolate a control signal to audio rate."""
        return Panel(self._timing, self._tables, (), self._values, self._exact).upsample(control)


def _sum(parts: Sequence[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
