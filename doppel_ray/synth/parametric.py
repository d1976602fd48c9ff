"""Parametric: any number of oscillators of four kinds, each with its own keyboard, envelope and LFO.

340 parameters with the counts that the paper uses: sine 2, square_saw 2, fm_sine 1, fm_square_saw 1.
"""

from torch import Tensor

from doppel_ray.section import ConfigError
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

        kinds: list[Module] = [*[SineVCO()] * sine, *[SquareSawVCO()] * square_saw]
        kinds += [*[SineVCO()] * fm_sine, *[SquareSawVCO()] * fm_square_saw, *[FmVCO()] * self.pairs]
        modules: dict[str, Module] = {}
        for i in range(1, self.voices + 1):
            modules[f"keyboard_{i}"] = Keyboard()
            modules[f"adsr_{i}"] = ADSR()
            modules[f"lfo_{i}"] = LFO()
            modules[f"lfo_{i}_amp_adsr"] = ADSR("modulation")
            modules[f"lfo_{i}_rate_adsr"] = ADSR("modulation")
        modules |= {f"vco_{i}": kind for i, kind in enumerate(kinds, 1)}
        modules["mod_matrix"] = ModulationMixer(inputs=2 * self.voices, outputs=2 * self.voices + 1)
        modules["noise"] = Noise()
        modules["mixer"] = AudioMixer(self.heard + self.pairs + 1)
        self.modules = modules

    def patch(self, rack: Rack, noise: NoiseSource) -> Tensor:
        notes, envelopes, lfos = [], [], []
        for i in range(1, self.voices + 1):
            midi_f0, held = rack[f"keyboard_{i}"]()
            notes.append(midi_f0)
            envelopes.append(rack[f"adsr_{i}"](held))
            rate, depth = rack[f"lfo_{i}_rate_adsr"](held), rack[f"lfo_{i}_amp_adsr"](held)
            lfos.append(rack[f"lfo_{i}"](rate) * depth)

        *mods, noise_amp = rack.mod_matrix(*envelopes, *lfos)
        voices = [
            rack[f"vco_{i}"](note, pitch) * rack.upsample(amp)
            for i, (note, pitch, amp) in enumerate(zip(notes, mods[::2], mods[1::2], strict=True), 1)
        ]
        carriers = [
            rack[f"vco_{i}"](note, modulator)
            for i, (note, modulator) in enumerate(
                zip(notes[self.heard :], voices[self.heard :], strict=True), self.voices + 1
            )
        ]
        return rack.mixer(*voices[: self.heard], *carriers, rack.noise(noise) * rack.upsample(noise_amp))
