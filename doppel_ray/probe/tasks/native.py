"""Data sets in their published layouts, one class for each file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from doppel_ray.data.recordings import catalogue
from doppel_ray.data.recordings.catalogue import Catalogue
from doppel_ray.probe.tasks.entry import RecordedTask
from doppel_ray.probe.tasks.listing import Listing

NativeKind = Literal[
    "esc10", "esc50", "urbansound8k", "vivae", "speech_commands", "sc09", "nsynth_family", "nsynth_pitch"
]


@dataclass(frozen=True)
class NativeFormat:
    """A data set's published layout.

    Attributes:
        about: one line for `--help`.
        read: folder -> its recordings.
        metrics: of the task.
    """

    about: str
    read: Callable[[Path], Catalogue]
    metrics: tuple[str, ...] = ("accuracy",)


FORMATS: dict[NativeKind, NativeFormat] = {
    "esc10": NativeFormat("ESC-10, in ESC-50's layout: 5 folds", lambda root: catalogue.esc50(root, "esc10")),
    "esc50": NativeFormat("ESC-50: 5 folds", catalogue.esc50),
    "urbansound8k": NativeFormat("UrbanSound8K: 10 folds", catalogue.urbansound8k),
    "vivae": NativeFormat("VIVAE's emotions: a fold for each speaker", catalogue.vivae),
    "speech_commands": NativeFormat("Speech Commands v2, 35 words: the official lists", catalogue.speech_commands),
    "sc09": NativeFormat(
        "the ten digits of Speech Commands v2: the official lists", lambda root: catalogue.speech_commands(root, "sc09")
    ),
    "nsynth_family": NativeFormat("NSynth's instrument families: its splits", catalogue.nsynth),
    "nsynth_pitch": NativeFormat(
        "NSynth's pitches: its splits", lambda root: catalogue.nsynth(root, "pitch"), ("pitch_acc", "chroma_acc")
    ),
}
assert set(FORMATS) == set(get_args(NativeKind))


class Native(RecordedTask):
    """A data set in its published layout."""

    kind: NativeKind

    def listing(self, root: Path, sample_rate: int) -> Listing:
        form = FORMATS[self.kind]
        found = form.read(root)
        targets, labels = np.array(found.labels, dtype=np.int64), found.classes
        if self.kind == "nsynth_pitch":  # many of the 128 MIDI notes have no recording
            notes, targets = np.unique(targets, return_inverse=True)
            labels = tuple(found.classes[note] for note in notes)
        paths = tuple(found.path(item) for item in range(len(found)))
        return Listing(paths, "multiclass", targets, labels, found.folds, form.metrics)
