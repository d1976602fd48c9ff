"""VoiceFM: Voice with a third LFO and envelope, and a sine that modulates the frequency of another; 130 parameters."""

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


class VoiceFM(Architecture):
    """SynthAX's `VoiceExpanded`, which the paper calls VoiceFM."""

    def __init__(self) -> None:
        self.modules = {
            "keyboard": Keyboard(),
            "adsr_1": ADSR(),
            "adsr_2": ADSR(),
            "adsr_3": ADSR(),
            "lfo_1": LFO(),
            "lfo_2": LFO(),
            "lfo_3": LFO(),
            "lfo_1_amp_adsr": ADSR("modulation"),
            "lfo_2_amp_adsr": ADSR("modulation"),
            "lfo_3_amp_adsr": ADSR("modulation"),
            "lfo_1_rate_adsr": ADSR("modulation"),
            "lfo_2_rate_adsr": ADSR("modulation"),
            "lfo_3_rate_adsr": ADSR("modulation"),
            "mod_matrix": ModulationMixer(inputs=6, outputs=7),
            "vco_1": SineVCO(),
            "vco_2": SquareSawVCO(),
            "vco_3": SineVCO(),
            "vco_4": FmVCO(),
            "noise": Noise(),
            "mixer": AudioMixer(4),
        }

    def patch(self, rack: Rack, noise: NoiseSource) -> Tensor:
        midi_f0, held = rack.keyboard()
        lfo_1 = rack.lfo_1(rack.lfo_1_rate_adsr(held)) * rack.lfo_1_amp_adsr(held)
        lfo_2 = rack.lfo_2(rack.lfo_2_rate_adsr(held)) * rack.lfo_2_amp_adsr(held)
        lfo_3 = rack.lfo_3(rack.lfo_3_rate_adsr(held)) * rack.lfo_3_amp_adsr(held)

        vco_1_pitch, vco_1_amp, vco_2_pitch, vco_2_amp, vco_3_pitch, vco_3_amp, noise_amp = rack.mod_matrix(
            rack.adsr_1(held), rack.adsr_2(held), rack.adsr_3(held), lfo_1, lfo_2, lfo_3
        )
        modulator = rack.vco_3(midi_f0, vco_3_pitch) * rack.upsample(vco_3_amp)
        return rack.mixer(
            rack.vco_1(midi_f0, vco_1_pitch) * rack.upsample(vco_1_amp),
            rack.vco_2(midi_f0, vco_2_pitch) * rack.upsample(vco_2_amp),
            rack.vco_4(midi_f0, modulator),
            rack.noise(noise) * rack.upsample(noise_amp),
        )
