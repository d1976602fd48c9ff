"""Renders sounds with SynthAX, for `test_parity.py`: `synthax_worker.py JOB.json SOUNDS.npz`."""

import json
import sys

import jax
import numpy as np

with open(sys.argv[1]) as file:
    job = json.load(file)
jax.config.update("jax_enable_x64", job["precise"])

import jax.numpy as jnp  # noqa: E402
import synthax.synth  # noqa: E402
from synthax.config import SynthConfig  # noqa: E402
from synthax.modules import oscillators  # noqa: E402

sample_rate, duration, control_rate = job["rates"]
config = SynthConfig(1, sample_rate=sample_rate, buffer_size_seconds=duration, control_rate=control_rate)
synth = getattr(synthax.synth, job["kind"])(config=config, **job["counts"])
# Its noise, drawn in float32 in both precisions (left alone, float64 draws another).
length = int(config.buffer_size)
noise = jax.random.uniform(jax.random.PRNGKey(0), (1, length), jnp.float32, minval=-1.0, maxval=1.0)
oscillators.Noise.__call__ = lambda self: noise
shapes = synth.init(jax.random.PRNGKey(0))["params"]
theta = np.array(job["theta"], dtype=np.float32).astype(np.float64 if job["precise"] else np.float32)


def parameters(row):
    """SynthAX's tree of parameters, from a row of ours."""
    tree = {}
    for module, knobs in shapes.items():
        tree[module] = {}
        for knob, value in knobs.items():
            name = f"{module.removeprefix('modules_')}.{knob}"
            columns = [i for i, own in enumerate(job["names"]) if own == name or own.startswith(f"{name}.")]
            tree[module][knob] = jnp.array(row[columns].reshape(value.shape))
    return {"params": tree}


render = jax.jit(synth.apply)
sounds = np.concatenate([np.asarray(render(parameters(row))) for row in theta])
np.savez(sys.argv[2], sounds=sounds, noise=np.asarray(noise))
