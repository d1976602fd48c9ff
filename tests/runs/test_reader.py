"""Reading run folders, finished, unfinished and damaged."""

import json
import shlex
from pathlib import Path

import pytest

from doppel_ray.config.experiment import Experiment, read_experiment
from doppel_ray.core.errors import ConfigError
from doppel_ray.report.__main__ import main
from doppel_ray.runs import reader
from tests.made_runs import make_run, row

DAMAGED = ["", '{"experiment": {', "[1", "3", "[3]", '{"experiment": 1}']


def test_whole_run_misses_nothing(folder: Path) -> None:
    assert reader.read(folder).missing == []


def test_damaged_line_is_left_out_and_named(folder: Path) -> None:
    file = folder / "trials" / "000_delta=0.02" / "rows.jsonl"
    file.write_text(file.read_text() + '{"epoch": 4, "probe/fac')
    run = reader.read(folder)
    assert len(run.trials[0].rows) == 3
    assert run.missing == [f"{file}: 1 damaged line left out"]


def test_trial_without_rows_is_named(folder: Path) -> None:
    (folder / "trials" / "001_delta=0.25" / "rows.jsonl").unlink()
    (line,) = reader.read(folder).missing
    assert "001_delta=0.25" in line


def test_run_without_trials_misses_nothing(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "begun", {})
    (folder / "trials.json").unlink()
    assert (reader.read(folder).trials, reader.read(folder).missing) == ([], [])


@pytest.mark.parametrize("text", [None, *DAMAGED])
def test_trials_without_trials_json(folder: Path, text: str | None) -> None:
    (folder / "trials.json").unlink()
    if text is not None:
        (folder / "trials.json").write_text(text)
    run = reader.read(folder)
    assert [(trial.values, trial.status) for trial in run.trials] == [
        ({"pairs.delta": delta}, "unknown") for delta in (0.02, 0.25, 0.5)
    ]
    assert "trials.json" in run.missing[0]


@pytest.mark.parametrize("text", [None, *DAMAGED])
def test_run_without_run_json_is_read_but_not_resumed(folder: Path, text: str | None) -> None:
    (folder / "run.json").unlink()
    if text is not None:
        (folder / "run.json").write_text(text)
    run = reader.read(folder)
    assert (run.metric, run.mode, len(run.trials)) == ("probe/factors/score_valid", "max", 3)
    assert "run.json" in run.missing[0]
    with pytest.raises(ConfigError, match=r"run\.json"):
        reader.read_about(folder)


def test_trials_that_have_not_started_are_counted(folder: Path) -> None:
    about = json.loads((folder / "run.json").read_text())
    about["experiment"]["search"] = {"pairs.delta": {"grid": [0.02, 0.25, 0.5, 0.6]}}
    (folder / "run.json").write_text(json.dumps(about))
    assert reader.read(folder).missing == ["1 of 4 trials have not started"]


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_folder_without_a_run_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"holds no run: run\.json is missing"):
        main([str(tmp_path / name)])


def test_command_of_a_trial_reproduces_its_experiment(tmp_path: Path) -> None:
    """Including what YAML reads differently from JSON: 1e-05, and characters beyond the first plane."""
    values = {
        "pairs.delta": {"pitch": 1e-05, "timbre": 0.25},
        "optim.lr": 1e-05,
        "augment": [{"kind": "gain", "low": -6.0}],
        "probes.root": "/recordings/🎵",
        "run.seed": 7,
    }
    folder = make_run(tmp_path / "run", {"000": (values, "finished", [row(1, 0.5)])})
    command = reader.read(folder).trials[0].command("run")
    assert command is not None
    python, dash_m, module, option, file, *name = shlex.split(command)
    assert (python, dash_m, module, option) == ("python", "-m", "doppel_ray.train", "--config")
    assert name == ["--run.name", "run-000"], "a new folder"
    again = read_experiment(Path(file), {"run.name": name[1]}).plain() | {"search": {}}
    expected = Experiment().with_values(values | {"run.name": "run-000"}).plain()
    assert again == expected
