"""A catalogue lists what its source has, with the source's own classes and splits, in one order everywhere."""

import json
from collections import Counter
from pathlib import Path

import pytest

from doppel_ray.core.errors import ConfigError
from doppel_ray.data.recordings import catalogue
from tests.recordings import (
    write_esc50,
    write_noise,
    write_nsynth,
    write_speech_commands,
    write_table,
    write_urbansound8k,
    write_vivae,
)

ROWS = [
    {"path": "b/two.wav", "label": "dog", "split": "train"},
    {"path": "one.wav", "label": "cat", "split": "test"},
    {"path": "a/three.wav", "label": "", "split": "train"},
]


def test_folder_lists_audio_sorted_by_path(tmp_path: Path) -> None:
    for name in ("b/z.wav", "b/a.WAV", "a.flac", "c.wav", ".hidden.wav"):
        write_noise(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no sound")
    found = catalogue.folder(tmp_path)
    assert found.paths == ("a.flac", "b/a.WAV", "b/z.wav", "c.wav")
    assert set(found.labels) == {catalogue.UNLABELLED}
    assert found.classes == ()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_manifest_paths_labels_and_splits(tmp_path: Path, kind: str) -> None:
    found = catalogue.manifest(write_table(tmp_path / f"list.{kind}", ROWS))
    assert found.paths == ("a/three.wav", "b/two.wav", "one.wav")
    assert found.classes == ("cat", "dog")
    assert found.labels == (catalogue.UNLABELLED, 1, 0)
    assert found.of_folds(["train"]).paths == ("a/three.wav", "b/two.wav")
    assert found.absent() == list(found.paths)
    write_noise(tmp_path / "b/two.wav")
    assert found.absent() == ["a/three.wav", "one.wav"]


def test_manifest_column_names_and_absolute_paths(tmp_path: Path) -> None:
    """Columns may have any name, and paths may be absolute."""
    rows = [{"file": str(tmp_path / "far" / f"{k}.wav"), "midi": k, "part": k % 2} for k in (9, 10)]
    found = catalogue.manifest(write_table(tmp_path / "list.parquet", rows), "file", "midi", "part")
    assert found.classes == ("9", "10")
    assert found.of_folds(["1"]).path(0) == tmp_path / "far" / "9.wav"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"file": "a.wav"}], "no column path; it has file"),
        (
            [{"path": "a.wav", "label": "dgo"}],
            r"list\.csv: 1 label not among the 2 classes: 'dgo' \(1\); did you mean dog",
        ),
        ([{"path": "", "label": "dog"}], r"row 1 \(dog\) has no path"),
    ],
)
def test_faulty_manifest_is_refused(tmp_path: Path, rows: list[dict[str, str]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        catalogue.manifest(write_table(tmp_path / "list.csv", rows), classes=("cat", "dog"))


def test_esc50_and_esc10_classes(tmp_path: Path) -> None:
    """Both number their classes from 0."""
    root = write_esc50(tmp_path / "esc50")
    found = catalogue.esc50(root)
    assert (len(found), found.classes) == (24, ("tone_0", "tone_1", "tone_2"))
    assert Counter(found.folds) == {"1": 12, "2": 12}
    assert found.absent() == []
    for item in range(len(found)):
        assert found.paths[item].endswith(f"-{found.labels[item]}.wav")
    assert catalogue.esc50(root, "esc10").classes == ("tone_0", "tone_1")


def test_real_esc10_folds_and_classes(esc10: Path) -> None:
    found = catalogue.esc50(esc10, "esc10")
    assert Counter(found.folds) == dict.fromkeys("12345", 80)
    assert Counter(found.labels) == dict.fromkeys(range(10), 40)
    assert found.classes[0] == "dog"
    assert found.absent() == []


def test_urbansound8k_folds(tmp_path: Path) -> None:
    found = catalogue.urbansound8k(write_urbansound8k(tmp_path))
    assert (len(found), found.classes) == (20, ("air_conditioner", "siren"))
    assert Counter(found.folds) == dict.fromkeys(map(str, range(1, 11)), 2)
    assert found.absent() == []
    assert [found.folds[item] for item in range(20) if "/fold10/" in found.paths[item]] == ["10", "10"]


def test_vivae_classes_and_folds(tmp_path: Path) -> None:
    """Emotions are classes, and speakers are folds."""
    found = catalogue.vivae(write_vivae(tmp_path))
    assert found.classes == catalogue.EMOTIONS
    assert Counter(found.folds) == dict.fromkeys(("S01", "S02", "S11"), 12)
    assert Counter(found.labels) == dict.fromkeys(range(6), 6)
    assert found.absent() == []
    flat = catalogue.vivae(tmp_path / "full_set")
    assert (flat.labels, flat.folds) == (found.labels, found.folds)


def test_speech_commands_splits_and_digits(tmp_path: Path) -> None:
    root = write_speech_commands(tmp_path, (*catalogue.DIGITS, "bed"))
    found = catalogue.speech_commands(root)
    assert (len(found), len(found.classes)) == (33, 11)
    assert Counter(found.folds) == {"train": 11, "valid": 11, "test": 11}
    digits = catalogue.speech_commands(root, "sc09")
    assert digits.classes == catalogue.DIGITS
    assert digits.paths[0] == "eight/a_nohash_0.wav"
    assert digits.labels[0] == 8


def test_nsynth_labels(tmp_path: Path) -> None:
    root = write_nsynth(tmp_path)
    found = catalogue.nsynth(root, splits=["train", "valid"])
    assert Counter(found.folds) == {"train": 2, "valid": 2}
    assert found.labels == (0, 6, 0, 6)
    assert catalogue.nsynth(root, "pitch").labels[:2] == (36, 60)
    assert catalogue.nsynth(root).absent() == []


def test_missing_parts_of_a_layout_are_named(tmp_path: Path) -> None:
    def refused(attempt: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            getattr(catalogue, attempt)(tmp_path)

    for layout in ("esc50", "urbansound8k", "vivae", "speech_commands", "nsynth", "folder"):
        with pytest.raises(ConfigError, match="gone: there is no such folder; expected"):
            getattr(catalogue, layout)(tmp_path / "gone")
    refused("folder", "no audio files in or below it")
    refused("manifest", "expected a file that ends in .csv, .tsv or .parquet")
    refused("esc50", r"esc50\.csv: there is no such file")
    refused("urbansound8k", r"UrbanSound8K\.csv: there is no such file")
    refused("vivae", "no WAV files in it; expected VIVAE's layout")
    refused("speech_commands", "no folder for any word")
    refused("nsynth", "no folder nsynth-train")

    write_noise(tmp_path / "S01_anger_low.wav")
    refused("vivae", r"1 file not named <speaker>_<emotion>_<intensity>_<number>\.wav: S01_anger_low\.wav")
    (tmp_path / "S01_anger_low.wav").rename(tmp_path / "S01_joy_low_01.wav")
    refused("vivae", r"1 label not among the 6 classes: 'joy' \(1\)")

    write_speech_commands(tmp_path, ("bed", "cat"))
    (tmp_path / "cat" / "b_nohash_0.wav").unlink()
    refused("speech_commands", r"validation_list\.txt: 1 file listed, but not there: cat/b_nohash_0\.wav")
    (tmp_path / "testing_list.txt").unlink()
    refused("speech_commands", r"testing_list\.txt is missing")

    write_nsynth(tmp_path)
    index = tmp_path / "nsynth-test" / "examples.json"
    index.write_text(json.dumps({"a": {"instrument_family_str": "kazoo"}}))
    refused("nsynth", "1 label not among the 11 classes: 'kazoo'")
    index.write_text("{")
    refused("nsynth", r"examples\.json is not NSynth's index")


def test_unknown_fold_is_refused(esc50_folder: Path) -> None:
    with pytest.raises(ConfigError, match="no recording is in fold '3'; there are 1, 2"):
        catalogue.esc50(esc50_folder).of_folds(["3"])


def test_partly_labelled_fractions_are_nested(esc10: Path) -> None:
    """A fraction of each class keeps its labels, and a larger fraction keeps those too."""
    whole = catalogue.esc50(esc10, "esc10")
    kept: set[int] = set()
    for fraction, count in ((0.0, 0), (0.01, 1), (0.1, 4), (0.2, 8), (1.0, 40)):
        partly = whole.partly_labelled(fraction, seed=3)
        labelled = {item for item, label in enumerate(partly.labels) if label != catalogue.UNLABELLED}
        assert Counter(partly.labels[item] for item in labelled) == (dict.fromkeys(range(10), count) if count else {})
        assert labelled >= kept
        kept = labelled
    assert whole.partly_labelled(0.1, seed=3) == whole.partly_labelled(0.1, seed=3)
    assert whole.partly_labelled(0.1, seed=3) != whole.partly_labelled(0.1, seed=4)
