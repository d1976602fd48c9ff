"""Parametric: any number of oscillators of four kinds, each with its own keyboard, envelope and LFO.

340 parameters with the counts that the paper uses: sine 2, square_saw 2, fm_sine 1, fm_square_saw 1.
"""

import itertools

import torch
from torch import Tensor

from doppel_ray.core.errors import ConfigError
from doppel_ray.synth.architecture import Architecture
from doppel_ray.synth.modules import (
    ADSR,
    LFO,
    AudioMixer,
    FmVCO,
    Keyboard,
    ModulationMixer,
    Module,
    Noise,
    NoiseSource,
    Rack,
    SineVCO,
    SquareSawVCO,
)


class Parametric(Architecture):
    """SynthAX's `ParametricSynth`.

    Voices are numbered from 1: sines, square-saws, then the modulators of the FM pairs (sines, square-saws). An FM pair
    adds a carrier, numbered after all voices, that plays its modulator's note; the modulator itself is not heard.
    """

    def __init__(self, sine: int = 2, square_saw: int = 2, fm_sine: int = 1, fm_square_saw: int = 1) -> None:
        counts = {"sine": sine, "square_saw": square_saw, "fm_sine": fm_sine, "fm_square_saw": fm_square_saw}
        for name, count in counts.items():
            if count < 0:
                raise ConfigError(f"{name} is {count}: a count of oscillators must be 0 or more")
        if not any(counts.values()):
            raise ConfigError(f"{', '.join(counts)} are all 0: a parametric synthesizer needs at least one oscillator")
        self.heard = sine + square_saw
        self.pairs = fm_sine + fm_square_saw
        self.voices = self.heard + self.pairs

        voices = range(1, self.voices + 1)
        self._adsrs = [f"adsr_{i}" for i in voices]
        self._adsrs += [f"lfo_{i}_{use}_adsr" for use in ("rate", "amp") for i in voices]
        kinds: list[Module] = [*[SineVCO()] * sine, *[SquareSawVCO()] * square_saw]
        kinds += [*[SineVCO()] * fm_sine, *[SquareSawVCO()] * fm_square_saw, *[FmVCO()] * self.pairs]
        self.modules = {
            **{f"keyboard_{i}": Keyboard() for i in voices},
            **{name: ADSR("modulation" if name.startswith("lfo") else "envelope") for name in self._adsrs},
            **{f"lfo_{i}": LFO() for i in voices},
            "mod_matrix": ModulationMixer(inputs=2 * self.voices, outputs=2 * self.voices + 1),
            **{f"vco_{i}": kind for i, kind in enumerate(kinds, 1)},
            "noise": Noise(),
            "mixer": AudioMixer(self.heard + self.pairs + 1),
        }
        ends = [0, *itertools.accumulate([sine, square_saw, fm_sine, fm_square_saw])]
        self._banks = [range(start, end) for start, end in itertools.pairwise(ends)]

    def patch(self, rack: Rack, noise: NoiseSource) -> Tensor:
        voices = range(1, self.voices + 1)
        midi_f0, held = rack.play([f"keyboard_{i}" for i in voices])
        envelopes, rates, depths = rack.play(self._adsrs, held.repeat(3, 1)).split(self.voices, dim=1)
        lfos = rack.play([f"lfo_{i}" for i in voices], rates) * depths
        mods = rack.play("mod_matrix", torch.cat([envelopes, lfos], dim=1))
        pitches, amps, noise_amp = mods[:, 0:-1:2], mods[:, 1:-1:2], mods[:, -1:]

        def play(bank: range) -> list[Tensor]:
            """The voices of a bank, numbered from 0."""
            if not bank:
                return []
            rows = slice(bank.start, bank.stop)
            names = [f"vco_{i + 1}" for i in bank]
            return [rack.play(names, midi_f0[rows], pitches[:, rows]) * rack.upsample(amps[:, rows])]

        sines, square_saws, *modulators = (play(bank) for bank in self._banks)
        heard = sines + square_saws
        if self.pairs:
            names = [f"vco_{self.voices + i + 1}" for i in range(self.pairs)]
            heard.append(rack.play(names, midi_f0[self.heard :], torch.cat([*itertools.chain(*modulators)], dim=1)))
        return rack.play("mixer", *heard, rack.play("noise", noise) * rack.upsample(noise_amp))
