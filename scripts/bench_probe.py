"""What probes cost: `python scripts/bench_probe.py --esc10 DIR`.

Embedding: 400 clips of five seconds by a checkpoint of the quickstart, at first use, when the recordings are decoded,
and again, when they lie decoded on disk.

Training: the quickstart's sweep, two trials side by side, without probes and with ESC-10 and the factors probed after
every epoch; in turn, `--rounds` times. Compared are pairs per second of the epochs after the first, while other epochs'
probes run beside them, and the whole sweep's minutes. On few cores probes and training share them: what is measured is
how much of the training's time the probes take, since training never waits for a probe.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ASKED = {"without": "[]", "with": "[{kind: factors, sounds: 768}, esc10]"}


def sweep(folder: Path, probes: str, esc10: Path, epochs: int) -> tuple[float, float, float, Path]:
    """Train two trials; returns pairs/s of both together, the seconds of a probe (0 without), minutes, a checkpoint."""
    began = time.monotonic()
    command = [sys.executable, "-m", "doppel_ray.tune", "--plain", "--run.dir", str(folder), "--run.name", "run"]
    settings = {
        "probes.tasks": probes,
        "probes.root": str(esc10),
        "train.epochs": str(epochs),
        "tune.metric": "loss",
        "tune.mode": "min",
        "tune.scheduler": "fifo",
        "search": "{pairs.delta: {grid: [0.05, 0.1]}}",
    }
    options = [part for key, value in settings.items() for part in (f"--{key}", value)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=1800)
    if done.returncode != 0:
        sys.exit(f"python -m doppel_ray.tune failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    minutes = (time.monotonic() - began) / 60
    rate, seconds = 0.0, [0.0]
    for file in folder.glob("run/trials/*/rows.jsonl"):
        rows = [json.loads(line) for line in file.open()]
        rate += statistics.mean(row["pairs_per_second"] for row in rows[1:])
        seconds += [row["probe/seconds"] for row in rows[1:] if "probe/seconds" in row]
    checkpoint = next(folder.glob("run/trials/*/checkpoints/epoch_*"))
    return rate, statistics.median(seconds[1:] or [0.0]), minutes, checkpoint


def embedding(checkpoint: Path, esc10: Path) -> None:
    """Embed ESC-10 twice with an empty cache of recordings, and print how long each took."""
    import torch

    from doppel_ray.probe.evaluate import TaskEmbedder
    from doppel_ray.probe.tasks import Native

    torch.set_num_threads(os.cpu_count() or 1)
    task = Native(kind="esc10", root=esc10)
    for name in ("cold: decoded, kept on disk, embedded", "cached: embedded"):
        encoder, began = TaskEmbedder(checkpoint, cache=1.0), time.perf_counter()
        vectors, failed = encoder(task, "trained")
        seconds = time.perf_counter() - began
        print(f"{len(vectors) - len(failed)} clips, {name}: {seconds:.1f} s, {len(vectors) / seconds:.0f} clips/s")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--esc10", type=Path, required=True, help="folder of ESC-10 in ESC-50's layout")
    parser.add_argument("--rounds", type=int, default=2, help="times that each sweep is run (2)")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of a trial, of 4,096 pairs (4)")
    parser.add_argument("--embed", type=Path, metavar="CHECKPOINT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.embed:
        embedding(options.embed, options.esc10)
        return
    rates: dict[str, list[float]] = {name: [] for name in ASKED}
    for number in range(options.rounds):
        for name in sorted(ASKED, reverse=number % 2 == 1):
            with tempfile.TemporaryDirectory() as scratch:
                rate, seconds, minutes, checkpoint = sweep(Path(scratch), ASKED[name], options.esc10, options.epochs)
                rates[name].append(rate)
                print(f"{name} probes: {rate:.0f} pairs/s, {minutes:.1f} min, {seconds:.1f} s a probe", flush=True)
                if name == "with" and number == 0:
                    environment = os.environ | {"DOPPEL_RAY_CACHE": f"{scratch}/cache"}
                    command = [sys.executable, __file__, "--esc10", str(options.esc10), "--embed", str(checkpoint)]
                    subprocess.run(command, check=True, env=environment)
    best = {name: max(found) for name, found in rates.items()}
    print(f"with probes, training keeps {100 * best['with'] / best['without']:.0f} % of its pairs per second")


if __name__ == "__main__":
    main()
