"""Probe tasks: sounds with targets, split into examples to fit, to validate and to test."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from torch import Tensor

Kind = Literal["multiclass", "multilabel", "regression"]
"""Target of a sound: one class, any number of labels, or values."""


class Sounds(Protocol):
    """The sounds of a task, read one at a time: a task may be larger than memory.

    Attributes:
        failed: sounds that could not be read so far: item -> file and reason. `sounds.stream` fills it; the caller
            decides what to do about them.
    """

    failed: dict[int, str]

    def __len__(self) -> int: ...

    def read(self, item: int) -> Tensor:
        """Return one sound at the task's sample rate: (samples,) float32.

        Raises:
            UnreadableAudioError: its file cannot be decoded.
        """


@dataclass(frozen=True)
class Split:
    """One split of a task's examples, as row numbers; a cross-validated task has one for each fold.

    Attributes:
        name: "fold_3", or "test" if the source has one test set.
        train: (n,) int64.
        valid: (n,) int64, may be empty (`validation.parts`). Scores on these, after fitting on `train`, choose trials,
            checkpoints and settings. For the test score, a protocol without settings is fitted on both.
        test: (n,) int64, used for the score alone.
    """

    name: str
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class TaskSpec:
    """The targets, splits and metrics of a task: what a protocol needs beside embeddings.

    Attributes:
        kind: of the targets.
        targets: multiclass: (n,) int64 class numbers. multilabel: (n, labels) bool. regression: (n, values) float64.
        labels: names of the classes, or of the values.
        splits: at least one; scores are means over them.
        metrics: names in `doppel_ray.probe.metrics`; the first is the task's score.
    """

    kind: Kind
    targets: np.ndarray
    labels: tuple[str, ...]
    splits: tuple[Split, ...]
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class TaskDataset:
    """A task's sounds and its spec.

    Attributes:
        sounds: one for each example.
        spec: of the same examples.
    """

    sounds: Sounds
    spec: TaskSpec
