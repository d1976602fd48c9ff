"""How a sweep ends, by the statuses of its trials."""

from pathlib import Path
from typing import Any

import pytest

from doppel_ray.config.experiment import Experiment, validate_experiment
from doppel_ray.core.errors import ConfigError
from doppel_ray.runs import reader
from doppel_ray.tune import sweep
from doppel_ray.tune.budget import Budget
from doppel_ray.tune.sweep import Outcome, is_full, one_trial, outcome_of, trial_counts
from tests.made_runs import make_run


@pytest.mark.parametrize(
    ("statuses", "pairs", "outcome", "code"),
    [
        (["finished", "stopped early"], None, Outcome.FINISHED, 0),
        (["finished"], None, Outcome.INTERRUPTED, 130),
        (["finished", "failed"], None, Outcome.FAILED, 1),
        (["failed", "interrupted"], None, Outcome.INTERRUPTED, 130),
        (["finished", "interrupted"], 100, Outcome.OUT_OF_BUDGET, 0),
        (["finished", "stopped early"], 100, Outcome.FINISHED, 0),
    ],
)
def test_outcome(statuses: list[str], pairs: int | None, outcome: Outcome, code: int, tmp_path: Path) -> None:
    """Of two trials."""
    rows = [{"epoch": 1, "pairs": 100}]
    run = make_run(tmp_path / "run", {f"{n:03d}_a": ({}, status, rows) for n, status in enumerate(statuses)})
    budget = Budget(validate_experiment({"tune": {"pairs": pairs}}), "run", reader.read(run).trials)
    assert outcome_of(run, 2, budget) is outcome
    assert outcome.exit_code == code


def test_trial_counts(tmp_path: Path) -> None:
    trials = reader.read(
        make_run(tmp_path / "run", {"000_a": ({}, "finished", []), "001_b": ({}, "failed", [])})
    ).trials
    assert trial_counts(1, []) == "1 trial"
    assert trial_counts(8, trials) == "8 trials (1 have ended)"


def test_train_ignores_the_search() -> None:
    search = {"pairs.delta": {"grid": [0.1, 0.2]}}
    alone = one_trial(validate_experiment({"search": search, "tune": {"scheduler": "asha", "repeats": 3}}))
    assert alone.search == {}
    assert (alone.tune.scheduler, alone.tune.repeats) == ("fifo", 1)


def test_a_folder_with_room_is_not_full(tmp_path: Path) -> None:
    assert not is_full(tmp_path)


# --- start or resume --------------------------------------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, Experiment]]:
    """The folders and experiments that would run, instead of running them."""
    found: list[tuple[Path, Experiment]] = []

    def run_mirrored(experiment: Experiment, folder: Path, *rest: Any) -> int:
        found.append((folder, experiment))
        return 0

    monkeypatch.setattr(sweep, "run_mirrored", run_mirrored)
    return found


@pytest.mark.parametrize("module", ["tune", "train"])
def test_one_command_starts_a_run_and_resumes_it(
    module: str, tmp_path: Path, started: list[tuple[Path, Experiment]]
) -> None:
    settings = ["--run.dir", str(tmp_path), "--run.name", "mine", "--train.epochs", "2", "--probes.tasks", "[]"]
    settings += ["--train.cpus_per_worker", "0.2", "--generators.0.num_cpus", "0.2"]
    command = [*settings, "--tune.metric", "loss", "--tune.mode", "min", "--resume-if-exists"]
    for _ in range(2):
        assert sweep.run_command(module, "", None, command) == 0
    first, second = started
    assert first == second
    with pytest.raises(ConfigError, match=r"mine was started with another train\.epochs; give the settings"):
        sweep.run_command(module, "", None, [*command, "--train.epochs", "3"])


def test_run_to_resume_if_it_exists_needs_a_name() -> None:
    with pytest.raises(ConfigError, match=r"--run\.name NAME"):
        sweep.run_command("tune", "", None, ["--resume-if-exists"])
    with pytest.raises(ConfigError, match="leave out --resume"):
        sweep.run_command("tune", "", None, ["--resume-if-exists", "--resume", "runs/mine"])
