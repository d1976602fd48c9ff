"""What chooses, stops and changes trials: Ray Tune's parts, as the `search` and `tune` sections ask for them."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from doppel_ray.config.variants import remaining, trial_count

if TYPE_CHECKING:
    from doppel_ray.config.experiment import Experiment
    from doppel_ray.runs.reader import Trial
    from doppel_ray.tune.budget import Budget
    from doppel_ray.tune.search_algorithm import TrialQueue


def space(experiment: "Experiment") -> dict[str, Any]:
    """The `search:` section as Ray Tune's own space."""
    from ray import tune

    makers = {"grid": tune.grid_search, "choice": tune.choice}
    ranges = {"uniform": tune.uniform, "loguniform": tune.loguniform, "randint": tune.randint}
    found = {}
    for key, values in experiment.search.items():
        given = getattr(values, values.kind)
        found[key] = makers[values.kind](list(given)) if values.kind in makers else ranges[values.kind](*given)
    return found


def scheduler(experiment: "Experiment") -> Any:
    """What stops, pauses or changes trials while they run."""
    from ray.tune import schedulers

    tune, epochs = experiment.tune, experiment.train.epochs
    judged: dict[str, Any] = {"time_attr": "epoch", "metric": tune.metric, "mode": tune.mode}
    grace = min(tune.grace, epochs)
    if tune.scheduler == "fifo":
        return schedulers.FIFOScheduler()
    if tune.scheduler == "asha":
        return _asha()(**judged, max_t=epochs, grace_period=grace, reduction_factor=tune.reduction, brackets=1)
    if tune.scheduler == "median":
        return _median()(**judged, grace_period=grace, min_samples_required=2, min_time_slice=math.inf)  # never pauses
    if tune.scheduler == "hyperband":
        return _hyperband()(**judged, max_t=epochs, reduction_factor=tune.reduction)
    return schedulers.PopulationBasedTraining(
        **judged,
        perturbation_interval=tune.interval,
        burn_in_period=grace,
        quantile_fraction=tune.quantile,
        hyperparam_mutations=_mutations(experiment),
        log_config=False,
        require_attrs=False,  # a row without the metric changes nothing
    )


def _asha() -> Any:
    from ray.tune.schedulers import ASHAScheduler

    class Asha(ASHAScheduler):
        """Ray Tune's, which can also learn what trials of an earlier life of the sweep have reached."""

        def recall(self, trial: Any, rows: Sequence[dict[str, Any]]) -> None:
            nobody: Any = None  # it asks its controller for nothing
            self.on_trial_add(nobody, trial)
            for row in rows:
                self.on_trial_result(nobody, trial, row)

    return Asha


def _median() -> Any:
    from ray.tune.schedulers import MedianStoppingRule

    class Median(MedianStoppingRule):
        """Ray Tune's, with the same memory, and without its fault at a trial whose last row lacks the metric."""

        def recall(self, trial: Any, rows: Sequence[dict[str, Any]]) -> None:
            if having := [row for row in rows if self._metric in row]:
                self._results[trial] = having

        def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
            """Every row has been taken in when it came."""

    return Median


def _hyperband() -> Any:
    from ray.tune.schedulers import HyperBandScheduler, TrialScheduler

    class HyperBand(HyperBandScheduler):
        """Ray Tune's, which would end the sweep at a row without the metric, where this one waits for the next."""

        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            if self._metric not in result:
                return TrialScheduler.CONTINUE
            return super().on_trial_result(tune_controller, trial, result)

        def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
            self.on_trial_remove(tune_controller, trial)

    return HyperBand


def _mutations(experiment: "Experiment") -> dict[str, Any]:
    """The search space as population-based training wants it: lists to step along, ranges to draw from."""
    return {
        key: list(getattr(values, values.kind)) if values.kind in ("grid", "choice") else drawn
        for (key, values), drawn in zip(experiment.search.items(), space(experiment).values(), strict=True)
    }


def agenda(
    experiment: "Experiment", run: str, past: "Sequence[Trial]", concurrent: int, scheduler: Any, budget: "Budget"
) -> "TrialQueue":
    """The trials that are to run.

    Args:
        experiment: what is swept.
        run: the sweep's name.
        past: trials of an earlier life of the sweep.
        concurrent: trials side by side, at most.
        scheduler: which learns what the past has reached.
        budget: which ends the sweep.
    """
    from doppel_ray.tune.search_algorithm import TrialQueue

    recall = getattr(scheduler, "recall", lambda trial, rows: None)
    points = [trial.point for trial in past]
    if experiment.tune.searcher == "optuna":
        return TrialQueue(run, past, optuna(experiment, past), trial_count(experiment), concurrent, budget, recall)
    rest = remaining(experiment, points)
    return TrialQueue(run, past, rest, len(past) + len(rest), concurrent, budget, recall)


def optuna(experiment: "Experiment", past: "Sequence[Trial]" = ()) -> Any:
    """A searcher that learns from the trials so far, those of an earlier life of the sweep included."""
    from ray.tune.search.optuna import OptunaSearch

    metric, mode = experiment.tune.metric, experiment.tune.mode
    found = OptunaSearch(space(experiment), metric=metric, mode=mode, seed=experiment.run.seed % 2**32)
    for trial in past:
        if trial.rows and metric in trial.rows[-1]:
            found.add_evaluated_point(trial.point, trial.rows[-1][metric])
    return found
