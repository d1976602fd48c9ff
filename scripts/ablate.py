"""What each ingredient of a configuration gives: `python scripts/ablate.py --esc10 DIR`.

Train a configuration as it is, and again with one thing changed at a time, each on the same number of pairs, in one
process without Ray, and print one line of a table for each. Judge an ingredient by "within folds 1 to 4", which never
sees fold 5 (a cross-validation among the four), and by the factors. Fold 5 and the tasks of --manifests then say
whether the gain was more than luck in choosing. One clip of fold 5 moves its score by 1.25 points.

    --table ingredients   what best.yaml is made of, one thing changed at a time
    --table noise         white noise x δ; "own to each pair" is a noise that both views of a pair share alone: the
                          fingerprint of versions before November 2026, put back here as a control
    --table controls      fresh pairs against fixed sets, and the objectives, at equal numbers of pairs
    --table search        candidates for a better recipe

With --results FILE each line is also written as JSON, and lines that the file already has are not trained again. What
has been measured so far is in measurements/; `--show FILE` prints the table of such a file, with means over seeds.
"""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from doppel_ray.cluster.ray_env import TRAIN_WORKER
from doppel_ray.config.experiment import Experiment, read_experiment
from doppel_ray.data.pairs import PairMaker
from doppel_ray.models.checkpoint import ModelSpec
from doppel_ray.models.learner import Learner
from doppel_ray.probe import baselines
from doppel_ray.probe.embed import by_model, embed_sounds
from doppel_ray.probe.protocols import ProtocolConfig, score_embeddings
from doppel_ray.probe.task import Split, TaskDataset, TaskSpec
from doppel_ray.probe.tasks import Factors, Manifest, Native
from doppel_ray.synth import Synth

OWN = "own to each pair"
Changes = dict[str, dict[str, str]]

INGREDIENTS: Changes = {
    "untrained": {"train.epochs": "0"},
    "as it is": {},
    "recordings read in windows of a second": {"encoder.reading": "windows"},
    "`cnn` in place of `framenet`": {"encoder.kind": "cnn"},
    "no projection head": {"head.kind": "none"},
    "δ = 0.03": {"pairs.delta": "0.03"},
    "δ = 0.1": {"pairs.delta": "0.1"},
    "δ = 0.25": {"pairs.delta": "0.25"},
    "temperature 0.1": {"objective.temperature": "0.1"},
    "temperature 0.5": {"objective.temperature": "0.5"},
    "alignment + uniformity": {"objective.kind": "alignment_uniformity"},
    "no gain": {"augment": "[]"},
    "two sounds at once": {"pairs.layers": "2"},
    "VoiceFM in place of Voice": {"synth.architecture": "voicefm"},
    "Parametric in place of Voice": {"synth.architecture": "parametric"},
    "twice the pairs": {"train.epochs": "20"},
}
NOISE: Changes = {
    f"{noise}, δ = {delta}": {"pairs.noise": noise, "pairs.delta": delta}
    for delta in ("0.25", "0.1", "0.03")
    for noise in (OWN, "shared", "view")
}
CONTROLS: Changes = {
    "fresh pairs": {},
    "10,000 pairs over and over": {"pairs.reuse": "10000"},
    "100,000 pairs over and over": {"pairs.reuse": "100000"},
    "alignment + uniformity": {"objective.kind": "alignment_uniformity"},
}
SEARCH: Changes = {
    "as it is": {},
    "three times the pairs": {"train.epochs": "30"},
    "two sounds at once": {"pairs.layers": "2"},
    "two sounds, onsets in the first half": {"pairs.layers": "2", "pairs.onsets": "0.5"},
    "temperature 0.1": {"objective.temperature": "0.1"},
    "temperature 0.4": {"objective.temperature": "0.4"},
    "batch 256": {"train.batch_size": "256"},
    "width 48": {"encoder.width": "48"},
    "weights averaged": {"optim.ema": "0.99"},
    "learning rate 4e-3": {"optim.lr": "0.004"},
    "four sounds at once": {"pairs.layers": "4"},
    "sounds of 2 s": {"synth.duration": "2.0"},
    "two sounds at once, of 2 s": {"synth.duration": "2.0", "pairs.layers": "2"},
    "scenes of 2 s: three sounds, onsets to 1.5 s": {
        "synth.duration": "2.0",
        "pairs.layers": "3",
        "pairs.onsets": "0.75",
    },
    "SpecAugment": {"augment": "[{kind: gain, low: -12.0, high: 12.0}, {kind: spec_mask}]"},
    "VoiceFM, two at once": {"synth.architecture": "voicefm", "pairs.layers": "2"},
    "δ from 0.25 to 0.03": {"pairs.delta": "0.25", "pairs.schedule": "{kind: linear, end: 0.03}"},
}
TABLES = {"ingredients": INGREDIENTS, "noise": NOISE, "controls": CONTROLS, "search": SEARCH}


