"""The table of data sets agrees with the readers, and settings select from it."""

from pathlib import Path

import pytest

from doppel_ray.data.recordings import RecordingsConfig, catalogue
from doppel_ray.data.recordings.datasets import DATA_SETS, SPLITS, Name, of_layout
from tests.recordings import write_esc50, write_nsynth, write_speech_commands, write_urbansound8k, write_vivae


def written(root: Path, name: Name) -> Path:
    """A small copy of the data set's layout, with all its folds."""
    match DATA_SETS[name].layout:
        case "esc50":
            return write_esc50(root / "esc50", folds=5)
        case "urbansound8k":
            return write_urbansound8k(root)
        case "vivae":
            return write_vivae(root, tuple(f"S{speaker:02d}" for speaker in range(1, 12)))
        case "speech_commands":
            return write_speech_commands(root, (*catalogue.DIGITS, "bed"))
        case "nsynth":
            return write_nsynth(root)


@pytest.mark.parametrize("name", DATA_SETS)
def test_table_and_settings_list_the_same(tmp_path: Path, name: Name) -> None:
    data_set, root = DATA_SETS[name], written(tmp_path, name)
    whole = data_set.read(root)
    assert set(whole.folds) == set(data_set.folds)
    if name in ("vivae", "sc09", "nsynth_family", "nsynth_pitch"):  # the others' classes are those of the copy
        assert len(whole.classes) == data_set.classes
    folds = data_set.folds[:1]
    part = data_set.read(root, folds)
    assert set(part.folds) == set(folds)
    assert part.classes == whole.classes
    settings = RecordingsConfig(
        layout=data_set.layout, root=root, subset=data_set.subset, label=data_set.label, folds=folds
    )
    assert settings.catalogue() == part


def test_of_layout_defaults() -> None:
    """Without subset or label, all of a layout is selected."""
    assert of_layout("esc50") is DATA_SETS["esc50"]
    assert of_layout("nsynth") is DATA_SETS["nsynth_family"]


def test_about_names_classes_and_folds() -> None:
    assert DATA_SETS["urbansound8k"].about == "UrbanSound8K: 10 classes; 10 folds"
    assert DATA_SETS["sc09"].folds == SPLITS
    assert DATA_SETS["sc09"].about.endswith("10 classes; train, valid, test")
