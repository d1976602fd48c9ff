"""Data sets in their published layouts, one class for each file."""

from pathlib import Path

import numpy as np

from doppel_ray.data.recordings.datasets import DATA_SETS, Name
from doppel_ray.probe.tasks.entry import RecordedTask
from doppel_ray.probe.tasks.listing import Listing


class Native(RecordedTask):
    """A data set in its published layout."""

    kind: Name

    def listing(self, root: Path, sample_rate: int) -> Listing:
        data_set = DATA_SETS[self.kind]
        found = data_set.read(root)
        targets, labels = np.array(found.labels, dtype=np.int64), found.classes
        if self.kind == "nsynth_pitch":  # many of the 128 MIDI notes have no recording
            notes, targets = np.unique(targets, return_inverse=True)
            labels = tuple(found.classes[note] for note in notes)
        paths = tuple(found.path(item) for item in range(len(found)))
        return Listing(paths, "multiclass", targets, labels, found.folds, data_set.metrics, found.skipped)
