"""Probe tasks: targets, splits, and what they refuse before anything starts."""

import csv
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from doppel_ray.config.experiment import Experiment, read_experiment
from doppel_ray.config.probes import ProbesConfig
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.score_names import SUFFIXES
from doppel_ray.data import audio_files
from doppel_ray.probe.embed import by_mel_statistics, embed_sounds
from doppel_ray.probe.evaluate import BASELINES
from doppel_ray.probe.protocols import ProtocolConfig, score_embeddings
from doppel_ray.probe.sounds import Recorded
from doppel_ray.probe.task import TaskDataset
from doppel_ray.probe.tasks import FACTORS, TASKS, Factors, Hear, Manifest, Native, Task
from doppel_ray.probe.tasks.listing import rotated
from tests.recordings import (
    COLUMNS,
    write_esc50,
    write_noise,
    write_nsynth,
    write_speech_commands,
    write_table,
    write_urbansound8k,
    write_vivae,
)


def refusal(task: Task) -> str:
    with pytest.raises(ConfigError) as refused:
        task.check()
    return str(refused.value)


def rows_of(root: Path, esc10: bool = False) -> list[dict[str, str]]:
    with (root / "meta" / "esc50.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if not esc10 or row["esc10"] == "True"]


def write_hear(
    root: Path, source: Path, esc10: bool = False, rates: tuple[int, ...] = (48000,), **changes: Any
) -> Path:
    """The recordings of a folder in ESC-50's layout in HEAR's format, with the same audio (whatever its own rate)."""
    rows = rows_of(source, esc10)
    folds = {fold: f"fold{k:02d}" for k, fold in enumerate(sorted({row["fold"] for row in rows}))}
    for fold, part in folds.items():
        inside = [row for row in rows if row["fold"] == fold]
        for rate in rates:
            (root / str(rate) / part).mkdir(parents=True)
            for row in inside:
                shutil.copy(source / "audio" / row["filename"], root / str(rate) / part / row["filename"])
        labels = {row["filename"]: [row["category"]] for row in inside}
        (root / f"{part}.json").write_text(json.dumps(labels))
    names = sorted({row["category"] for row in rows})
    write_table(root / "labelvocabulary.csv", [{"idx": k, "label": name} for k, name in enumerate(names)])
    metadata = {
        "task_name": "esc50",
        "embedding_type": "scene",
        "prediction_type": "multiclass",
        "split_mode": "presplit_kfold",
        "splits": list(folds.values()),
        "evaluation": ["top1_acc", "mAP"],
        "sample_duration": 5.0,
    }
    (root / "task_metadata.json").write_text(json.dumps(metadata | changes))
    return root


def by_file(dataset: TaskDataset) -> dict[str, tuple[str, str]]:
    """File -> its class, and the place of the split that it tests."""
    assert isinstance(dataset.sounds, Recorded)
    spec = dataset.spec
    place = {int(item): k for k, split in enumerate(spec.splits) for item in split.test}
    return {
        path.name: (spec.labels[spec.targets[item]], str(place[item])) for item, path in enumerate(dataset.sounds.paths)
    }


# ---- factors


@pytest.mark.slow
def test_factors_do_not_depend_on_number_of_sounds() -> None:
    once, longer = (Factors(sounds=count).load(16000) for count in (128, 256))
    for item in (0, 64, 127):
        torch.testing.assert_close(longer.sounds.read(item), once.sounds.read(item), rtol=0, atol=1e-4)
    np.testing.assert_array_equal(longer.spec.targets[:128], once.spec.targets)


def test_factors_fill_their_ranges_independently() -> None:
    spec = Factors(sounds=256).load(16000).spec
    assert spec.labels == tuple(FACTORS)
    for values, (_, low, high) in zip(spec.targets.T, FACTORS.values(), strict=True):
        assert low <= values.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < values.max() <= high
    columns = np.column_stack([spec.targets, np.arange(256) % 4])
    assert np.abs(np.corrcoef(columns.T) - np.eye(columns.shape[1])).max() < 0.2


# ---- splits


def test_fold_rotation(tmp_path: Path) -> None:
    spec = Native(kind="urbansound8k", root=write_urbansound8k(tmp_path)).load(16000).spec
    assert [split.name for split in spec.splits] == [f"fold_{fold}" for fold in range(1, 11)]
    for split, following in zip(spec.splits, [*spec.splits[1:], spec.splits[0]], strict=True):
        np.testing.assert_array_equal(split.valid, following.test)
        assert sorted([*split.train, *split.valid, *split.test]) == list(range(20))


def test_two_folds_have_no_validation_fold(esc50_folder: Path) -> None:
    for split in Native(kind="esc50", root=esc50_folder).load(16000).spec.splits:
        assert (len(split.train), len(split.valid), len(split.test)) == (12, 0, 12)


def test_test_folds_as_numbers(tmp_path: Path) -> None:
    probes = ProbesConfig.model_validate({"tasks": ["esc10", "factors"], "root": tmp_path, "test_folds": [2]})
    write_esc50(tmp_path / "again", folds=3)
    task = probes.build()[0].model_copy(update={"root": tmp_path / "again"})
    assert [split.name for split in task.load(16000).spec.splits] == ["fold_2"]
    unknown = Native(kind="esc10", root=tmp_path / "again", test_folds=("7",))
    assert "esc10: test_folds has 7; the folds are 1, 2, 3" in refusal(unknown)


def test_vivae_splits_by_speaker(tmp_path: Path) -> None:
    dataset = Native(kind="vivae", root=write_vivae(tmp_path)).load(16000)
    assert isinstance(dataset.sounds, Recorded)
    speakers = np.array([path.name[:3] for path in dataset.sounds.paths])
    for split in dataset.spec.splits:
        assert not set(speakers[split.test]) & set(speakers[[*split.train, *split.valid]])
    assert [split.name for split in dataset.spec.splits] == ["fold_S01", "fold_S02", "fold_S11"]


# ---- native layouts


def test_esc50_and_esc10_rows(esc50_folder: Path) -> None:
    whole, subset = (Native(kind=kind, root=esc50_folder).load(16000) for kind in ("esc50", "esc10"))
    assert (len(whole.sounds), len(whole.spec.labels)) == (24, 3)
    assert (len(subset.sounds), len(subset.spec.labels)) == (16, 2)
    assert len(subset.sounds.read(0)) == 8000  # half a second, resampled
    assert subset.spec.metrics == ("accuracy",)


def test_real_esc10(esc10: Path) -> None:
    task = Native(kind="esc10", root=esc10)
    task.check()
    spec = task.load(16000).spec
    assert [len(split.test) for split in spec.splits] == [80] * 5
    assert Counter(spec.targets.tolist()) == dict.fromkeys(range(10), 40)


@pytest.mark.parametrize(
    ("kind", "labels", "metrics"),
    [
        ("speech_commands", ("bed", "eight", "five", "four", "nine", "one"), ("accuracy",)),
        ("sc09", ("zero", "one", "two"), ("accuracy",)),
        ("nsynth_family", ("bass", "brass"), ("accuracy",)),
        ("nsynth_pitch", ("36", "60"), ("pitch_acc", "chroma_acc")),
    ],
)
def test_official_splits(kind: str, labels: tuple[str, ...], metrics: tuple[str, ...], tmp_path: Path) -> None:
    digits = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    root = write_nsynth(tmp_path) if "nsynth" in kind else write_speech_commands(tmp_path, (*digits, "bed"))
    task = Native.model_validate({"kind": kind, "root": root})
    task.check()
    spec = task.load(16000).spec
    assert spec.labels[: len(labels)] == labels
    assert spec.metrics == metrics
    (split,) = spec.splits
    assert split.name == "test"
    assert len(split.train) == len(split.valid) == len(split.test) > 0
    for part in (split.train, split.valid, split.test):
        assert len(set(spec.targets[part])) == len(part)


# ---- HEAR's format


def test_hear_copy_of_esc50(tmp_path: Path) -> None:
    source = write_esc50(tmp_path / "esc", folds=3)
    native = Native(kind="esc50", root=source).load(16000)
    hear = Hear(root=write_hear(tmp_path / "esc50-v2.0.0-full", source))
    hear.check()
    copy = hear.load(16000)
    assert hear.name == "esc50-v2.0.0-full"
    assert copy.spec.metrics == ("top1_acc", "mAP")
    assert [split.name for split in copy.spec.splits] == ["fold_00", "fold_01", "fold_02"]
    assert by_file(copy) == by_file(native)
    for one, other in zip(copy.spec.splits, native.spec.splits, strict=True):
        np.testing.assert_array_equal(one.valid, other.valid)
    for item in range(len(native.sounds)):
        torch.testing.assert_close(copy.sounds.read(item), native.sounds.read(item), rtol=0, atol=0)


@pytest.mark.slow
def test_hear_copy_of_real_esc10(tmp_path: Path, esc10: Path) -> None:
    copy = Hear(root=write_hear(tmp_path / "esc10", esc10, esc10=True)).load(16000)
    native = Native(kind="esc10", root=esc10).load(16000)
    assert len(copy.sounds) == 400
    assert by_file(copy) == by_file(native)
    torch.testing.assert_close(copy.sounds.read(399), native.sounds.read(399), rtol=0, atol=0)
    assert mel_score(copy) == pytest.approx(mel_score(native), abs=1e-6)


def mel_score(task: TaskDataset) -> float:
    """Accuracy of mel statistics."""
    vectors = embed_sounds(task.sounds, range(len(task.sounds)), by_mel_statistics(16000))
    return score_embeddings(ProtocolConfig(), vectors, task.spec)[task.spec.metrics[0]]


@pytest.mark.parametrize(("wanted", "read"), [(16000, "16000"), (22050, "48000"), (8000, "16000"), (96000, "48000")])
def test_hear_sample_rate_choice(tmp_path: Path, wanted: int, read: str) -> None:
    root = write_hear(tmp_path / "task", write_esc50(tmp_path / "esc"), rates=(16000, 48000))
    sounds = Hear(root=root).load(wanted).sounds
    assert isinstance(sounds, Recorded)
    assert {path.parent.parent.name for path in sounds.paths} == {read}


def test_hear_multilabel_task(tmp_path: Path) -> None:
    root = tmp_path / "fsd"
    labels = {"train": [["3", 5], ["5"], [3]], "valid": [["3"]], "test": [["5"], []]}
    for part, answers in labels.items():
        found = {f"{k}.wav": answer for k, answer in enumerate(answers)}
        for name in found:
            write_noise(root / "16000" / part / name)
        root.mkdir(exist_ok=True)
        (root / f"{part}.json").write_text(json.dumps(found))
    write_table(root / "labelvocabulary.csv", [{"idx": 1, "label": 5}, {"idx": 0, "label": 3}])
    metadata = {"embedding_type": "scene", "prediction_type": "multilabel", "split_mode": "trainvaltest"}
    (root / "task_metadata.json").write_text(json.dumps({**metadata, "evaluation": ["mAP", "d_prime", "aucroc"]}))
    spec = Hear(root=root).load(16000).spec
    assert (spec.kind, spec.labels) == ("multilabel", ("3", "5"))
    assert spec.targets.tolist() == [
        [True, True],
        [False, True],
        [True, False],
        [True, False],
        [False, True],
        [False] * 2,
    ]
    assert [split.test.tolist() for split in spec.splits] == [[4, 5]]
    (root / "valid.json").unlink()
    assert "valid.json: No such file or directory" in refusal(Hear(root=root))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("task_metadata.json", {"embedding_type": "event"}, "embedding_type is event (labels in time); expected scene"),
        ("task_metadata.json", {"prediction_type": "song"}, "prediction_type is 'song': expected 'multiclass'"),
        ("task_metadata.json", {"splits": None}, "neither splits nor nfolds is set"),
        ("task_metadata.json", {"splits": ["fold00", "fold07"]}, "fold07.json: No such file"),
        (
            "task_metadata.json",
            {"evaluation": ["event_fms"]},
            "there is no 'event_fms'; a multiclass task has",
        ),
        ("task_metadata.json", {"evaluation": ["pitch_acc"]}, "is not a MIDI note"),
        ("task_metadata.json", "{", "is not JSON"),
        ("fold00.json", "[]", "expected names with values, found list"),
        ("fold00.json", "{}", "fold00.json: no files"),
        ("fold00.json", '{"a.wav": ["tone_7"]}', "1 label not among the 3 classes: 'tone_7' (1); did you mean tone_"),
        ("fold00.json", '{"a.wav": []}', "1 file without exactly one label: a.wav ()"),
        ("labelvocabulary.csv", "idx,name\n0,a\n", "no column label; it has idx, name"),
        ("labelvocabulary.csv", "idx,label\n1,a\n", "expected idx from 0 on, each once; found 1"),
    ],
)
def test_faults_of_a_hear_task_are_named(tmp_path: Path, file: str, content: Any, message: str) -> None:
    source = write_esc50(tmp_path / "esc")
    root = write_hear(tmp_path / "task", source, **(content if isinstance(content, dict) else {}))
    if isinstance(content, str):
        (root / file).write_text(content)
    told = refusal(Hear(root=root))
    assert "probes.tasks, task: " in told
    assert message in told


