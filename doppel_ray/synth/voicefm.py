"""VoiceFM: Voice with a third LFO and envelope, and a sine that modulates the frequency of another; 130 parameters."""

import torch
from torch import Tensor

from doppel_ray.synth.architecture import Architecture
from doppel_ray.synth.modules import (
    ADSR,
    LFO,
    AudioMixer,
    FmVCO,
    Keyboard,
    ModulationMixer,
    Noise,
    NoiseSource,
    Rack,
    SineVCO,
    SquareSawVCO,
)

ADSRS = [f"adsr_{i}" for i in (1, 2, 3)]
ADSRS += [f"lfo_{i}_{use}_adsr" for use in ("rate", "amp") for i in (1, 2, 3)]


class VoiceFM(Architecture):
    """SynthAX's `VoiceExpanded`, which the paper calls VoiceFM."""

    def __init__(self) -> None:
        self.modules = {
            "keyboard": Keyboard(),
            **{name: ADSR("modulation" if name.startswith("lfo") else "envelope") for name in ADSRS},
            "lfo_1": LFO(),
            "lfo_2": LFO(),
            "lfo_3": LFO(),
            "mod_matrix": ModulationMixer(inputs=6, outputs=7),
            "vco_1": SineVCO(),
            "vco_2": SquareSawVCO(),
            "vco_3": SineVCO(),
            "vco_4": FmVCO(),
            "noise": Noise(),
            "mixer": AudioMixer(4),
        }

    def patch(self, rack: Rack, noise: NoiseSource) -> Tensor:
        midi_f0, held = rack.play("keyboard")
        envelopes, rates, depths = rack.play(ADSRS, held).split(3, dim=1)
        lfos = rack.play(["lfo_1", "lfo_2", "lfo_3"], rates) * depths
        mods = rack.play("mod_matrix", torch.cat([envelopes, lfos], dim=1))
        vco_1_pitch, vco_1_amp, vco_2_pitch, vco_2_amp, vco_3_pitch, vco_3_amp, noise_amp = mods.split(1, dim=1)

        modulator = rack.play("vco_3", midi_f0, vco_3_pitch) * rack.upsample(vco_3_amp)
        return rack.play(
            "mixer",
            rack.play("vco_1", midi_f0, vco_1_pitch) * rack.upsample(vco_1_amp),
            rack.play("vco_2", midi_f0, vco_2_pitch) * rack.upsample(vco_2_amp),
            rack.play("vco_4", midi_f0, modulator),
            rack.play("noise", noise) * rack.upsample(noise_amp),
        )
