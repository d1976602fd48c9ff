"""Recordings that a probe tests on are found among the training recordings, under any name and path."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from doppel_ray.cluster import experiment_checks
from doppel_ray.config.experiment import Experiment, validate_experiment
from doppel_ray.core.errors import ConfigError
from doppel_ray.probe.overlap import shared
from doppel_ray.runs import folder as run_folder
from doppel_ray.runs.reader import read
from tests.recordings import write_noise


def experiment(source: dict[str, Any], objective: str = "cross_entropy", **more: Any) -> Experiment:
    plain: dict[str, Any] = {
        "source": {"mix": {"recordings": 1.0}, "recordings": source},
        "objective": {"kind": objective},
        **more,
    }
    return validate_experiment(plain)


def esc50(root: Path, **more: Any) -> dict[str, Any]:
    return {"layout": "esc50", "root": str(root), **more}


def probes(root: Path, **more: Any) -> dict[str, Any]:
    return {"tasks": ["esc50"], "root": str(root), **more}


def test_copies_are_found_by_content(tmp_path: Path) -> None:
    tested = [tmp_path / "test" / f"{k}.wav" for k in range(4)]
    for k, path in enumerate(tested):
        write_noise(path, seed=k)  # all of one size and length
    trained = [tmp_path / "train" / name for name in ("copy.wav", "copy.flac", "link.wav", "hard.wav", "other.wav")]
    write_noise(trained[4], seed=9)
    shutil.copy(tested[0], trained[0])
    soundfile.write(trained[1], soundfile.read(tested[1])[0], 16000)
    trained[2].symlink_to(tested[2])
    os.link(tested[3], trained[3])
    assert shared(trained, tested) == dict(zip(trained, tested, strict=False))
    assert shared(tested[:2], tested[2:]) == {}


def test_different_silent_and_damaged_files_do_not_match(tmp_path: Path) -> None:
    write_noise(tmp_path / "a.wav")
    sound, rate = soundfile.read(tmp_path / "a.wav")
    sound[0] += 0.01
    soundfile.write(tmp_path / "b.wav", sound, rate)
    for name in "cd":
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(8000), rate)
    (tmp_path / "e.wav").write_text("no sound")
    (tmp_path / "f.wav").write_text("no sound")
    trained, tested = ([tmp_path / f"{name}.wav" for name in names] for names in ("aceg", "bdfh"))
    assert shared(trained, tested) == {}


@pytest.mark.parametrize("mine", ["same folder", "copy"])
def test_training_on_test_labels_is_refused(esc50_folder: Path, tmp_path: Path, mine: str) -> None:
    source = esc50_folder
    if mine == "copy":
        source = Path(shutil.copytree(esc50_folder, tmp_path / "copy"))
    with pytest.raises(ConfigError, match=r"24 of 24 recordings are test examples of probes\.tasks esc50") as refused:
        experiment_checks.check_overlap(experiment(esc50(source), probes=probes(esc50_folder)))
    assert "objective.kind cross_entropy trains on 24 of their labels" in str(refused.value)
    with pytest.raises(ConfigError, match="12 of 12"):  # each fold is tested in turn
        experiment_checks.check_overlap(experiment(esc50(source, folds=[1]), probes=probes(esc50_folder)))
    apart = experiment(esc50(source, folds=[1]), probes=probes(esc50_folder, test_folds=[2]))
    assert experiment_checks.check_overlap(apart) == []


def test_unlabelled_overlap_is_reported(esc50_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = experiment(
        {"root": str(esc50_folder)}, "nt_xent", probes=probes(esc50_folder), run={"dir": str(tmp_path / "runs")}
    )
    [line] = experiment_checks.check_overlap(made)
    assert "24 of 24 recordings are test examples of probes.tasks esc50" in line
    assert line in caplog.text
    folder = run_folder.create(made, None, {}, [line])
    assert json.loads((folder / "run.json").read_text())["warnings"] == [line]
    assert read(folder).warnings == [line]
    assert (
        experiment_checks.check_overlap(experiment({"root": str(esc50_folder)}, "nt_xent", probes={"tasks": []})) == []
    )
    unlabelled = experiment(esc50(esc50_folder, labelled=0.0), probes=probes(esc50_folder))
    assert len(experiment_checks.check_overlap(unlabelled)) == 1


def test_searched_settings_are_checked(esc50_folder: Path) -> None:
    search = {"objective.kind": {"grid": ["nt_xent", "joint"]}, "source.mix.recordings": {"grid": [0.0, 0.5]}}
    source = {"mix": {"synthetic": 1.0, "recordings": 0.0}, "recordings": esc50(esc50_folder)}
    with pytest.raises(ConfigError, match=r"objective\.kind is joint"):
        experiment_checks.check_overlap(
            validate_experiment({"source": source, "probes": probes(esc50_folder), "search": search})
        )


def test_speed_on_real_recordings(esc10: Path, tmp_path: Path) -> None:
    """All 400 have one length, so every one is opened."""
    copied = [tmp_path / f"{k}.flac" for k, path in enumerate(sorted((esc10 / "audio").iterdir())[:40])]
    for path, original in zip(copied, sorted((esc10 / "audio").iterdir()), strict=False):
        shutil.copy(original, path)
    began = time.process_time()
    assert len(shared(copied, (esc10 / "audio").iterdir())) == 40
    assert time.process_time() - began < 20
