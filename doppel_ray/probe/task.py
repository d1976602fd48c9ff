"""What a probe task is: sounds with targets, cut into what is fitted on and what is tested on."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from torch import Tensor

Kind = Literal["multiclass", "multilabel", "regression"]
"""What is asked of a sound: its one class, which of the classes it has, or values."""


class Sounds(Protocol):
    """The sounds of a task, read one at a time, so that a task may be larger than memory.

    Attributes:
        failed: what could not be read so far: item -> its file and the reason. Readers of many at once fill it
            (`sounds.stream`); what becomes of these items is the asker's to decide.
    """

    failed: dict[int, str]

    def __len__(self) -> int: ...

    def read(self, item: int) -> Tensor:
        """One sound at the task's sample rate: (samples,) float32.

        Raises:
            UnreadableAudioError: its file cannot be decoded.
        """


@dataclass(frozen=True)
class Split:
    """One division of a task's examples, as positions in it; a cross-validated task has one for each fold.

    Attributes:
        name: "fold_3", or "test" where the source has one test set.
        train: (n,) int64.
        valid: (n,) int64, perhaps none (`validation.parts`). Trials, checkpoints and settings are chosen by the scores
            on these, after fitting on `train`. For the test score, what has no settings is fitted on both.
        test: (n,) int64; nothing but the score is taken from it.
    """

    name: str
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class TaskSpec:
    """What a task asks of its sounds, and how the answers are scored; what a protocol needs beside embeddings.

    Attributes:
        kind: what `targets` are.
        targets: multiclass: (n,) int64 class numbers. multilabel: (n, labels) bool. regression: (n, values) float64.
        labels: names of the classes, or of the values.
        splits: at least one; scores are means over them.
        metrics: names in `doppel_ray.probe.metrics`, the first of which is the task's score.
    """

    kind: Kind
    targets: np.ndarray
    labels: tuple[str, ...]
    splits: tuple[Split, ...]
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class TaskDataset:
    """A task, ready to be embedded and asked.

    Attributes:
        sounds: of each example.
        questions: about them.
    """

    sounds: Sounds
    questions: TaskSpec
