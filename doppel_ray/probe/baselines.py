"""The untrained baseline, and the key under which a baseline's scores are kept."""

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
"""Number of the run's pairs that the untrained encoder takes its batch-norm statistics from: a few batches."""
BATCH = 64
"""Pairs in a batch of them."""


def untrained(folder: Path) -> Model:
    """Build the model as it was before the first training step, with batch-norm statistics of the run's pairs.

    A new batch norm has mean 0 and variance 1, far from log-mels around -4. A trained encoder has the statistics of its
    pairs, so the baseline has them too: those of the run's first `PAIRS` at δ = 0, the same for every δ of a sweep.

    Args:
        folder: a checkpoint of the run.

    Raises:
        ConfigError: the checkpoint or the recordings of the run are missing.
    """
    recipe, experiment = checkpoint.recipe(folder), _sounds(checkpoint.about(folder)["experiment"])
    model = recipe.untrained()
    set_pair_statistics(model, PairMaker.of(experiment))
    return model


def set_pair_statistics(model: Model, maker: PairMaker) -> None:
    """Give a model the batch-norm statistics of the first `PAIRS` pairs."""
    set_statistics(model, (maker(part).flatten(0, 1).float() for part in torch.arange(PAIRS).split(BATCH)))


def _sounds(experiment: dict[str, Any]) -> dict[str, Any]:
    """Return the experiment with δ = 0 and features computed by the generator."""
    pairs = {key: value for key, value in experiment["pairs"].items() if key not in ("delta", "schedule")}
    return experiment | {
        "pairs": pairs | {"delta": 0.0},
        "frontend": experiment["frontend"] | {"where": "generator"},
    }


def key(folder: Path, described: object, files: Sequence[Path], reads_pairs: bool) -> str:
    """Return a hash of everything that a baseline's score depends on.

    Args:
        folder: a checkpoint of the run.
        described: the task, its spec and protocol; anything whose `repr` is complete.
        files: recordings of the task, hashed by path, size and time.
        reads_pairs: the baseline is the untrained model, which depends on the run's model and pairs.
    """
    recipe = checkpoint.recipe(folder)
    parts: list[Any] = [_code(), repr(described), _stamps(files), recipe.sample_rate]
    if reads_pairs:
        experiment = _sounds(checkpoint.about(folder)["experiment"])
        parts += [repr(recipe), PAIRS, *(experiment[name] for name in ("pairs", "augment", "source"))]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _stamps(files: Sequence[Path]) -> list[tuple[str, int, int]]:
    """Return path, size in bytes and time of change in nanoseconds of each file; -1 for a missing one."""
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
    """Return a hash of the package's source: any change may move a score, and a baseline costs only seconds."""
    root, found = Path(doppel_ray.__file__).parent, hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        found.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return found.hexdigest()
