"""What each ingredient of a configuration gives: `python scripts/ablate.py --esc10 DIR`.

Trains `tune_configs/best.yaml` as it is, and again with one thing changed at a time, each on the same number of pairs,
in one process without Ray. An ingredient is to be judged by the second column, which never sees fold 5:
cross-validation within folds 1 to 4. Fold 5, and the built-in factors, then say whether that was more than choosing.
One seed moves a score by about 1.5 points, one clip of fold 5 by 1.25.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from doppel_ray.config.experiment import Experiment, read_experiment
from doppel_ray.data.pairs import PairMaker
from doppel_ray.models.checkpoint import ModelSpec
from doppel_ray.models.learner import Learner
from doppel_ray.probe.embed import by_model, embed_sounds
from doppel_ray.probe.protocols import ProtocolConfig, score_embeddings
from doppel_ray.probe.task import Split, TaskDataset, TaskSpec
from doppel_ray.probe.tasks import Factors, Native

READING = "recordings read in windows of a second"
CHANGES: dict[str, dict[str, str]] = {
    "as it is": {},
    READING: {"encoder.reading": "windows"},
    "`cnn` in place of `framenet`": {"encoder.kind": "cnn"},
    "δ = 0.01": {"pairs.delta": "0.01"},
    "δ = 0.1": {"pairs.delta": "0.1"},
    "δ = 0.25": {"pairs.delta": "0.25"},
    "temperature 0.1": {"objective.temperature": "0.1"},
    "temperature 0.5": {"objective.temperature": "0.5"},
    "alignment + uniformity": {"objective.kind": "alignment_uniformity"},
    "no gain": {"augment": "[]"},
    "two sounds at once": {"pairs.layers": "2"},
    "Parametric in place of Voice": {"synth.architecture": "parametric"},
    "no head": {"head.kind": "none"},
    "twice the pairs": {"train.epochs": "20"},
}


def train(experiment: Experiment) -> tuple[Learner, float]:
    """Train on the experiment's pairs, in order; returns the learner and seconds of CPU time."""
    maker, learner = PairMaker.of(experiment.plain()), Learner(experiment)
    batch, began = experiment.train.batch_size, time.process_time()
    for step in range(experiment.train.steps):
        indices = np.arange(step * batch, (step + 1) * batch)
        # What is made in inference mode autograd refuses; its copies it takes.
        features, labels, ids = (part.clone() for part in maker.labelled(indices))
        learner.step(features, labels, ids, indices, step)
    return learner, time.process_time() - began


def within(spec: TaskSpec, names: tuple[str, ...]) -> TaskSpec:
    """Cross-validation among some folds only: the others take no part."""
    chosen = [split for split in spec.splits if split.name in names]
    splits = []
    for split in chosen:
        others = np.concatenate([other.test for other in chosen if other is not split])
        splits.append(Split(split.name, others, others[:0], split.test))
    return replace(spec, splits=tuple(splits))


def scores(learner: Learner, experiment: Experiment, esc10: TaskDataset, factors: TaskDataset) -> str:
    recipe = ModelSpec.of(experiment.plain())
    embedder = by_model(recipe.waveform_encoder(learner.model))
    columns = []
    vectors = embed_sounds(esc10.sounds, range(len(esc10.sounds)), embedder)
    folds = tuple(f"fold_{k}" for k in range(1, 5))
    last = replace(esc10.spec, splits=tuple(s for s in esc10.spec.splits if s.name == "fold_5"))
    for spec in (within(esc10.spec, folds), last, esc10.spec):
        columns.append(f"{100 * score_embeddings(ProtocolConfig(), vectors, spec)['accuracy']:.1f}")
    of_factors = embed_sounds(factors.sounds, range(len(factors.sounds)), embedder)
    columns.append(f"{score_embeddings(ProtocolConfig(), of_factors, factors.spec)['score']:.3f}")
    return " | ".join(columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--esc10", type=Path, required=True, help="folder of ESC-10 in ESC-50's layout")
    parser.add_argument("--config", type=Path, default=Path(__file__).parent.parent / "tune_configs" / "best.yaml")
    parser.add_argument("--only", nargs="+", choices=list(CHANGES), help="these alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="threads to train with [%(default)s]")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    esc10, factors = Native(kind="esc10", root=options.esc10).load(16000, cache=1.0), Factors().load(16000)
    print("| changed | ESC-10, within folds 1 to 4 | fold 5 | five folds | factors | pairs | CPU seconds |")
    print("|---|---|---|---|---|---|---|")
    learner: Learner | None = None
    for name in options.only or CHANGES:
        experiment = read_experiment(options.config, {"run.seed": str(options.seed), "search": "{}", **CHANGES[name]})
        if not CHANGES[name]:
            print(f"| untrained | {scores(Learner(experiment), experiment, esc10, factors)} | 0 | 0 |", flush=True)
        if name != READING or learner is None:  # how recordings are read changes no training
            learner, seconds = train(experiment)
        pairs = experiment.train.steps * experiment.train.batch_size
        print(f"| {name} | {scores(learner, experiment, esc10, factors)} | {pairs} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
