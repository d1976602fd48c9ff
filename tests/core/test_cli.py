"""Command lines: 0 for done, 2 for refused, and a message that a person can act on. No Ray is started here."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from doppel_ray.config.experiment import Experiment
from doppel_ray.core import dotted_keys
from doppel_ray.core.errors import ConfigError
from doppel_ray.models import checkpoint
from doppel_ray.models.checkpoint import ModelSpec, Position
from doppel_ray.tune import __main__ as tune
from tests.conftest import REPOSITORY


def python(module: str, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`python -m doppel_ray.<module>`, as it is typed, with no cluster to join."""
    environment = {**os.environ, "RAY_ADDRESS": "local", "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"}
    command = [sys.executable, "-m", f"doppel_ray.{module}", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, timeout=120, cwd=cwd
    )


def assert_refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr


def test_help_lists_every_key_of_the_experiment() -> None:
    done = python("tune", "--help")
    assert done.returncode == 0
    missing = [key for key, _, _ in dotted_keys.leaves(Experiment) if f"--{key} " not in done.stdout]
    assert missing == []
    assert "--resume" in done.stdout


@pytest.mark.parametrize("module", ["analyze", "probe", "report", "train"])
def test_every_command_has_help(module: str) -> None:
    done = python(module, "--help")
    assert done.returncode == 0
    assert f"python -m doppel_ray.{module}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--pairs.detla", "0.1"], ["--pairs.detla: unknown option; did you mean --pairs.delta?"]),
        (["--pairs.delta", "1.5"], ["pairs.delta is 1.5", "[0, 1]"]),
        (["--pairs.delta"], ["--pairs.delta", "expected one argument"]),
        (["extra"], ["extra"]),
        (["--generators", "[]"], ["at least one is needed"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml", "No such file"]),
        (["--search.pairs.dleta", "{grid: [0.1]}"], ["there is no key pairs.dleta", "did you mean pairs.delta?"]),
        (["--probes.tasks", "[esc10]", "--tune.metric", "probe/esc10/accuracy_valid"], ["--probes.root"]),
        (["--source.mix", "{recordings: 1.0}"], ["source.recordings.root is not set"]),
        (["--source.mix", "{recordings: 1.0}", "--source.recordings.root", "nowhere"], ["nowhere", "recordings"]),
        (["--objective.kind", "joint"], ["objective.kind is joint", "synthetic pairs have none"]),
        (["--frontend.kind", "raw"], ["encoder.kind is cnn", "frontend.kind is raw"]),
        (["--train.init", "nowhere"], ["nowhere", "checkpoint.json is missing"]),
        (["--augment", "[{kind: fde}]"], ["augment.0", "fade"]),
        (["--probes.tasks", "[factors, esc10]", "--probes.root", "nowhere"], ["nowhere", "no such folder"]),
        (["--tune.metric", "probe/esc10/accuracy"], ["tune.metric", "probes.tasks"]),
        (["--tune.metric", "probe/factors/scor"], ["factors is chosen by", "did you mean probe/factors/score_valid?"]),
        (
            ["--tune.metric", "probe/factors/score"],
            ["probe/factors/score is a test score; use probe/factors/score_valid"],
        ),
        (
            ["--tune.metric", "probe/factors/pitch"],
            ["probe/factors/pitch is a test score; use probe/factors/score_valid"],
        ),
        (["--tune.metric", "probe/factors/score_untrained"], ["is a test score; use probe/factors/score_valid"]),
        (["--search", "{}", "--tune.metric", "probe/factors/score"], ["score is a test score; use"]),
        (["--tune.metric", "los"], ["tune.metric is 'los'", "did you mean loss?"]),
        (["--resume", "nowhere"], ["nowhere", "run.json is missing"]),
        (["--resume", "nowhere", "--pairs.delta", "0.1"], ["leave out --config and every other setting"]),
    ],
    ids=lambda value: " ".join(value)[:60],
)
def test_a_sweep_that_cannot_be_is_refused_and_leaves_nothing_behind(
    arguments: list[str], parts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within this process, for speed: `ConfigError` is what a command line turns into exit code 2."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    with pytest.raises(ConfigError) as refused:
        tune.main(arguments)
    for part in parts:
        assert part in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_is_one_message_without_a_traceback_and_exit_code_2(tmp_path: Path) -> None:
    done = python("tune", "--pairs.detla", "0.1", cwd=tmp_path)
    assert_refused(done, "--pairs.detla: unknown option; did you mean --pairs.delta?")
    assert done.stdout == ""


def test_eight_cpus_a_worker_on_fewer_cores_are_refused_within_30_seconds(tmp_path: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    began = time.monotonic()
    done = python("tune", "--train.cpus_per_worker", 4 * cores, cwd=tmp_path)
    assert time.monotonic() - began < 30
    assert_refused(done, f"1 train worker x {4 * cores} CPU", f"the largest node has {cores} CPUs")
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_that_exists_is_refused_and_nothing_in_it_changes(tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "run.json").write_text("{}")
    done = python("tune", "--run.name", "mine", cwd=tmp_path)
    assert_refused(done, "run.name is 'mine'", "--resume runs/mine")
    assert [file.name for file in (tmp_path / "runs" / "mine").iterdir()] == ["run.json"]
    assert (tmp_path / "runs" / "mine" / "run.json").read_text() == "{}"


def test_recordings_that_cannot_be_read_stop_a_sweep_before_it_starts(esc50_folder: Path, tmp_path: Path) -> None:
    (esc50_folder / "audio" / "1-0-A-0.wav").write_bytes(b"no sound")
    done = python("tune", "--probes.tasks", "[factors, esc50]", "--probes.root", esc50_folder, cwd=tmp_path)
    assert_refused(done, "1 of 24 files cannot be read", "1-0-A-0.wav", "--probes.unreadable skip")
    assert not (tmp_path / "runs").exists()


def test_probe_scores_a_checkpoint_and_writes_the_scores_down(tmp_path: Path, esc50_folder: Path) -> None:
    plain = Experiment.model_validate({"encoder": {"kind": "cnn", "width": 8}}).plain()
    folder = tmp_path / "epoch_0001"
    folder.mkdir()
    checkpoint.save(folder, ModelSpec.of(plain).untrained(), plain, Position(), {}, {})
    done = python(
        "probe",
        "--checkpoint",
        folder,
        "--tasks",
        "[{kind: factors, sounds: 128}, esc50]",
        "--probes.root",
        esc50_folder,
        "--json",
        tmp_path / "scores.json",
    )
    assert done.returncode == 0, done.stderr
    assert "mel statistics" in done.stdout
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert {"probe/esc50/accuracy", "probe/esc50/accuracy_untrained", "probe/untrained_pairs"} <= scores.keys()
    assert "batch-norm statistics of 256 of its" in done.stdout
    assert "probe/factors/score_mel" in scores


def test_probe_refuses_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    assert_refused(python("probe", "--checkpoint", tmp_path), "holds no checkpoint")


def test_report_refuses_a_folder_without_a_run(tmp_path: Path) -> None:
    assert_refused(python("report", tmp_path), f"{tmp_path} holds no run: run.json is missing")
