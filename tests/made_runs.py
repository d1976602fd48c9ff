"""Write run folders with made-up trials."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from doppel_ray.config.experiment import Experiment
from doppel_ray.core import dotted_keys

BASELINES = {"probe/factors/score_mel": 0.45, "probe/factors/score_untrained": 0.5}

MadeTrial = tuple[Mapping[str, Any], str, Sequence[Mapping[str, Any]]]
"""A trial's searched values, status and rows."""


def row(epoch: int, score: float | None, **more: Any) -> dict[str, Any]:
    """Return a row whose test score equals its validation score, unless `more` has others."""
    both = {"probe/factors/score": score, "probe/factors/score_valid": score}
    scores = {} if score is None else {**both, **BASELINES}
    return {
        "epoch": epoch,
        "step": 10 * epoch,
        "pairs": 320 * epoch,
        "loss": 3.0 - epoch / 10,
        "train_seconds": 20.0,
        "checkpoint": f"/where/it/ran/checkpoints/epoch_{epoch:04d}",
        **scores,
        **more,
    }


def make_run(folder: Path, trials: Mapping[str, MadeTrial], **about: Any) -> Path:
    """Write a run's folder: run.json, trials.json, and each trial's experiment and rows.

    Args:
        trials: name -> trial.
        about: entries of run.json beside the experiment.
    """
    experiment = Experiment().plain()
    keys = {key for values, _, _ in trials.values() for key in values}
    experiment["search"] = {key: {"choice": [values[key] for values, _, _ in trials.values()]} for key in keys}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"experiment": experiment, **about}))
    (folder / "trials.json").write_text(
        json.dumps([{"name": name, "values": values, "status": status} for name, (values, status, _) in trials.items()])
    )
    for name, (values, _, rows) in trials.items():
        own = json.loads(json.dumps(experiment))
        for key, value in values.items():
            dotted_keys.assign(own, key, value)
        (folder / "trials" / name).mkdir(parents=True)
        (folder / "trials" / name / "experiment.json").write_text(json.dumps(own))
        for entry in rows:
            (folder / "trials" / name / "checkpoints" / f"epoch_{entry['epoch']:04d}").mkdir(
                parents=True, exist_ok=True
            )
        (folder / "trials" / name / "rows.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in rows))
    return folder


def write_sweep(folder: Path) -> Path:
    """Write a sweep of three trials: one best in the middle of its run, one stopped early, one without a score."""
    return make_run(
        folder,
        {
            "000_delta=0.02": ({"pairs.delta": 0.02}, "finished", [row(1, 0.3), row(2, 0.8), row(3, 0.7)]),
            "001_delta=0.25": ({"pairs.delta": 0.25}, "stopped early", [row(1, 0.4)]),
            "002_delta=0.5": ({"pairs.delta": 0.5}, "failed", []),
        },
    )
