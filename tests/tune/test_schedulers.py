"""Ray Tune's schedulers and searchers, as the `search` and `tune` sections configure them."""

import importlib.util
import re
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from doppel_ray.cluster import preflight
from doppel_ray.config.experiment import validate_experiment
from doppel_ray.core.errors import ConfigError
from doppel_ray.tune import schedulers

DELTA = {"pairs.delta": {"choice": [0.1, 0.2, 0.4]}}


def experiment(search: dict[str, Any] = DELTA, **tune: Any) -> Any:
    return validate_experiment({"search": search, "tune": tune, "train": {"epochs": 9}})


@pytest.mark.parametrize("kind", ["asha", "median", "hyperband", "pbt"])
def test_row_without_the_metric(kind: str) -> None:
    """A probe that lags or failed leaves its row without one."""

    class Trial:
        status, trial_id = "RUNNING", "0"

    scheduler = schedulers.build_scheduler(experiment(scheduler=kind))
    trial = Trial()
    if kind in ("asha", "hyperband"):  # these must know a trial before its rows
        scheduler.on_trial_add(None, trial)
    assert scheduler.on_trial_result(None, trial, {"epoch": 3, "loss": 1.0}) == TrialScheduler.CONTINUE


def test_mutations_of_population_based_training() -> None:
    search = {"pairs.delta": {"grid": [0.1, 0.2]}, "optim.lr": {"loguniform": [1e-4, 1e-2]}}
    mutations = schedulers.build_scheduler(experiment(search, scheduler="pbt"))._hyperparam_mutations
    assert mutations["pairs.delta"] == [0.1, 0.2]
    assert 1e-4 <= mutations["optim.lr"].sample() <= 1e-2


@pytest.mark.parametrize(
    ("search", "tune", "fault"),
    [
        (
            {"encoder.width": {"grid": [8, 16]}},
            {"scheduler": "pbt"},
            "search.encoder.width: tune.scheduler pbt changes",
        ),
        ({"pairs.delta": {"grid": [0.1]}}, {"searcher": "optuna"}, "is a grid, which tune.searcher optuna"),
        (DELTA, {"searcher": "optuna", "scheduler": "pbt"}, "use tune.searcher random"),
        (DELTA, {"scheduler": "ahsa"}, "tune.scheduler is 'ahsa'"),
    ],
)
def test_unsupported_scheduler_settings(search: dict[str, Any], tune: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(fault)):
        experiment(search, **tune)


def test_population_must_fit_side_by_side() -> None:
    preflight.check_tune(experiment(scheduler="pbt", samples=2), concurrent=2)
    with pytest.raises(ConfigError, match=r"all 3 must run side by side, but only 2 fit; lower tune\.samples"):
        preflight.check_tune(experiment(scheduler="pbt", samples=3), concurrent=2)


def test_population_without_search() -> None:
    with pytest.raises(ConfigError, match="there are no values to change"):
        preflight.check_tune(experiment({}, scheduler="pbt"), concurrent=2)


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_tracker_not_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked: None if asked == name else found(asked))
    with pytest.raises(ConfigError, match=rf"tune\.log_to has '{name}'.*pip install 'doppel_ray\[{name}\]'"):
        preflight.check_tune(experiment(log_to=[name]), concurrent=2)


def test_unknown_tracker() -> None:
    with pytest.raises(ConfigError, match=r"tune\.log_to"):
        experiment(log_to=["comet"])


def test_optuna_suggests_and_learns() -> None:
    pytest.importorskip("optuna", reason="the extra `optuna` is not installed")
    searcher = schedulers.build_optuna(experiment(scheduler="fifo", searcher="optuna", metric="loss", mode="min"))
    given = searcher.suggest("a")
    assert given["pairs.delta"] in (0.1, 0.2, 0.4)
    searcher.on_trial_complete("a", {"loss": 1.0, "epoch": 9})
    assert searcher.suggest("b") is not None
