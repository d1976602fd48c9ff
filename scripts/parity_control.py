"""Voice's control signals beside SynthAX's in float64: `python scripts/parity_control.py`. Needs the `parity` extra."""

import os

os.environ["DOPPEL_RAY_COMPILE"] = "0"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import synthax.synth
import torch
from synthax.config import SynthConfig
from synthax.modules import mixers

from doppel_ray.synth import Synth
from doppel_ray.synth.modules import Rack

SOUNDS = 64


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    torch.set_num_threads(1)
    ours: list[torch.Tensor] = []
    theirs: list[np.ndarray] = []
    play, mix = Rack.play, mixers.ModulationMixer.__call__

    def record_ours(self, name, *inputs):  # type: ignore[no-untyped-def]
        signals = play(self, name, *inputs)
        if name == "mod_matrix":
            ours.append(signals.clone())
        return signals

    def record_theirs(self, *inputs):  # type: ignore[no-untyped-def]
        signals = mix(self, *inputs)
        if not isinstance(signals[0], jax.core.Tracer):
            theirs.append(np.stack([np.asarray(signal)[0] for signal in signals]))
        return signals

    Rack.play = record_ours  # type: ignore[method-assign]
    mixers.ModulationMixer.__call__ = record_theirs

    synth = Synth.create("voice")
    theta = synth.sample(seed=0, indices=range(SOUNDS))
    synth.render(theta)
    names = [parameter.name for parameter in synth.parameters]
    reference = synthax.synth.Voice(config=SynthConfig(1, sample_rate=16000, buffer_size_seconds=1.0, control_rate=480))
    shapes = reference.init(jax.random.PRNGKey(0))["params"]
    theirs.clear()
    for row in theta.double().numpy():
        tree: dict[str, dict[str, jax.Array]] = {}
        for module, knobs in shapes.items():
            tree[module] = {}
            for knob, value in knobs.items():
                name = f"{module.removeprefix('modules_')}.{knob}"
                columns = [i for i, own in enumerate(names) if own == name or own.startswith(f"{name}.")]
                tree[module][knob] = jnp.array(row[columns].reshape(value.shape))
        reference.apply({"params": tree})

    # Ours is (control points, signals, sounds), SynthAX's (sounds, signals, control points).
    found = torch.cat(ours, dim=-1).permute(2, 1, 0).numpy()[:SOUNDS]
    worst = np.abs(found - np.stack(theirs)).max(axis=(1, 2))
    print(
        f"the five outputs of the modulation matrix, {SOUNDS} sounds: largest difference from SynthAX "
        f"median {np.median(worst):.1e}, worst {worst.max():.1e}"
    )


if __name__ == "__main__":
    main()
