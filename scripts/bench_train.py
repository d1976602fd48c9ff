"""Pairs per second of four trainers, in turn and in one run: `python scripts/bench_train.py`.

(a) A plain loop of the published recipe in one process: SynthAX, VGGish log-mel, torchvision's ResNet-18, float32.
(b) Ours through Ray Data and Ray Train, with the same encoder, features, batch and precision.
(c) Ours through Ray, with our best settings: bfloat16, where the processor has matrix units for it.
(d) The settings of (c) in one process without Ray, which makes its own pairs with the same cores.

Each plays `--rounds` times, and its best round counts: other processes on the machine only ever slow one down. (a)
needs `pip install 'doppel_ray[parity]' torchvision==0.26.*`; without torchvision it takes our ResNet-18, of the same
shape.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH = 128


def recipe(precision: str, steps: int, workers_cpus: float = 1.0, generator_cpus: float = 1.0) -> dict[str, Any]:
    """The published recipe at a batch of 128, as our configuration."""
    return {
        "pairs": {"delta": 0.25},
        "encoder": {"kind": "resnet18", "representation": "projected"},
        "objective": {"kind": "alignment_uniformity"},
        "train": {
            "batch_size": BATCH,
            "pairs_per_epoch": BATCH * steps,
            "epochs": 4,
            "precision": precision,
            "cpus_per_worker": workers_cpus,
        },
        "generators": [{"num_cpus": generator_cpus}],
        "probes": {"tasks": []},
        "tune": {"metric": "loss", "mode": "min"},
    }


def published(seconds: float) -> float:
    """Trainer (a)."""
    import jax
    import numpy as np
    import torch
    from synthax.config import SynthConfig
    from synthax.synth import Voice

    from doppel_ray.data.frontends import FrontendConfig
    from doppel_ray.models.objectives import ObjectiveConfig

    torch.set_num_threads(os.cpu_count() or 1)
    voice = Voice(config=SynthConfig(BATCH, sample_rate=16000, buffer_size_seconds=1.0, control_rate=480))
    sample, render = jax.jit(voice.init), jax.jit(voice.apply)

    @jax.jit
    def perturb(parameters: Any, key: Any) -> Any:
        leaves, tree = jax.tree_util.tree_flatten(parameters)
        keys = jax.random.split(key, len(leaves))
        moved = [
            jax.numpy.clip(leaf + 0.25 * jax.random.normal(k, leaf.shape), 1e-6, 1.0)
            for leaf, k in zip(leaves, keys, strict=True)
        ]
        return jax.tree_util.tree_unflatten(tree, moved)

    encoder = _torchvision_resnet18()
    frontend = FrontendConfig().build(16000)
    objective = ObjectiveConfig().build()
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.06, weight_decay=1e-6)

    def step(number: int) -> None:
        key = jax.random.PRNGKey(number)
        parameters = sample(key)
        views = [render(perturb(parameters, k)) for k in jax.random.split(key)]
        sound = torch.from_numpy(np.concatenate([np.asarray(view) for view in views]))
        embeddings = encoder(frontend(sound))
        loss, _ = objective(*embeddings.chunk(2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return _rate(step, seconds)


def _torchvision_resnet18() -> Any:
    import torch

    try:
        import torchvision
    except ImportError:
        from doppel_ray.models import EncoderConfig, HeadConfig, Model

        print("torchvision is not installed; (a) takes our ResNet-18", file=sys.stderr)
        model = Model(EncoderConfig(), HeadConfig(), seed=0)
        return torch.nn.Sequential(model.encoder, model.head)
    model = torchvision.models.resnet18(num_classes=512)
    model.conv1 = torch.nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    return model


def alone(seconds: float) -> float:
    """Trainer (d)."""
    import torch

    from doppel_ray.config.experiment import Experiment
    from doppel_ray.data.pairs import PairMaker
    from doppel_ray.models.learner import Learner

    torch.set_num_threads(os.cpu_count() or 1)
    experiment = Experiment.model_validate(recipe("auto", 10**6))
    maker, learner = PairMaker.of(experiment.plain()), Learner(experiment)

    def step(number: int) -> None:
        indices = torch.arange(number * BATCH, (number + 1) * BATCH)
        learner.step(*maker.labelled(indices), indices.numpy(), number)

    return _rate(step, seconds)


def _rate(step: Callable[[int], None], seconds: float) -> float:
    """Pairs per second, of steps after the first two."""
    step(0)
    step(1)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        step(done + 2)
        done += 1
    return done * BATCH / (time.perf_counter() - began)


def through_ray(precision: str, seconds: float, expected: float, generator_cpus: float) -> tuple[float, float]:
    """Trainers (b) and (c): pairs per second of the best epoch after the first, and its share of waiting for data."""
    cpus = os.cpu_count() or 1
    # The driver and the generators take their part of the processors; the trainer computes on all of them.
    settings = recipe(
        precision, max(4, int(seconds * expected / BATCH / 3)), cpus - generator_cpus - 0.05, generator_cpus
    )
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "bench.yaml"
        config.write_text(json.dumps(settings))  # JSON is YAML
        command = [
            sys.executable,
            "-m",
            "doppel_ray.train",
            "--config",
            str(config),
            "--run.dir",
            folder,
            "--run.name",
            "run",
        ]
        done = subprocess.run([*command, "--plain"], capture_output=True, text=True, timeout=900)
        if done.returncode != 0:
            sys.exit(f"python -m doppel_ray.train failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        rows = [json.loads(line) for line in next(Path(folder).glob("run/trials/*/rows.jsonl")).open()]
    best = max(rows[1:], key=lambda row: row["pairs_per_second"])
    return best["pairs_per_second"], best["wait_share"]


def _apart(trainer: str, seconds: float) -> float:
    """A trainer without Ray, in a process of its own."""
    from doppel_ray.cluster.ray_env import TRAIN_WORKER

    settings = TRAIN_WORKER if trainer == "alone" else {}
    command = [sys.executable, __file__, "--seconds", str(seconds), "--work", trainer]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | settings)
    return float(done.stdout.split()[-1])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each plays in a round (20)")
    parser.add_argument("--rounds", type=int, default=2, help="times that each plays (2)")
    parser.add_argument("--generator-cpus", type=float, default=0.25, help="of (c): CPUs of its generator (0.25)")
    parser.add_argument("--work", choices=["published", "alone"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print({"published": published, "alone": alone}[options.work](options.seconds))
        return
    rates: dict[str, list[float]] = {name: [] for name in "abcd"}
    for _ in range(options.rounds):
        rates["a"].append(_apart("published", options.seconds))
        rates["d"].append(_apart("alone", options.seconds))
        for name, precision, guess in (("b", "fp32", rates["a"][0]), ("c", "auto", rates["d"][0])):
            rate, waited = through_ray(precision, options.seconds, guess, options.generator_cpus)
            rates[name].append(rate)
            print(f"({name}) waited for data {100 * waited:.0f} % of the time", flush=True)
    best = {name: max(found) for name, found in rates.items()}
    for name, text in zip("abcd", (line for line in (__doc__ or "").splitlines() if line.startswith("(")), strict=True):
        spread = f"median {statistics.median(rates[name]):.0f}"
        print(f"{best[name]:>6.0f} pairs/s ({spread}), {best[name] / best['a']:.2f} x (a)   {text}")
    print(f"(c) is {100 * best['c'] / best['d']:.0f} % of (d)")


if __name__ == "__main__":
    main()