# ---- manifests

LABELS = [{"path": f"{k}.wav", "label": "dog" if k % 2 else "cat"} for k in range(20)]


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[..., Manifest]:
    def write(rows: list[dict[str, Any]], kind: str = "csv", **settings: Any) -> Manifest:
        for k in range(20):
            write_noise(tmp_path / f"{k}.wav", seconds=0.01)
        return Manifest(root=write_table(tmp_path / f"my sounds.{kind}", rows), **settings)

    return write


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_manifest_without_folds_is_stratified(manifest: Callable[..., Manifest], kind: str) -> None:
    task = manifest(LABELS, kind)
    task.check()
    assert task.name == "my-sounds"
    first, again = by_file(task.load(16000)), by_file(manifest(LABELS[::-1], kind).load(16000))
    assert first == again
    assert Counter(first.values()) == {(label, str(fold)): 2 for label in ("cat", "dog") for fold in range(5)}
    assert task.load(16000).spec.metrics == ("accuracy",)


@pytest.mark.parametrize("names", [("train", "valid", "test"), ("Training", "val", "testing")])
def test_manifest_with_splits(manifest: Callable[..., Manifest], names: tuple[str, ...]) -> None:
    task = manifest([row | {"split": names[min(k // 8, 2)]} for k, row in enumerate(LABELS)])
    task.check()
    (split,) = task.load(16000).spec.splits
    assert (split.name, len(split.train), len(split.valid), len(split.test)) == ("test", 8, 8, 4)


def test_manifest_label_columns(manifest: Callable[..., Manifest]) -> None:
    rows = [
        {"path": f"{k}.wav", "a": k % 2, "b": float(k < 10), "tags": ";".join(["a"] * (k % 2) + ["b"] * (k < 10))}
        for k in range(20)
    ]
    columns = manifest(rows, "parquet", target="multilabel", label_columns=("a", "b")).load(16000).spec
    one = manifest(rows, target="multilabel", label_columns="tags").load(16000).spec
    assert columns.labels == one.labels == ("a", "b")
    np.testing.assert_array_equal(columns.targets, one.targets)
    assert columns.targets.dtype == bool
    for split, other in zip(columns.splits, one.splits, strict=True):
        np.testing.assert_array_equal(split.test, other.test)


def test_manifest_of_values(manifest: Callable[..., Manifest]) -> None:
    rows = [{"path": f"{k}.wav", "loudness": k / 7, "pitch": -k, "fold": "ab"[k % 2]} for k in range(20)]
    task = manifest(rows, target="regression", label_columns=("loudness", "pitch"))
    task.check()
    spec = task.load(16000).spec
    assert (spec.kind, spec.labels, spec.metrics) == ("regression", ("loudness", "pitch"), ("score",))
    assert sorted(spec.targets[:, 1]) == sorted(-np.arange(20))
    assert [split.name for split in spec.splits] == ["fold_a", "fold_b"]


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([{"file": "a.wav", "label": "x"}], {}, "no column path; it has file, label"),
        ([{"path": "a.wav"}], {}, "no column label; it has path"),
        (LABELS, {"fold_column": "part"}, "no column part; it has path, label"),
        ([*LABELS, {"path": "", "label": "dog"}], {}, "row 21 (dog) has no path"),
        ([*LABELS, {"path": "x.wav", "label": ""}], {}, "row 21 (x.wav) has no label"),
        ([*LABELS, LABELS[0]], {}, "1 file listed more than once"),
        ([row | {"fold": 1} for row in LABELS], {}, "all 20 files are in fold 1; cross-validation needs at least 2"),
        ([row | {"fold": k or ""} for k, row in enumerate(LABELS)], {}, "row 1 (0.wav) has no fold"),
        ([row | {"split": "train"} for row in LABELS], {}, "no file is in split test; found train"),
        (
            [row | {"split": "ab"[k % 2] if k else "train"} for k, row in enumerate(LABELS)],
            {},
            "unknown split a, b",
        ),
        (
            [row | {"label": "x"} for row in LABELS],
            {},
            "fold_1: all 16 files to fit are x; expected at least 2 classes",
        ),
        (LABELS, {"target": "regression"}, "20 cells not a number: label of 0.wav is 'cat'"),
        (LABELS, {"target": "multilabel", "label_columns": ("label", "path")}, "40 cells not 0 or 1"),
        (LABELS, {"label_columns": ("label", "path")}, "label_columns has 2 columns; a multiclass target has one"),
        (LABELS, {"metrics": ("mAPP",)}, "there is no 'mAPP'; a multiclass task has"),
        ([row | {"label": 1} for row in LABELS], {"target": "regression"}, "fold_1: label is 1 in all 4 files"),
    ],
)
def test_faults_of_a_manifest_are_named(
    manifest: Callable[..., Manifest], rows: list[dict[str, Any]], settings: dict[str, Any], message: str
) -> None:
    assert message in refusal(manifest(rows, **settings))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("score", "'score' is the name of a score"),
        ("score_low", "ends in _low"),
        ("x_low", "ends in _low"),
        ("x_high", "ends in _high"),
        ("score_valid", "ends in _valid"),
        ("x_mel", "ends in _mel"),
        ("x_untrained", "ends in _untrained"),
        ("f0/hz", "has a slash"),
        ("[red]", "a bracket"),
    ],
)
def test_names_that_cannot_be_columns_of_scores(manifest: Callable[..., Manifest], name: str, message: str) -> None:
    """A value or fold whose scores would be lost, or fail a probe, is refused with its name before audio is opened."""
    rows = [{"path": f"gone/{k}.wav", name: k / 7} for k in range(20)]
    told = refusal(manifest(rows, target="regression", label_columns=name))
    assert repr(name) in told
    assert message in told
    folds = [row | {"fold": name if k % 2 else "b"} for k, row in enumerate(LABELS)]
    if name != "score":  # fold_score is no score's name
        assert message in refusal(manifest(folds))
    manifest([row | {"label": name if k % 2 else "b"} for k, row in enumerate(LABELS)]).check()


def test_suffixes_of_scores_cover_the_baselines() -> None:
    assert {f"_{kind}" for kind in BASELINES} < set(SUFFIXES)


def test_a_column_given_twice_is_refused(manifest: Callable[..., Manifest]) -> None:
    rows = [{"path": f"{k}.wav", "x": k} for k in range(20)]
    assert "label_columns has a column twice: x, x" in refusal(
        manifest(rows, target="regression", label_columns=("x", "x"))
    )


def test_missing_or_empty_table_is_refused(tmp_path: Path) -> None:
    assert "there is no such file" in refusal(Manifest(root=tmp_path / "gone.csv"))
    (tmp_path / "none.csv").write_text("path,label\n")
    assert "no rows" in refusal(Manifest(root=tmp_path / "none.csv"))


def test_class_gaps_are_logged_and_scored(manifest: Callable[..., Manifest], caplog: pytest.LogCaptureFixture) -> None:
    rows = [row | {"split": "train" if k < 12 else "test"} for k, row in enumerate(LABELS)]
    rows[0]["label"], rows[19]["label"] = "owl", "fox"
    manifest(rows).check()
    assert "1 of 4 classes tested, but not in training: fox (1)" in caplog.text
    assert "1 of 4 classes never tested: owl (1)" in caplog.text


def test_class_missing_from_validation_is_named(
    manifest: Callable[..., Manifest], caplog: pytest.LogCaptureFixture
) -> None:
    """A warning names the class, and says what is done; of one class alone, that a tenth is taken instead."""
    labels = ["cat", "cat", "dog", "dog", "owl"] * 4
    parts = ["train"] * 10 + ["valid"] * 5 + ["test"] * 5
    rows = [row | {"label": label, "split": part} for row, label, part in zip(LABELS, labels, parts, strict=True)]
    rows[14]["label"] = "dog"
    manifest(rows).check()
    assert (
        "1 of 3 classes missing from the validation examples, whose score is that of the other classes: owl"
        in caplog.text
    )
    caplog.clear()
    for row in rows[10:15]:
        row["label"] = "cat"
    manifest(rows).check()
    assert "test: all 5 validation examples have the same classes (cat); a stratified tenth of" in caplog.text


def test_validation_fold_is_not_among_the_test_folds() -> None:
    """The next fold validates, as HEAR has it; with some folds tested alone, the next of the others."""
    folds = list("12345" * 4)
    given = {
        tested: {s.name: set(np.array(folds)[s.valid]) for s in rotated(folds, tested)} for tested in (None, "5", "45")
    }
    assert given[None] == {"fold_1": {"2"}, "fold_2": {"3"}, "fold_3": {"4"}, "fold_4": {"5"}, "fold_5": {"1"}}
    assert given["5"]["fold_5"] == {"1"}
    assert (given["45"]["fold_4"], given["45"]["fold_5"]) == ({"1"}, {"1"})


def test_empty_class_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_speech_commands(tmp_path, ("bed", "cat", "dog"))
    for name in ("validation", "testing"):
        file = root / f"{name}_list.txt"
        file.write_text("".join(line for line in file.read_text().splitlines(keepends=True) if "dog/" not in line))
    shutil.rmtree(root / "dog")
    (root / "dog").mkdir()
    Native(kind="speech_commands", root=root).check()
    assert "1 of 3 classes without any file: dog (0)" in caplog.text


# ---- files


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    for kind in ("esc50", "urbansound8k", "vivae", "sc09", "nsynth_pitch", "hear"):
        (task,) = ProbesConfig.model_validate({"tasks": [{"kind": kind, "root": tmp_path / "nowhere"}]}).tasks
        assert f"{tmp_path / 'nowhere'}: there is no such folder; expected" in refusal(task)


def test_unset_folder_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"esc10: the folder of its recordings is not set: .* --probes\.root DIR"):
        ProbesConfig.model_validate({"tasks": ["esc10"]}).check()


