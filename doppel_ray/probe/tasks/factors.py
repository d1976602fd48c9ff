"""The built-in task: parameters of unseen synthetic sounds, predicted from their embeddings."""

import functools
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from doppel_ray.core import rng
from doppel_ray.probe.metrics import check
from doppel_ray.probe.sounds import Rendered
from doppel_ray.probe.task import TaskDataset, TaskSpec
from doppel_ray.probe.tasks.entry import Task, naming
from doppel_ray.probe.tasks.listing import rotated
from doppel_ray.synth import Synth, SynthConfig

FACTOR_SEED = 0x5EED_FAC7
"""Seed of the sounds, different from any run's: no model was trained on them."""

METRICS = ("score",)
FOLDS = 4
DURATION = 1.0
"""Seconds of a sound."""

# Factor -> the parameter of Voice that makes it, and its range in the parameter's unit (MIDI note, seconds, Hz, level).
FACTORS = {
    "pitch": ("keyboard.midi_f0", 36.0, 96.0),
    "note_duration": ("keyboard.duration", 0.3, 0.9),
    "attack": ("adsr_1.attack", 0.0, 0.3),
    "sustain": ("adsr_1.sustain", 0.0, 1.0),
    "tremolo_rate": ("lfo_1.frequency", 1.0, 12.0),
    "oscillator_shape": ("vco_2.shape", 0.0, 1.0),
    "sine_level": ("mixer.level.0", 0.0, 1.0),
    "square_saw_level": ("mixer.level.1", 0.0, 1.0),
    "noise_level": ("mixer.level.2", 0.0, 1.0),
}

# All other parameters are fixed, so that each factor is audible: no pitch modulation, one envelope and one tremolo on
# all three sound sources. `mod_matrix.mod` has a row for each of vco_1 pitch and level, vco_2 pitch and level, and
# noise level, and a column for each of adsr_1, adsr_2, lfo_1, lfo_2.
HELD = {
    **{f"mod_matrix.mod.{k}": 0.0 for k in range(20)},
    **{f"mod_matrix.mod.{4 * row}": 1.0 for row in (1, 3, 4)},
    **{f"mod_matrix.mod.{4 * row + 2}": 0.4 for row in (1, 3, 4)},
    "adsr_1.decay": 0.15,
    "adsr_1.release": 0.1,
    "adsr_1.alpha": 1.5,
    "lfo_1.mod_depth": 0.0,
    "lfo_1.sin": 1.0,
    **{f"lfo_1.{shape}": 0.0 for shape in ("tri", "saw", "rsaw", "sqr")},
    "lfo_1_amp_adsr.attack": 0.0,
    "lfo_1_amp_adsr.sustain": 1.0,
    "lfo_1_amp_adsr.release": 0.1,
    **{f"vco_{k}.{name}": 0.0 for k in (1, 2) for name in ("tuning", "mod_depth", "initial_phase")},
}


class Factors(Task):
    """Parameters of unseen synthetic sounds, predicted from their embeddings; needs no download.

    The sounds are always Voice's, whatever the experiment trains on, so that scores compare across architectures.
    Targets are in the parameters' units. Sound i is in fold i mod 4 + 1, and does not depend on the number of sounds.
    """

    kind: Literal["factors"] = "factors"
    sounds: int = Field(default=1024, ge=128)
    """Number of sounds; ridge regression on hundreds of dimensions needs at least 128."""

    def check(self, sample_rate: int = 16000, cache: float = 0.0) -> None:
        with naming(self.name):
            check(self.metrics or METRICS, "regression")

    def spec(self, sample_rate: int) -> TaskSpec:
        targets = torch.stack(list(_factors(self.sounds).values()), dim=1).numpy()
        splits = rotated([str(item % FOLDS + 1) for item in range(self.sounds)])
        return TaskSpec("regression", targets, tuple(FACTORS), splits, self.metrics or METRICS)

    def load(self, sample_rate: int, cache: float = 0.0) -> TaskDataset:
        return TaskDataset(_rendered(self.sounds, sample_rate), self.spec(sample_rate))


def _factors(count: int) -> dict[str, Tensor]:
    """Return name -> (count,) float64, in the parameter's unit."""
    draws = rng.uniform(FACTOR_SEED, torch.arange(count), rng.Stream.PARAMETERS, len(FACTORS))
    return {
        name: low + (high - low) * draw
        for (name, (_, low, high)), draw in zip(FACTORS.items(), draws.double().unbind(1), strict=True)
    }


@functools.lru_cache(maxsize=1)
def _rendered(count: int, sample_rate: int) -> Rendered:
    synth: Synth = SynthConfig(architecture="voice", sample_rate=sample_rate, duration=DURATION).build()
    theta = synth.from_human({**HELD, **{FACTORS[name][0]: value for name, value in _factors(count).items()}})
    return Rendered(synth.render(theta, seed=FACTOR_SEED, indices=torch.arange(count)))
