"""Does training go on paying? `python scripts/long_run.py --esc10 DIR --out FOLDER`.

Train a configuration on many pairs in one process, without Ray, and score the encoder whenever the number of pairs has
doubled, and at the end. Within the run the learning rate is still high when a score is taken; the scores of
`ablate.py`, whose learning rate falls to 0 after fewer pairs, stand beside these. A run that was stopped continues
from FOLDER, with the same pairs and in the end the same weights up to the last bits of sums.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

import torch
from ablate import Judges, become_train_worker, take_step

from doppel_ray.config.experiment import read_experiment
from doppel_ray.data.pairs import PairMaker
from doppel_ray.models import checkpoint
from doppel_ray.models.checkpoint import Position
from doppel_ray.models.learner import Learner

SAVED_EVERY = 300.0
"""Seconds between checkpoints."""


def main() -> None:
    become_train_worker()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--esc10", type=Path, required=True, help="folder of ESC-10 in ESC-50's layout")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint and scores.jsonl")
    parser.add_argument("--manifests", type=Path, nargs="*", default=[], help="further tasks, as CSV with folds")
    parser.add_argument("--config", type=Path, default=Path(__file__).parent.parent / "tune_configs" / "best.yaml")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changes of the configuration")
    parser.add_argument("--pairs", type=int, default=1_000_000, help="pairs in all [%(default)s]")
    parser.add_argument("--first", type=int, default=8192, help="pairs before the first scores [%(default)s]")
    parser.add_argument("--threads", type=int, default=1, help="threads to train with [%(default)s]")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    changes = {"search": "{}"} | dict(pair.split("=", 1) for pair in options.set)
    batch = read_experiment(options.config, changes).train.batch_size
    steps = -(-options.pairs // batch)
    changes |= {"train.epochs": "1", "train.pairs_per_epoch": str(steps * batch)}
    experiment = read_experiment(options.config, changes)
    judges, maker, learner = (
        Judges(options.esc10, options.manifests),
        PairMaker.of(experiment.plain()),
        Learner(experiment),
    )
    options.out.mkdir(parents=True, exist_ok=True)
    kept = sorted(path.parent for path in options.out.glob(f"*/{checkpoint.DESCRIPTION}"))
    start = learner.load(kept[-1]).step if kept else 0
    due = {-(-options.first * 2**k // batch) for k in range(40)} | {steps}
    saved = time.monotonic()
    for step in range(start, steps):
        take_step(maker, learner, step)
        if step + 1 in due:
            learner.settle()
            found = dict(zip(judges.columns, judges.scores(learner, experiment), strict=True))
            learner.network.train()
            with (options.out / "scores.jsonl").open("a") as file:
                file.write(json.dumps({"pairs": (step + 1) * batch, **found}) + "\n")
            print((step + 1) * batch, found, flush=True)
        if step + 1 in due or time.monotonic() - saved > SAVED_EVERY:
            save(learner, options.out, Position(step=step + 1))
            saved = time.monotonic()


def save(learner: Learner, out: Path, position: Position) -> None:
    """Write a checkpoint, then delete those before it."""
    folder = out / f"{position.step:08d}"
    shutil.rmtree(folder, ignore_errors=True)  # what a stop left half written
    folder.mkdir()
    learner.save(folder, position, {})
    for older in out.glob("0*"):
        if older != folder:
            shutil.rmtree(older)


if __name__ == "__main__":
    main()
