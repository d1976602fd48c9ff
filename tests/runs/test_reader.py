"""What a run's folder tells, also one that is unfinished or damaged."""

import json
import shlex
from pathlib import Path

import pytest

from doppel_ray.config.experiment import Experiment, read_experiment
from doppel_ray.core.errors import ConfigError
from doppel_ray.report.__main__ import main
from doppel_ray.runs import reader
from tests.report.conftest import make_run, row

DAMAGED = ["", '{"experiment": {', "[1", "3", "[3]", '{"experiment": 1}']


def test_a_whole_run_lacks_nothing(folder: Path) -> None:
    assert reader.read(folder).missing == []


def test_a_damaged_line_is_left_out_and_told(folder: Path) -> None:
    file = folder / "trials" / "000_delta=0.02" / "rows.jsonl"
    file.write_text(file.read_text() + '{"epoch": 4, "probe/fac')
    run = reader.read(folder)
    assert len(run.trials[0].rows) == 3
    assert run.missing == [f"{file}: 1 damaged line left out"]


def test_a_trial_that_has_lost_its_rows_is_told(folder: Path) -> None:
    (folder / "trials" / "001_delta=0.25" / "rows.jsonl").unlink()
    (line,) = reader.read(folder).missing
    assert "001_delta=0.25" in line


def test_a_run_that_has_only_just_begun_has_no_trials_and_lacks_nothing(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "begun", {})
    (folder / "trials.json").unlink()
    assert (reader.read(folder).trials, reader.read(folder).missing) == ([], [])


@pytest.mark.parametrize("text", [None, *DAMAGED])
def test_trials_are_found_in_their_folders_where_the_list_is_missing_or_damaged(folder: Path, text: str | None) -> None:
    (folder / "trials.json").unlink()
    if text is not None:
        (folder / "trials.json").write_text(text)
    run = reader.read(folder)
    assert [(trial.values, trial.status) for trial in run.trials] == [
        ({"pairs.delta": delta}, "unknown") for delta in (0.02, 0.25, 0.5)
    ]
    assert "trials.json" in run.missing[0]


@pytest.mark.parametrize("text", [None, *DAMAGED])
def test_without_run_json_the_rest_is_shown_and_resuming_refused(folder: Path, text: str | None) -> None:
    (folder / "run.json").unlink()
    if text is not None:
        (folder / "run.json").write_text(text)
    run = reader.read(folder)
    assert (run.metric, run.mode, len(run.trials)) == ("probe/factors/score_valid", "max", 3)
    assert "run.json" in run.missing[0]
    with pytest.raises(ConfigError, match=r"run\.json"):
        reader.about(folder)


def test_trials_that_have_not_begun_are_counted(folder: Path) -> None:
    about = json.loads((folder / "run.json").read_text())
    about["experiment"]["search"] = {"pairs.delta": {"grid": [0.02, 0.25, 0.5, 0.6]}}
    (folder / "run.json").write_text(json.dumps(about))
    assert reader.read(folder).missing == ["1 of 4 trials have not begun"]


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"holds no run: run\.json is missing"):
        main([str(tmp_path / name)])


def test_the_command_of_a_trial_gives_its_own_experiment_again(tmp_path: Path) -> None:
    """Whatever JSON holds that YAML would read otherwise: 1e-05, and signs beyond the first plane."""
    values = {
        "pairs.delta": {"pitch": 1e-05, "timbre": 0.25},
        "optim.lr": 1e-05,
        "augment": [{"kind": "gain", "low": -6.0}],
        "probes.root": "/recordings/🎵",
        "run.seed": 7,
    }
    folder = make_run(tmp_path / "run", {"000": (values, "finished", [row(1, 0.5)])})
    told = reader.read(folder).trials[0].command("run")
    assert told is not None
    python, dash_m, module, option, file, *name = shlex.split(told)
    assert (python, dash_m, module, option) == ("python", "-m", "doppel_ray.train", "--config")
    assert name == ["--run.name", "run-000"], "its own folder is taken"
    again = read_experiment(Path(file), {"run.name": name[1]}).plain() | {"search": {}}
    asked = Experiment().with_values(values | {"run.name": "run-000"}).plain()
    assert again == asked
