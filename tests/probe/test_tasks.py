"""Probe tasks: what they ask, and what they refuse before anything starts."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from doppel_ray.probe import ProbesConfig
from doppel_ray.probe.tasks import FACTORS, Esc50, Factors
from doppel_ray.section import ConfigError
from tests.recordings import COLUMNS, write_esc50


def refusal(task: Esc50) -> str:
    with pytest.raises(ConfigError) as refused:
        task.check()
    return str(refused.value)


def test_the_factors_task_is_the_same_every_time_however_many_sounds_it_has() -> None:
    once = Factors(count=64).load(16000)
    longer = Factors(count=80).load(16000)
    torch.testing.assert_close(longer.sounds[:64], once.sounds, rtol=0, atol=1e-4)
    for name in FACTORS:
        np.testing.assert_array_equal(longer.targets[name][:64], once.targets[name])


def test_factors_are_in_their_own_units_and_fill_their_ranges() -> None:
    targets = Factors(count=512).load(16000).targets
    for name, (_, low, high) in FACTORS.items():
        assert low <= targets[name].min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < targets[name].max() <= high


def test_factors_are_drawn_independently_of_each_other_and_of_the_folds() -> None:
    examples = Factors(count=512).load(16000)
    columns = np.stack([*examples.targets.values(), examples.folds.astype(float)])
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlation).max() < 0.2


def test_esc50_reads_every_row_and_esc10_those_with_the_flag(esc50_folder: Path) -> None:
    whole, subset = (Esc50(esc50_folder, name).load(16000) for name in ("esc50", "esc10"))
    assert len(whole.sounds) == 24
    assert sorted(np.unique(whole.targets["class"])) == [0, 1, 2]
    assert len(subset.sounds) == 16
    assert sorted(np.unique(subset.targets["class"])) == [0, 1]
    assert sorted(np.unique(subset.folds)) == [1, 2]
    assert set(whole.lengths) == {8000}  # half a second, resampled


def test_a_missing_folder_is_refused_by_name(tmp_path: Path) -> None:
    message = refusal(Esc50(tmp_path / "nowhere"))
    assert str(tmp_path / "nowhere") in message
    assert "there is no such folder" in message


def test_an_empty_folder_is_refused_by_name(tmp_path: Path) -> None:
    message = refusal(Esc50(tmp_path))
    assert str(tmp_path) in message
    assert "meta/esc50.csv is missing" in message


def test_no_folder_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"esc10, which needs its recordings: .* --probes\.root DIR"):
        ProbesConfig(tasks=("esc10",)).check()


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    root = write_esc50(
        tmp_path / "recordings", columns=tuple(name for name in COLUMNS if name not in ("fold", "target"))
    )
    assert "esc50.csv: column fold, target is missing" in refusal(Esc50(root))


def test_a_table_without_a_row_of_the_task_is_refused(esc50_folder: Path) -> None:
    table = esc50_folder / "meta" / "esc50.csv"
    table.write_text(table.read_text().replace("True", "False"))
    assert "no row for esc10" in refusal(Esc50(esc50_folder, "esc10"))


def test_a_single_fold_is_refused(tmp_path: Path) -> None:
    assert "all rows are in fold 1; cross-validation needs at least 2 folds" in refusal(
        Esc50(write_esc50(tmp_path / "recordings", folds=1))
    )


@pytest.mark.parametrize("column", ["fold", "target"])
def test_a_fold_or_class_that_is_no_number_is_refused_before_anything_starts(esc50_folder: Path, column: str) -> None:
    table = esc50_folder / "meta" / "esc50.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[5][column] = "x"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    message = refusal(Esc50(esc50_folder))
    assert str(table) in message
    assert column in message


def test_missing_and_unreadable_files_are_counted_and_named(esc50_folder: Path) -> None:
    (esc50_folder / "audio" / "1-0-A-0.wav").unlink()
    (esc50_folder / "audio" / "2-3-A-1.wav").write_bytes(b"no sound")
    message = refusal(Esc50(esc50_folder))
    assert "2 of 24 files cannot be read" in message
    assert "1-0-A-0.wav" in message
    assert "2-3-A-1.wav" in message
    assert "--probes.unreadable skip" in message


def test_unreadable_files_are_skipped_only_if_asked(esc50_folder: Path) -> None:
    (esc50_folder / "audio" / "1-0-A-0.wav").unlink()
    (esc50_folder / "audio" / "2-3-A-1.wav").write_bytes(b"no sound")
    task = Esc50(esc50_folder, unreadable="skip")
    task.check()
    examples = task.load(16000)
    assert len(examples.sounds) == len(examples.folds) == len(examples.targets["class"]) == 22
    assert [name for skipped in examples.skipped for name in ("1-0-A-0.wav", "2-3-A-1.wav") if name in skipped] == [
        "1-0-A-0.wav",
        "2-3-A-1.wav",
    ]


def test_skipping_all_that_there_is_is_refused(esc50_folder: Path) -> None:
    for file in (esc50_folder / "audio").iterdir():
        file.unlink()
    assert "none of the 24 files can be read" in refusal(Esc50(esc50_folder, unreadable="skip"))


def test_skipping_a_whole_fold_of_two_is_refused(esc50_folder: Path) -> None:
    for file in (esc50_folder / "audio").glob("2-*"):
        file.unlink()
    assert "at least 2 folds" in refusal(Esc50(esc50_folder, unreadable="skip"))


def test_the_real_esc10_has_ten_classes_in_five_folds(esc10: Path) -> None:
    task = Esc50(esc10, "esc10")
    task.check()
    rows = task.rows()
    assert len(rows) == 400
    assert len({row["target"] for row in rows}) == 10
    assert sorted({row["fold"] for row in rows}) == ["1", "2", "3", "4", "5"]