class Judges:
    """The tasks that every encoder is put to."""

    def __init__(self, esc10: Path, manifests: list[Path]) -> None:
        self.esc10 = Native(kind="esc10", root=esc10).load(16000, cache=1.0)
        self.others = {"factors": Factors().load(16000)} | {
            path.stem: Manifest(kind="manifest", root=path).load(16000, cache=1.0) for path in manifests
        }

    @property
    def columns(self) -> tuple[str, ...]:
        return ("within folds 1 to 4", "fold 5", "five folds", *self.others)

    def scores(self, learner: Learner, experiment: Experiment) -> list[float]:
        """A number for each column: per cent of accuracy, or R²."""
        embedder = by_model(ModelSpec.of(experiment.plain()).waveform_encoder(learner.trained))

        def vectors(dataset: TaskDataset) -> np.ndarray:
            return embed_sounds(dataset.sounds, range(len(dataset.sounds)), embedder)

        vectors_of_esc10, spec = vectors(self.esc10), self.esc10.spec
        folds = tuple(f"fold_{k}" for k in range(1, 5))
        last = replace(spec, splits=tuple(s for s in spec.splits if s.name == "fold_5"))
        found = [_score(vectors_of_esc10, asked) for asked in (within(spec, folds), last, spec)]
        return found + [_score(vectors(dataset), dataset.spec) for dataset in self.others.values()]


def _score(vectors: np.ndarray, spec: TaskSpec) -> float:
    measured = score_embeddings(ProtocolConfig(), vectors, spec)
    return measured["score"] if spec.kind == "regression" else 100.0 * measured[spec.metrics[0]]


def within(spec: TaskSpec, names: tuple[str, ...]) -> TaskSpec:
    """Cross-validation among some folds only: the others take no part."""
    chosen = [split for split in spec.splits if split.name in names]
    splits = []
    for split in chosen:
        others = np.concatenate([other.test for other in chosen if other is not split])
        splits.append(Split(split.name, others, others[:0], split.test))
    return replace(spec, splits=tuple(splits))


@contextlib.contextmanager
def noise_of_the_pair() -> Iterator[None]:
    """Both views of a pair play a noise that no other pair has, as in this project until November 2026."""

    def leaking(self: Synth, theta: Tensor, seed: int, indices: Tensor, noise: str = "") -> Tensor:
        sounds = self.render(theta.flatten(0, 1), seed=seed, indices=torch.as_tensor(indices).repeat(2))
        return sounds.unflatten(0, (2, -1))

    with mock.patch.object(Synth, "render_views", leaking):
        yield


def train(experiment: Experiment, steps: int) -> tuple[Learner, float]:
    """Train on the experiment's pairs, in order; return the learner and seconds of CPU time.

    Without steps the encoder has the batch-norm statistics of the first pairs, as a trained one has those of its own.
    """
    maker, learner = PairMaker.of(experiment.plain()), Learner(experiment)
    began = time.process_time()
    if steps == 0:
        baselines.set_pair_statistics(learner.model, maker)
    for step in range(steps):
        take_step(maker, learner, step)
    learner.settle()
    return learner, time.process_time() - began


def take_step(maker: PairMaker, learner: Learner, step: int) -> None:
    """Make the pairs of a step, and train on them."""
    batch = learner.experiment.train.batch_size
    indices = np.arange(step * batch, (step + 1) * batch)
    # What is made in inference mode autograd refuses; its copies it takes.
    features, labels, ids = (part.clone() for part in maker.labelled(indices))
    learner.step(features, labels, ids, indices, step)