def test_missing_column_is_named(tmp_path: Path) -> None:
    columns = tuple(name for name in COLUMNS if name not in ("fold", "target"))
    root = write_esc50(tmp_path / "recordings", columns=columns)
    assert "esc50.csv: no column target, fold; it has filename, category" in refusal(Native(kind="esc50", root=root))


def test_table_without_rows_of_the_task_is_refused(esc50_folder: Path) -> None:
    table = esc50_folder / "meta" / "esc50.csv"
    table.write_text(table.read_text().replace("True", "False"))
    assert "no row for esc10" in refusal(Native(kind="esc10", root=esc50_folder))


@pytest.mark.parametrize("column", ["fold", "target"])
def test_fold_or_class_that_is_not_a_number_is_refused(esc50_folder: Path, column: str) -> None:
    rows = rows_of(esc50_folder)
    rows[5][column] = "x"
    table = write_table(esc50_folder / "meta" / "esc50.csv", rows)
    message = refusal(Native(kind="esc50", root=esc50_folder))
    assert f"{table}: row 6: {column} of {rows[5]['filename']} is 'x'; expected a whole number" in message


def test_unreadable_files_are_refused_or_skipped(esc50_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (esc50_folder / "audio" / "1-0-A-0.wav").unlink()
    (esc50_folder / "audio" / "2-3-A-1.wav").write_bytes(b"no sound")
    message = refusal(Native(kind="esc50", root=esc50_folder))
    assert "2 of 24 files cannot be read" in message
    assert "1-0-A-0.wav: no such file" in message
    assert "2-3-A-1.wav" in message
    assert "--probes.unreadable skip" in message
    Native(kind="esc50", root=esc50_folder, unreadable="skip").check()
    assert "2 of 24 files are left out" in caplog.text


@pytest.mark.parametrize("cache", [0.0, 1.0])
def test_files_damaged_inside_are_found_by_the_check(
    manifest: Callable[..., Manifest],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    cache: float,
) -> None:
    """Headers and last frames of these are whole: only decoding finds them. What is decoded is kept for the probes."""
    monkeypatch.setenv("DOPPEL_RAY_CACHE", str(tmp_path / "cache"))
    task = manifest([row | {"path": row["path"].replace("wav", "flac")} for row in LABELS])
    assert task.root is not None
    for k in range(20):
        write_noise(task.root.parent / f"{k}.flac", seconds=2.0, seed=k)
    damaged = [task.root.parent / "3.flac", task.root.parent / "7.flac"]
    for file in damaged:
        data = bytearray(file.read_bytes())
        data[len(data) // 4 : len(data) // 4 + 2000] = bytes(2000)
        file.write_bytes(data)
    assert not audio_files.scan(damaged)
    for _ in range(2):
        with pytest.raises(ConfigError, match="2 of 20 files cannot be read") as refused:
            task.check(16000, cache)
        assert "3.flac" in str(refused.value)
        assert "7.flac" in str(refused.value)
    task = task.model_copy(update={"unreadable": "skip"})
    task.check(16000, cache)
    assert "2 of 20 files are left out" in caplog.text
    if cache:
        for path in task.files(16000):  # with the same sizes and times
            times = path.stat().st_mtime_ns
            path.write_bytes(bytes(path.stat().st_size))
            os.utime(path, ns=(times, times))
        assert torch.isfinite(task.load(16000, cache).sounds.read(0)).all()


def test_skipping_all_files_is_refused(esc50_folder: Path) -> None:
    task = Native(kind="esc50", root=esc50_folder, unreadable="skip")
    for file in (esc50_folder / "audio").glob("2-*"):
        file.unlink()
    assert "all 12 files are in fold 1; cross-validation needs at least 2 folds" in refusal(task)
    for file in (esc50_folder / "audio").iterdir():
        file.unlink()
    assert "none of the 24 files can be read" in refusal(task)


def test_loading_opens_no_file(esc50_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_files, "opened", None)
    monkeypatch.setattr(audio_files, "duration", None)
    assert len(Native(kind="esc50", root=esc50_folder).load(16000, cache=1.0).sounds) == 24


# ---- entries of probes.tasks


def test_tasks_are_kinds_or_mappings(tmp_path: Path) -> None:
    for text in ("[esc10, factors]", "esc10,factors", "[{kind: esc10}, {kind: factors, sounds: 1024}]"):
        tasks = read_experiment(None, {"probes.tasks": text}).probes.tasks
        assert tasks == (Native(kind="esc10"), Factors()), text
    assert read_experiment(None, {"probes.tasks": "[]"}).probes.tasks == ()
    text = f"[{{kind: hear, root: {tmp_path}/libricount-v1.0.0, test_folds: [1]}}, {{kind: manifest, root: my.csv}}]"
    hear, manifest = read_experiment(None, {"probes.tasks": text}).probes.tasks
    assert (hear.name, manifest.name) == ("libricount-v1.0.0", "my")


def test_every_kind_of_task_survives_yaml() -> None:
    tasks = [{"kind": kind} for kind in TASKS] + [{"kind": "hear", "root": "a/b", "test_folds": [1, 2], "name": "c"}]
    experiment = Experiment.model_validate({"probes": {"tasks": tasks}})
    again = Experiment.model_validate(yaml.safe_load(yaml.safe_dump(experiment.plain())))
    assert again == experiment
    assert [hash(task) for task in again.probes.tasks] == [hash(task) for task in experiment.probes.tasks]
    assert str(experiment.with_absolute_paths().probes.tasks[-1].model_dump()["root"]) == str(Path("a/b").absolute())


def test_entries_inherit_from_probes(tmp_path: Path) -> None:
    tasks = ["esc10", {"kind": "esc50", "root": "other", "unreadable": "refuse"}]
    probes = {"tasks": tasks, "root": tmp_path, "unreadable": "skip", "test_folds": [5]}
    first, second = ProbesConfig.model_validate(probes).build()
    assert first == Native(kind="esc10", name="esc10", root=tmp_path, unreadable="skip", test_folds=("5",))
    assert second == Native(kind="esc50", root=Path("other"), unreadable="refuse", test_folds=("5",))


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("[esc11]", "probes.tasks.0 is 'esc11': there is no task 'esc11'; expected one of factors, esc10"),
        ("[esc11]", "did you mean esc1"),
        ("[{kind: hera, root: x}]", "there is no task 'hera'"),
        ("[{root: x}]", "there is no task None"),
        ("[3]", "there is no task None"),
        ("[esc10, esc10]", "two tasks have the name 'esc10'"),
        ("[{kind: esc50, name: esc10}, esc10]", "two tasks have the name 'esc10'"),
        ("[{kind: esc10, name: a/b}]", "probes.tasks.0.name is 'a/b'"),
        ("[{kind: factors, root: x}]", "probes.tasks.0.root: unknown key"),
        ("[{kind: factors, sounds: 64}]", "probes.tasks.0.sounds is 64: expected at least 128"),
        ("[{kind: hear, target: regression}]", "probes.tasks.0.target: unknown key"),
        ("[{kind: manifest, target: song}]", "probes.tasks.0.target is 'song'"),
    ],
)
def test_faulty_entry_is_refused_with_its_position(tasks: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_experiment(None, {"probes.tasks": tasks})
    assert message in str(refused.value)


def test_unfit_metric_of_factors_is_refused() -> None:
    assert "factors: metrics: 'accuracy' is for multiclass tasks; a regression task has score" in refusal(
        Factors(metrics=("accuracy",))
    )
