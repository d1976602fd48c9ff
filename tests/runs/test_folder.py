"""A run's folder."""

import json
from pathlib import Path

from doppel_ray.config.experiment import read_experiment
from doppel_ray.runs import folder as run_folder
from doppel_ray.runs import reader


def test_runs_of_one_name_have_different_identifiers(tmp_path: Path) -> None:
    """Trackers know trials by them: two users' runs of one name would be merged in one project."""
    first, second = (
        run_folder.create(read_experiment(None, {"run.dir": str(tmp_path / user), "run.name": "run"}), None, {})
        for user in ("ada", "bob")
    )
    assert run_folder.identity(first) != run_folder.identity(second)
    moved = first.rename(tmp_path / "moved")
    run_folder.update(moved, warnings=[])
    assert run_folder.identity(moved).startswith("run-"), "a resumed run keeps its identifier"


def test_older_runs_are_known_by_their_names(tmp_path: Path) -> None:
    (tmp_path / reader.RUN).write_text(json.dumps({"experiment": {"tune": {}}}))
    assert run_folder.identity(tmp_path) == tmp_path.name
