"""Voice: a sine, a square-saw and noise under two envelopes and two LFOs; 78 parameters."""

from typing import Literal

from torch import Tensor

from doppel_ray.synth.architecture import Architecture
from doppel_ray.synth.modules import (
    ADSR,
    LFO,
    AudioMixer,
    Keyboard,
    ModulationMixer,
    Noise,
    NoiseSource,
    Rack,
    SineVCO,
    SquareSawVCO,
)

NOISE_CURVE = 0.025
"""The curve that both originals give the noise level of a Voice; see `AudioMixer` for why it is off by default."""


class Voice(Architecture):
    """SynthAX's and torchsynth's `Voice`."""

    def __init__(self, noise_curve: Literal["synthax", "torchsynth"] = "synthax") -> None:
        self.modules = {
            "keyboard": Keyboard(),
            "adsr_1": ADSR(),
            "adsr_2": ADSR(),
            "lfo_1": LFO(),
            "lfo_2": LFO(),
            "lfo_1_amp_adsr": ADSR("modulation"),
            "lfo_2_amp_adsr": ADSR("modulation"),
            "lfo_1_rate_adsr": ADSR("modulation"),
            "lfo_2_rate_adsr": ADSR("modulation"),
            "mod_matrix": ModulationMixer(inputs=4, outputs=5),
            "vco_1": SineVCO(),
            "vco_2": SquareSawVCO(),
            "noise": Noise(),
            "mixer": AudioMixer(3, curves=(1.0, 1.0, NOISE_CURVE) if noise_curve == "torchsynth" else ()),
        }

    def patch(self, rack: Rack, noise: NoiseSource) -> Tensor:
        midi_f0, held = rack.keyboard()
        lfo_1 = rack.lfo_1(rack.lfo_1_rate_adsr(held)) * rack.lfo_1_amp_adsr(held)
        lfo_2 = rack.lfo_2(rack.lfo_2_rate_adsr(held)) * rack.lfo_2_amp_adsr(held)

        vco_1_pitch, vco_1_amp, vco_2_pitch, vco_2_amp, noise_amp = rack.mod_matrix(
            rack.adsr_1(held), rack.adsr_2(held), lfo_1, lfo_2
        )
        return rack.mixer(
            rack.vco_1(midi_f0, vco_1_pitch) * rack.upsample(vco_1_amp),
            rack.vco_2(midi_f0, vco_2_pitch) * rack.upsample(vco_2_amp),
            rack.noise(noise) * rack.upsample(noise_amp),
        )
