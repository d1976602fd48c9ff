"""MLflow, with a database of its own, holds the numbers of the rows."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from doppel_ray.config.experiment import validate_experiment
from doppel_ray.tune import trackers

RESULT = {
    "epoch": 1,
    "step": 8,
    "pairs": 256,
    "loss": 3.0,
    "probe/factors/score": 0.5,
    "probe/failed": 0,
    "gradient_norm": math.nan,
    "search/pairs.delta": {"pitch": 0.05},
    "checkpoint": "/runs/mine/trials/000/checkpoints/epoch_0001",
    "events": ["a generator died"],
    "training_iteration": 1,
    "pid": 4242,
    "timestamp": 1700000000,
    "trial_id": "00000",
    "config": {"pairs.delta": 0.05},
    "done": False,
}


class Trial(SimpleNamespace):
    """As Ray Tune shows one to its callbacks."""

    def __hash__(self) -> int:
        return hash(self.trial_id)

    def __str__(self) -> str:
        return "000_delta=0.05"


def test_mlflow_logs_every_number_and_resumes_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds, for MLflow's own start and tables."""
    mlflow = pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    experiment = validate_experiment({"tune": {"log_to": ["mlflow"], "log_project": "doppelgangers"}})
    trial = Trial(trial_id="7f3a1_00000", config={"pairs.delta": 0.05, "augment": [{"kind": "fade"}]}, local_path="")
    for step in (8, 16):  # the second time as a resumed sweep does
        (callback,) = trackers.callbacks(experiment, tmp_path)
        made: Any = callback
        made.setup()
        made.log_trial_start(trial)
        made.log_trial_result(1, trial, RESULT | {"step": step, "loss": step / 8})
        trial.config["pairs.delta"] = 0.1  # population-based training changes it
        made.log_trial_start(trial)
        made.log_trial_end(trial)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("doppelgangers").experiment_id])
    assert run.data.params == {"pairs.delta": "0.05", "augment": "fade"}
    assert set(run.data.metrics) == {
        *("epoch", "pairs", "loss", "probe/factors/score", "probe/failed", "search/pairs.delta/pitch")
    }
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")] == [(8, 1.0), (16, 2.0)]
    assert (run.info.status, run.data.tags["sweep"]) == ("FINISHED", tmp_path.name)
