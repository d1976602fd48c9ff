"""Voice: a sine, a square-saw and noise under two envelopes and two LFOs; 78 parameters."""

from typing import Literal

import torch
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

ADSRS = ["adsr_1", "adsr_2", "lfo_1_rate_adsr", "lfo_2_rate_adsr", "lfo_1_amp_adsr", "lfo_2_amp_adsr"]

NOISE_CURVE = 0.025
"""The curve that both originals give the noise level of a Voice; see `AudioMixer` for why it is off by default."""


class Voice(Architecture):
    """SynthAX's and torchsynth's `Voice`."""

    def __init__(self, noise_curve: Literal["synthax", "torchsynth"] = "synthax") -> None:
        self.modules = {
            "keyboard": Keyboard(),
            **{name: ADSR("modulation" if name.startswith("lfo") else "envelope") for name in ADSRS},
            "lfo_1": LFO(),
            "lfo_2": LFO(),
            "mod_matrix": ModulationMixer(inputs=4, outputs=5),
            "vco_1": SineVCO(),
            "vco_2": SquareSawVCO(),
            "noise": Noise(),
            "mixer": AudioMixer(3, curves=(1.0, 1.0, NOISE_CURVE) if noise_curve == "torchsynth" else ()),
        }

    def patch(self, rack: Rack, noise: NoiseSource) -> Tensor:
        midi_f0, held = rack.play("keyboard")
        envelopes, rates, depths = rack.play(ADSRS, held).split(2, dim=1)
        lfos = rack.play(["lfo_1", "lfo_2"], rates) * depths
        mods = rack.play("mod_matrix", torch.cat([envelopes, lfos], dim=1))
        vco_1_pitch, vco_1_amp, vco_2_pitch, vco_2_amp, noise_amp = mods.split(1, dim=1)

        return rack.play(
            "mixer",
            rack.play("vco_1", midi_f0, vco_1_pitch) * rack.upsample(vco_1_amp),
            rack.play("vco_2", midi_f0, vco_2_pitch) * rack.upsample(vco_2_amp),
            rack.play("noise", noise) * rack.upsample(noise_amp),
        )