def row(
    options: argparse.Namespace, judges: Judges, name: str, changes: dict[str, str], seed: int
) -> dict[str, object]:
    """Train with some changes, and score: what `--results` keeps."""
    overrides = {"run.seed": str(seed), "search": "{}"} | dict(pair.split("=", 1) for pair in options.set) | changes
    leaks, untrained = overrides.get("pairs.noise") == OWN, overrides.get("train.epochs") == "0"
    overrides |= ({"pairs.noise": "shared"} if leaks else {}) | ({"train.epochs": "1"} if untrained else {})
    experiment = read_experiment(options.config, overrides)
    steps = 0 if untrained else experiment.train.steps
    with noise_of_the_pair() if leaks else contextlib.nullcontext():
        learner, seconds = train(experiment, steps)
    scores = dict(zip(judges.columns, judges.scores(learner, experiment), strict=True))
    pairs = steps * experiment.train.batch_size
    return {"table": options.table, "changed": name, "seed": seed, **scores, "pairs": pairs, "CPU seconds": seconds}


def shown(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value > 100.0 else f"{value:.1f}" if value > 1.5 else f"{value:.3f}"


def summary(path: Path) -> str:
    """Return the table of a file of results: for each line, the mean over its seeds and the standard deviation."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    judged = [key for key in lines[0] if key not in ("table", "changed", "seed", "pairs", "CPU seconds")]
    heads = ("changed", "seeds", *judged, "pairs")
    table = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    for name in dict.fromkeys(line["changed"] for line in lines):
        rows = [line for line in lines if line["changed"] == name]
        cells = [name, ", ".join(str(row["seed"]) for row in rows)]
        for key in judged:
            values = np.array([row[key] for row in rows if key in row], dtype=float)
            digits = 3 if abs(values.mean()) < 1.5 else 1
            spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.{digits}f}{spread}" if len(values) else "–")
        table.append(f"| {' | '.join([*cells, format(rows[0]['pairs'], ',')])} |")
    return "\n".join(table)


def become_train_worker() -> None:
    """Start again with a train worker's memory settings, read when a process starts, unless they are set."""
    if any(os.environ.get(name) != value for name, value in TRAIN_WORKER.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | TRAIN_WORKER)


def main() -> None:
    become_train_worker()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--esc10", type=Path, help="folder of ESC-10 in ESC-50's layout")
    what.add_argument("--show", type=Path, metavar="FILE", help="print what was measured, and end")
    parser.add_argument("--manifests", type=Path, nargs="*", default=[], help="further tasks, as CSV with folds")
    parser.add_argument("--config", type=Path, default=Path(__file__).parent.parent / "tune_configs" / "best.yaml")
    parser.add_argument("--table", choices=list(TABLES), default="ingredients")
    parser.add_argument("--only", nargs="+", help="these lines of the table alone")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changed in every line")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1, help="threads to train with [%(default)s]")
    parser.add_argument("--results", type=Path, help="JSON lines of what is done")
    options = parser.parse_args()
    if options.show is not None:
        print(summary(options.show))
        return
    unknown = set(options.only or ()) - set(TABLES[options.table])
    if unknown:
        parser.error(f"--only {min(unknown)!r}: expected some of {', '.join(TABLES[options.table])}")
    torch.set_num_threads(options.threads)
    judges, done = Judges(options.esc10, options.manifests), set()
    if options.results is not None and options.results.is_file():
        kept = [json.loads(line) for line in options.results.read_text().splitlines()]
        done = {(line["table"], line["changed"], line["seed"]) for line in kept}
    heads = ("changed", "seed", *judges.columns, "pairs", "CPU seconds")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)
    for seed in options.seeds:
        for name in options.only or TABLES[options.table]:
            if (options.table, name, seed) in done:
                continue
            line = row(options, judges, name, TABLES[options.table][name], seed)
            print(f"| {' | '.join(shown(line[head]) for head in heads)} |", flush=True)
            if options.results is not None:
                with options.results.open("a") as file:
                    file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
