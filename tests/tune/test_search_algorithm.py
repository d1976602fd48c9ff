"""Which trials a sweep starts, in which order, and when it starts no more, from its record alone."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune
from ray.tune.schedulers import TrialScheduler

from doppel_ray.config.experiment import validate_experiment
from doppel_ray.runs.reader import Trial
from doppel_ray.tune import schedulers
from doppel_ray.tune.budget import Budget, identifier
from doppel_ray.tune.search_algorithm import Ended, TrialQueue, trial_name, trial_queue

DELTAS = {"pairs.delta": {"grid": [0.1, 0.2, 0.4]}}


def experiment(search: dict[str, Any] = DELTAS, **tune: Any) -> Any:
    return validate_experiment({"search": search, "tune": tune, "train": {"epochs": 8}})


def known(
    number: int, delta: float, status: str, rows: Sequence[dict[str, Any]] = (), now: float | None = None
) -> Trial:
    """Return a trial that started with one δ, and has another now if a population changed it."""
    point = {"pairs.delta": delta}
    return Trial(trial_name(number, point), Path(), {"pairs.delta": now or delta}, point, status, list(rows))


def queue_of(made: Any, past: Sequence[Trial] = (), concurrent: int = 9, scheduler: Any = None) -> TrialQueue:
    found = trial_queue(made, "run", past, concurrent, scheduler, Budget(made, "run", past))
    tune.register_trainable("nothing", lambda config: None)
    found.add_configurations([SimpleNamespace(spec={"run": "nothing", "config": {}})])
    return found


def started(made: TrialQueue) -> list[tuple[str, dict[str, Any]]]:
    found = []
    while (trial := made.next_trial()) is not None:
        found.append((str(trial), trial.config))
    return found


def test_new_sweep_starts_every_point_in_order() -> None:
    assert started(queue_of(experiment())) == [
        ("000_delta=0.1", {"pairs.delta": 0.1}),
        ("001_delta=0.2", {"pairs.delta": 0.2}),
        ("002_delta=0.4", {"pairs.delta": 0.4}),
    ]


def test_resumed_sweep_starts_unfinished_trials_first() -> None:
    past = [known(0, 0.1, "finished"), known(1, 0.2, "running")]
    made = queue_of(experiment(), past)
    assert made.total_samples == 3
    assert [name for name, _ in started(made)] == ["001_delta=0.2", "002_delta=0.4"]


def test_population_resumes_with_its_present_values() -> None:
    past = [known(0, 0.1, "interrupted", now=0.3), known(1, 0.2, "interrupted"), known(2, 0.4, "interrupted")]
    made = queue_of(experiment(scheduler="pbt"), past)
    assert started(made) == [
        ("000_delta=0.1", {"pairs.delta": 0.3}),
        ("001_delta=0.2", {"pairs.delta": 0.2}),
        ("002_delta=0.4", {"pairs.delta": 0.4}),
    ]


def test_concurrent_trials_are_limited() -> None:
    made = queue_of(experiment(), concurrent=2)
    assert [name for name, _ in started(made)] == ["000_delta=0.1", "001_delta=0.2"]
    made.on_trial_complete(identifier("run", 0), {})
    assert [name for name, _ in started(made)] == ["002_delta=0.4"]
    assert made.is_finished()


def test_budget_of_pairs() -> None:
    made = experiment(pairs=5000)
    budget = Budget(made, "run", [known(0, 0.1, "finished", [{"pairs": 3000}])])
    assert budget.spent() is None
    assert not budget(identifier("run", 1), {"pairs": 1000})
    assert budget(identifier("run", 1), {"pairs": 2000})
    assert budget.spent() == "5,000 pairs (tune.pairs)"
    assert trial_queue(made, "run", [], 9, None, budget).is_finished()


def test_budget_of_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    made = experiment(minutes=2)
    found = queue_of(made)
    assert found.next_trial() is not None
    found.budget.began -= 121
    assert found.next_trial() is None
    assert found.is_finished()


def rows(score: float, epochs: int = 8) -> list[dict[str, Any]]:
    return [
        {"epoch": epoch, "pairs": 100 * epoch, "probe/factors/score_valid": score} for epoch in range(1, epochs + 1)
    ]


@pytest.mark.parametrize("kind", ["asha", "median"])
def test_scheduler_compares_with_the_past_of_a_resumed_sweep(kind: str) -> None:
    """Two good trials ended before the interruption; what they had stops a bad one at its first row."""
    made = experiment(scheduler=kind)
    past = [known(0, 0.1, "finished", rows(0.8)), known(1, 0.2, "finished", rows(0.7))]
    scheduler = schedulers.build_scheduler(made)
    fresh = queue_of(made, past, scheduler=scheduler).next_trial()
    assert fresh is not None
    scheduler.on_trial_add(None, fresh)
    alone: Any = SimpleNamespace(get_live_trials=list)
    assert scheduler.on_trial_result(alone, fresh, rows(0.1)[0]) == TrialScheduler.STOP


def test_resumed_trial_is_not_compared_with_its_own_past() -> None:
    made = experiment(scheduler="median")
    past = [known(0, 0.1, "finished", rows(0.8)), known(1, 0.2, "interrupted", rows(0.1, epochs=2))]
    scheduler = schedulers.build_scheduler(made)
    again = queue_of(made, past, scheduler=scheduler).next_trial()
    alone: Any = SimpleNamespace(get_live_trials=list)
    assert scheduler.on_trial_result(alone, again, rows(0.1)[2]) == TrialScheduler.CONTINUE, "two others are needed"


def test_last_row_without_the_metric() -> None:
    scheduler: Any = schedulers.build_scheduler(experiment(scheduler="median"))
    alone = SimpleNamespace(get_live_trials=list)
    first, second, third = (Ended(str(number)) for number in range(3))
    for trial in (first, second):
        for row in rows(0.8):
            scheduler.on_trial_result(alone, trial, row)
        scheduler.on_trial_complete(alone, trial, {"epoch": 8, "pairs": 800})
    assert scheduler.on_trial_result(alone, third, rows(0.1)[1]) == TrialScheduler.STOP


def test_optuna_after_resume() -> None:
    pytest.importorskip("optuna", reason="the extra `optuna` is not installed")
    made = experiment({"pairs.delta": {"uniform": [0.0, 1.0]}}, searcher="optuna", scheduler="fifo", samples=4)
    past = [known(0, 0.1, "finished", rows(0.8)), known(1, 0.2, "interrupted")]
    found = queue_of(made, past, concurrent=1)
    assert len(found.searcher._ot_study.trials) == 1  # type: ignore[union-attr]
    names = []
    for number in (1, 2, 3):
        trial = found.next_trial()
        assert trial is not None
        assert found.next_trial() is None, "one at a time"
        names.append(str(trial)[:3])
        found.on_trial_complete(identifier("run", number), rows(0.5)[-1])
    assert names == ["001", "002", "003"]
    assert found.is_finished()


def test_trial_name_with_a_long_value() -> None:
    chain = [{"kind": kind} for kind in ("high_pass", "low_pass", "pitch_shift", "shift", "impulse_response")]
    name = trial_name(7, {"augment": chain, "run.seed": 2})
    assert name == "007_augment=high_pass+low_pass+pitch_seed=2"
