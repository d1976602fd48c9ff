"""The table of public data sets, each in the layout that its authors publish.

Settings of recordings (`source.recordings`), probe tasks and downloads take what they know of a data set from here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from doppel_ray.data.recordings import catalogue
from doppel_ray.data.recordings.catalogue import Catalogue

Name = Literal["esc10", "esc50", "urbansound8k", "vivae", "speech_commands", "sc09", "nsynth_family", "nsynth_pitch"]
"""Names of the data sets, which are also those of their probe tasks."""
Layout = Literal["esc50", "urbansound8k", "vivae", "speech_commands", "nsynth"]
"""Names of the published layouts; data sets of one layout share its files."""
Subset = Literal["esc10", "sc09"]
"""Names of the data sets that are part of a layout's recordings."""

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class DataSet:
    """A data set.

    Attributes:
        title: its name, for people.
        layout: the layout of its files.
        classes: how many classes it has.
        folds: its folds or splits.
        reader: lists a folder's recordings. It is also given the folds wanted, None for all, and may leave out others.
        subset: `source.recordings.subset` that selects it; None: the whole layout.
        label: `source.recordings.label` that selects it, where a layout has more than one label.
        metrics: how a probe is scored on it, the task's score first.
    """

    title: str
    layout: Layout
    classes: int
    folds: tuple[str, ...]
    reader: Callable[[Path, Sequence[str] | None], Catalogue]
    subset: Subset | None = None
    label: str | None = None
    metrics: tuple[str, ...] = ("accuracy",)

    @property
    def about(self) -> str:
        """One line for `--help`."""
        splits = "train, valid, test" if self.folds == SPLITS else f"{len(self.folds)} folds"
        return f"{self.title}: {self.classes} classes; {splits}"

    def read(self, root: Path, folds: Sequence[str] | None = None) -> Catalogue:
        """Return the recordings of these folds, or all, in a folder of the data set's layout.

        Raises:
            ConfigError: the folder lacks a part of the layout, or there is no such fold.
        """
        found = self.reader(root, folds)
        return found if folds is None else found.of_folds(folds)


def _numbered(folds: int) -> tuple[str, ...]:
    return tuple(str(fold) for fold in range(1, folds + 1))


DATA_SETS: dict[Name, DataSet] = {
    "esc10": DataSet(
        title="ESC-10, in ESC-50's layout",
        layout="esc50",
        classes=10,
        folds=_numbered(5),
        reader=lambda root, _: catalogue.esc50(root, "esc10"),
        subset="esc10",
    ),
    "esc50": DataSet(
        title="ESC-50",
        layout="esc50",
        classes=50,
        folds=_numbered(5),
        reader=lambda root, _: catalogue.esc50(root),
    ),
    "urbansound8k": DataSet(
        title="UrbanSound8K",
        layout="urbansound8k",
        classes=10,
        folds=_numbered(10),
        reader=lambda root, _: catalogue.urbansound8k(root),
    ),
    "vivae": DataSet(
        title="VIVAE's emotions, a fold for each speaker",
        layout="vivae",
        classes=len(catalogue.EMOTIONS),
        folds=tuple(f"S{speaker:02d}" for speaker in range(1, 12)),
        reader=lambda root, _: catalogue.vivae(root),
    ),
    "speech_commands": DataSet(
        title="Speech Commands v2",
        layout="speech_commands",
        classes=35,
        folds=SPLITS,
        reader=lambda root, _: catalogue.speech_commands(root),
    ),
    "sc09": DataSet(
        title="the ten digits of Speech Commands v2",
        layout="speech_commands",
        classes=len(catalogue.DIGITS),
        folds=SPLITS,
        reader=lambda root, _: catalogue.speech_commands(root, "sc09"),
        subset="sc09",
    ),
    "nsynth_family": DataSet(
        title="NSynth's instrument families",
        layout="nsynth",
        classes=len(catalogue.FAMILIES),
        folds=SPLITS,
        reader=lambda root, splits: catalogue.nsynth(root, "family", splits),
        label="family",
    ),
    "nsynth_pitch": DataSet(
        title="NSynth's pitches",
        layout="nsynth",
        classes=len(catalogue.PITCHES),
        folds=SPLITS,
        reader=lambda root, splits: catalogue.nsynth(root, "pitch", splits),
        label="pitch",
        metrics=("pitch_acc", "chroma_acc"),
    ),
}
assert set(DATA_SETS) == set(get_args(Name))


def of_layout(layout: Layout, subset: Subset | None = None, label: str | None = None) -> DataSet:
    """Return the data set that these settings select; without a label, the first of the layout's labels."""
    return next(
        found
        for found in DATA_SETS.values()
        if (found.layout, found.subset) == (layout, subset) and label in (None, found.label)
    )
