"""The untrained encoder that a checkpoint's scores stand beside, and by what its kept scores are found again."""

import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import doppel_ray
from doppel_ray.data.pairs import PairMaker
from doppel_ray.models import Model, checkpoint
from doppel_ray.models.batchnorm import set_statistics

PAIRS = 256
"""Pairs of the run whose batch-norm statistics the untrained encoder has, as many as a few training batches."""
BATCH = 64
"""Pairs of a batch of them."""


def untrained(folder: Path) -> Model:
    """Build the model as training began with it, with the batch-norm statistics that training would find at once.

    Fresh batch norms have mean 0 and variance 1, which log-mels around -4 are far from. A trained encoder has the
    statistics of its pairs, so one that is compared with it has them too: of the run's first `PAIRS`, at δ = 0, so that
    it is the same for every δ of a sweep.

    Args:
        folder: a checkpoint of the run.

    Raises:
        ConfigError: there is no such checkpoint, or the recordings that its pairs are of are not there.
    """
    recipe, experiment = checkpoint.recipe(folder), _sounds(checkpoint.about(folder)["experiment"])
    model, maker = recipe.untrained(), PairMaker.of(experiment)
    set_statistics(model, (maker(part).flatten(0, 1).float() for part in torch.arange(PAIRS).split(BATCH)))
    return model


def _sounds(experiment: dict[str, Any]) -> dict[str, Any]:
    """An experiment whose pairs are those of `experiment` before their parameters are perturbed, as features."""
    pairs = {key: value for key, value in experiment["pairs"].items() if key not in ("delta", "schedule")}
    return experiment | {
        "pairs": pairs | {"delta": 0.0},
        "frontend": experiment["frontend"] | {"where": "generator"},
    }


def key(folder: Path, asked: object, files: Sequence[Path], reads_pairs: bool) -> str:
    """Name everything that decides a baseline's score, so that a kept score is never another's.

    Args:
        folder: a checkpoint of the run.
        asked: the task, its questions and protocol; anything whose `repr` is complete.
        files: recordings of the task; their sizes and times count too.
        reads_pairs: the baseline is the untrained model, which depends on the run's model and pairs.
    """
    recipe = checkpoint.recipe(folder)
    described: list[Any] = [_code(), repr(asked), _stamps(files), recipe.sample_rate]
    if reads_pairs:
        experiment = _sounds(checkpoint.about(folder)["experiment"])
        described += [repr(recipe), PAIRS, *(experiment[name] for name in ("pairs", "augment", "source"))]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]


def _stamps(files: Sequence[Path]) -> list[tuple[str, int, int]]:
    """Path, size in bytes and time of change in nanoseconds of each file; -1 of one that is missing."""
    stamps = []
    for file in files:
        try:
            found = file.stat()
            stamps.append((str(file.absolute()), found.st_size, found.st_mtime_ns))
        except OSError:
            stamps.append((str(file.absolute()), -1, -1))
    return stamps


@functools.cache
def _code() -> str:
    """A hash of the package's source: any change may move a score, and a baseline costs seconds to compute again."""
    root, found = Path(doppel_ray.__file__).parent, hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        found.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return found.hexdigest()
