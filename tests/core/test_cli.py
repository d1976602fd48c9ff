"""Command lines: exit codes and error messages. These tests start no Ray."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from doppel_ray.config.experiment import Experiment
from doppel_ray.core import cli, dotted_keys
from doppel_ray.core.errors import ConfigError
from doppel_ray.models import checkpoint
from doppel_ray.models.checkpoint import ModelSpec, Position
from doppel_ray.tune import __main__ as tune
from tests.conftest import REPOSITORY


def python(module: str, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `python -m doppel_ray.<module>` without a cluster to join."""
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


@pytest.mark.slow
def test_help_lists_every_key_of_the_experiment() -> None:
    done = python("tune", "--help")
    assert done.returncode == 0
    missing = [key for key, _, _ in dotted_keys.leaves(Experiment) if f"--{key} " not in done.stdout]
    assert missing == []
    assert "--resume" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("module", ["analyze", "probe", "report", "train"])
def test_command_has_help(module: str) -> None:
    done = python(module, "--help")
    assert done.returncode == 0
    assert f"python -m doppel_ray.{module}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pairs.detla", "0.1"], "--pairs.detla: unknown option; did you mean --pairs.delta?"),
        (["--pairs.delta", "1.5"], "pairs.delta is 1.5: it must lie in [0, 1]"),
        (["--train.epochs", "many"], "train.epochs is 'many': expected a valid integer"),
        (
            ["--encoder.kind", "resnet"],
            "encoder.kind is 'resnet': expected 'resnet18', 'resnet18_1d', 'cnn' or 'framenet'",
        ),
        (["--config", "nowhere.yaml"], "--config nowhere.yaml: No such file or directory"),
        (
            ["--search.pairs.delta", "{grid: [0.1, 1.5]}"],
            "search.pairs.delta holds a value that is not allowed: pairs.delta is 1.5: it must lie in [0, 1] "
            "(from search.pairs.delta)",
        ),
        (
            ["--frontend.kind", "raw"],
            "encoder.kind is cnn, which needs a spectrogram, but frontend.kind is raw, which produces a waveform",
        ),
        (
            ["--probes.tasks", "[factors, esc11]"],
            "probes.tasks.1 is 'esc11': there is no task 'esc11'; expected one of factors, esc10, esc50, urbansound8k, "
            "vivae, speech_commands, sc09, nsynth_family, nsynth_pitch, hear, manifest; did you mean esc10? "
            "(from --probes.tasks)",
        ),
        (
            ["--tune.metric", "probe/factors/score"],
            "tune.metric: probe/factors/score is a test score; use probe/factors/score_valid",
        ),
        (["--resume", "runs/mine"], "runs/mine holds no run: run.json is missing"),
        (["quickstart.yaml"], "quickstart.yaml: unexpected argument; option names start with --"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_typical_error_gives_this_message(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a newcomer reads after a typical mistake."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    with pytest.raises(ConfigError) as refused:
        tune.main(arguments)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--pairs.detla", "0.1"], ["--pairs.detla: unknown option; did you mean --pairs.delta?"]),
        (["--pairs.delta", "1.5"], ["pairs.delta is 1.5", "[0, 1]"]),
        (["--pairs.delta"], ["--pairs.delta: expected a value"]),
        (["extra"], ["extra"]),
        (["--generators", "[]"], ["at least one generator must remain"]),
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
        (
            ["--tune.metric", "probe/factors/scor"],
            ["factors has the validation scores", "did you mean probe/factors/score_valid?"],
        ),
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
def test_refused_sweep_writes_nothing(
    arguments: list[str], parts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs in this process for speed; command lines turn `ConfigError` into exit code 2."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    with pytest.raises(ConfigError) as refused:
        tune.main(arguments)
    for part in parts:
        assert part in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_refusal_prints_message_and_exits_with_2(tmp_path: Path) -> None:
    done = python("tune", "--pairs.detla", "0.1", cwd=tmp_path)
    assert_refused(done, "--pairs.detla: unknown option; did you mean --pairs.delta?")
    assert done.stdout == ""


@pytest.mark.slow
def test_too_many_cpus_are_refused_before_ray_starts(tmp_path: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    done = python("tune", "--train.cpus_per_worker", 4 * cores, cwd=tmp_path)
    assert_refused(done, f"1 train worker x {4 * cores} CPU", f"the largest node has {cores} CPUs")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_existing_run_folder_is_refused_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "run.json").write_text("{}")
    done = python("tune", "--run.name", "mine", cwd=tmp_path)
    assert_refused(done, "run.name is 'mine'", "--resume runs/mine")
    assert [file.name for file in (tmp_path / "runs" / "mine").iterdir()] == ["run.json"]
    assert (tmp_path / "runs" / "mine" / "run.json").read_text() == "{}"


@pytest.mark.slow
def test_unreadable_recordings_are_refused_before_the_sweep(esc50_folder: Path, tmp_path: Path) -> None:
    (esc50_folder / "audio" / "1-0-A-0.wav").write_bytes(b"no sound")
    done = python("tune", "--probes.tasks", "[factors, esc50]", "--probes.root", esc50_folder, cwd=tmp_path)
    assert_refused(done, "1 of 24 files cannot be read", "1-0-A-0.wav", "--probes.unreadable skip")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_probe_prints_and_writes_scores(tmp_path: Path, esc50_folder: Path) -> None:
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


@pytest.mark.slow
def test_probe_refuses_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    assert_refused(python("probe", "--checkpoint", tmp_path), "holds no checkpoint")


def test_report_refuses_a_folder_without_a_run(tmp_path: Path) -> None:
    assert_refused(python("report", tmp_path), f"{tmp_path} holds no run: run.json is missing")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_that_end_a_run_as_ctrl_c_does(number: int) -> None:
    known = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(number, signal.SIG_DFL)
        cli.stop_on_sigterm()
        assert signal.getsignal(number) is not signal.SIG_DFL
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        cli.stop_on_sigterm()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, "as `nohup` sets it"
    finally:
        for each, handler in known.items():
            signal.signal(each, handler)
