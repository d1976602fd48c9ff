"""The same parameters give the same sound as SynthAX 0.2.2.

SynthAX runs twice: in float64, which shows how far we are from its equations, and in float32, as published, which
shows how far its own rounding takes it (it sums phases in float32). We may be off the equations by no more than it is,
with a margin at the worst sound. The noise is SynthAX's buffer. One sound at a time, because it normalises a whole
batch by its first sound.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from doppel_ray.synth import Synth

SOUNDS = int(os.environ.get("DOPPEL_RAY_PARITY_SOUNDS", "24"))
"""Per architecture. `DOPPEL_RAY_PARITY_SOUNDS=256` makes the table of the README: some minutes."""

CLASSES = {"voice": "Voice", "voicefm": "VoiceExpanded", "parametric": "ParametricSynth"}
COUNTS = {"sine": 2, "square_saw": 2, "fm_sine": 1, "fm_square_saw": 1}


def _published(name: str, synth: Synth, theta: Tensor, precise: bool, folder: Path) -> tuple[Tensor, Tensor]:
    """SynthAX's sounds `(n, samples)` and noise `(1, samples)`, from a process of its own: precision is global."""
    timing = synth.timing
    job = {
        "kind": CLASSES[name],
        "counts": COUNTS if name == "parametric" else {},
        "rates": [timing.sample_rate, timing.duration, timing.control_rate],
        "precise": precise,
        "names": [p.name for p in synth.parameters],
        "theta": theta.tolist(),
    }
    (folder / "job.json").write_text(json.dumps(job))
    worker = Path(__file__).with_name("synthax_worker.py")
    subprocess.run([sys.executable, worker, folder / "job.json", folder / "sounds.npz"], check=True, timeout=500)
    import numpy as np

    with np.load(folder / "sounds.npz") as arrays:
        return torch.from_numpy(arrays["sounds"]), torch.from_numpy(arrays["noise"])


@pytest.mark.slow
@pytest.mark.parametrize("rates", [(16000, 1.0, 480), (22050, 0.37, 441)], ids=["published rates", "odd rates"])
@pytest.mark.parametrize("name", CLASSES)
def test_parity_with_synthax(name: str, rates: tuple[int, float, int], tmp_path: Path) -> None:
    """Half a minute each, nearly all of it XLA's compiler."""
    pytest.importorskip("synthax", reason="SynthAX is not installed: pip install 'doppel_ray[parity]'")
    synth = Synth.create(name, *rates, compile=False)
    theta = synth.sample(11, range(SOUNDS if rates[0] == 16000 else 4))
    exact, noise = _published(name, synth, theta, True, tmp_path)
    published, _ = _published(name, synth, theta, False, tmp_path)
    ours = synth.render(theta, noise.float())
    assert ours.shape == exact.shape

    off = (ours.double() - exact).abs().amax(dim=1)
    rounding = (published.double() - exact).abs().amax(dim=1)
    rms = (ours.double() - exact).square().mean(dim=1).sqrt()
    relative = rms / exact.square().mean(dim=1).sqrt().clamp(min=1e-9)
    print(
        f"\n{name} at {rates}, {len(theta)} sounds, largest difference of a sample from SynthAX in float64: "
        f"ours median {off.median():.1e} worst {off.max():.1e} (rms median {rms.median():.1e} worst {rms.max():.1e}; "
        f"within 1 % relative RMS: {int((relative < 0.01).sum())}), "
        f"SynthAX in float32 median {rounding.median():.1e} worst {rounding.max():.1e}"
    )
    assert off.median() <= max(rounding.median().item(), 1e-4)
    assert off.max() <= max(2.0 * rounding.max().item(), 1e-3)
    if name == "voice":
        assert off.max() < 2e-2
