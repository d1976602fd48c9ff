"""Checkpoints of a trial: which are kept, and which are deleted."""

import json
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from doppel_ray.cluster import preflight
from doppel_ray.config.experiment import Experiment, read_experiment
from doppel_ray.config.train import KeepConfig
from doppel_ray.core.errors import ConfigError
from doppel_ray.runs.metrics_log import Row, checkpoint_of
from doppel_ray.runs.retention import delete, delete_leftovers, drop, dropped, within_epochs
from doppel_ray.train import ray_snapshot
from doppel_ray.train.trainer import snapshot


def rows(*scores: float | None, folder: Path = Path("elsewhere")) -> list[Row]:
    """A row for each epoch; None: it was not probed."""
    return [
        {"epoch": epoch, "checkpoint": str(folder / "checkpoints" / f"epoch_{epoch:04d}")}
        | ({} if score is None else {"score": score})
        for epoch, score in enumerate(scores, start=1)
    ]


def kept(policy: KeepConfig, sent: list[Row], mode: str = "max") -> list[int]:
    gone = [row["epoch"] for row in dropped(policy, sent, "score", mode)]
    return [row["epoch"] for row in sent if row["epoch"] not in gone]


@pytest.mark.parametrize(
    ("typed", "policy"),
    [
        ("3", KeepConfig(last=3)),
        ("{best: 2, last: 1}", KeepConfig(best=2, last=1)),
        ("best 2, last 1", KeepConfig(best=2, last=1)),
        ("{best: 2}", KeepConfig(best=2, last=1)),
        ("null", None),
    ],
)
def test_policy_as_typed(typed: str, policy: KeepConfig | None) -> None:
    experiment = read_experiment(None, {"train.keep": typed})
    assert experiment.train.keep == policy
    assert Experiment.model_validate(experiment.plain()) == experiment


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("0", "train.keep.last"),
        ("{best: 0, last: 0}", "train.keep.last"),
        ("{best: -1}", "train.keep.best"),
        ("{newest: 2}", "train.keep.newest"),
        ("all", "train.keep"),
    ],
)
def test_policy_without_a_checkpoint_to_resume_is_refused(typed: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        read_experiment(None, {"train.keep": typed})


def test_best_and_newest_are_kept() -> None:
    sent = rows(0.3, 0.9, None, 0.8, 0.1)
    assert kept(KeepConfig(best=2, last=1), sent) == [2, 4, 5]
    assert kept(KeepConfig(best=2, last=1), sent, "min") == [1, 5]
    assert kept(KeepConfig(last=2), sent) == [4, 5]
    assert kept(KeepConfig(best=1), rows(0.5, 0.5, 0.4)) == [1, 3], "the first of equals, as in the report"


@given(st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=12), st.integers(0, 3), st.integers(1, 3))
def test_best_so_far_is_never_deleted_row_by_row(scores: list[float | None], best: int, last: int) -> None:
    policy, sent, there = KeepConfig(best=best, last=last), rows(*scores), set[int]()
    for count in range(1, len(sent) + 1):
        there = {*there, count} - {row["epoch"] for row in dropped(policy, sent[:count], "score", "max")}
        assert there == set(kept(policy, sent[:count])), "nothing needed now was deleted before"
        assert count in there
        assert len(there) <= best + last


def test_drop_deletes_and_snapshot_forgets(tmp_path: Path) -> None:
    sent = rows(0.1, 0.2, 0.3)
    for row in sent:
        (tmp_path / "checkpoints" / Path(row["checkpoint"]).name).mkdir(parents=True)
    results: list[dict[str, Any]] = [
        {
            "checkpoint_dir_name": Path(row["checkpoint"]).name,
            "metrics": {"epoch": row["epoch"], "pairs": 100 * row["epoch"]},
        }
        for row in sent
    ]
    state = {
        "checkpoint_results": results,
        "checkpoint_report_indices": [0, 1, 2],
        "latest_checkpoint_result": results[-1],
    }
    (tmp_path / "checkpoints" / ray_snapshot.SNAPSHOT).write_text(json.dumps(state))
    drop(tmp_path, sent[:2])
    drop(tmp_path, sent[:2])  # again, as after a crash
    assert [checkpoint_of(tmp_path, row) is not None for row in sent] == [False, False, True]
    ray_snapshot.forget_deleted(tmp_path / "checkpoints")
    found = json.loads((tmp_path / "checkpoints" / ray_snapshot.SNAPSHOT).read_text())
    assert (found["checkpoint_results"], found["checkpoint_report_indices"]) == (results[2:], [2])
    assert [entry["metrics"]["epoch"] for entry in snapshot(tmp_path)] == [3]


def test_checkpoint_path_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (sent,) = rows(0.5)
    (tmp_path / "trial" / "checkpoints" / "epoch_0001").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    found = checkpoint_of(Path("trial"), sent)
    assert found == tmp_path / "trial" / "checkpoints" / "epoch_0001"


def test_older_mid_epoch_checkpoints(tmp_path: Path) -> None:
    for name in ("epoch_0001", "step_00000012", "step_00000018", "step_00000021"):
        (tmp_path / name).mkdir()
    assert sorted(path.name for path in within_epochs(tmp_path, 20)) == ["step_00000012", "step_00000018"]


def test_population_keeps_every_checkpoint() -> None:
    search = {"pairs.delta": {"grid": [0.1, 0.2]}}
    wanted = Experiment.model_validate({"tune": {"scheduler": "pbt"}, "train": {"keep": 3}, "search": search})
    with pytest.raises(ConfigError, match=r"train\.keep .*pbt.*null"):
        preflight.check_tune(wanted, None)


def test_leftovers_of_a_crash_while_deleting(tmp_path: Path) -> None:
    """They are deleted at the next start, and do not stop the deletion of the same epoch, trained again."""
    run = tmp_path / "checkpoints"
    for name in (".epoch_0001", "epoch_0001", ".step_00000003", "epoch_0002"):
        (run / name).mkdir(parents=True)
        (run / name / "weights").write_text("")
    delete([run / "epoch_0001"])
    delete_leftovers(tmp_path)
    assert [path.name for path in run.iterdir()] == ["epoch_0002"]
