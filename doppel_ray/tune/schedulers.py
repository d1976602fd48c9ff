"""Ray Tune's schedulers and searchers, as the `search` and `tune` sections configure them."""

import math
from collections.abc import Sequence
from typing import Any

from ray import tune
from ray.tune import schedulers
from ray.tune.schedulers import TrialScheduler

from doppel_ray.config.experiment import Experiment
from doppel_ray.runs.metrics_log import Row
from doppel_ray.runs.reader import Trial


def search_space(experiment: Experiment) -> dict[str, Any]:
    """Return the `search:` section as Ray Tune's search space."""
    lists = {"grid": tune.grid_search, "choice": tune.choice}
    ranges = {"uniform": tune.uniform, "loguniform": tune.loguniform, "randint": tune.randint}
    found = {}
    for key, values in experiment.search.items():
        given = getattr(values, values.kind)
        found[key] = lists[values.kind](list(given)) if values.kind in lists else ranges[values.kind](*given)
    return found


def build_scheduler(experiment: Experiment) -> Any:
    """Return the scheduler that stops, pauses or changes trials while they run."""
    settings, epochs = experiment.tune, experiment.train.epochs
    judged: dict[str, Any] = {"time_attr": "epoch", "metric": settings.metric, "mode": settings.mode}
    grace = min(settings.grace, epochs)
    if settings.scheduler == "fifo":
        return schedulers.FIFOScheduler()
    if settings.scheduler == "asha":
        return Asha(**judged, max_t=epochs, grace_period=grace, reduction_factor=settings.reduction, brackets=1)
    if settings.scheduler == "median":
        # Infinite time slice: it never pauses a trial.
        return Median(**judged, grace_period=grace, min_samples_required=2, min_time_slice=math.inf)  # type: ignore[arg-type]
    if settings.scheduler == "hyperband":
        return HyperBand(**judged, max_t=epochs, reduction_factor=settings.reduction)
    return schedulers.PopulationBasedTraining(
        **judged,
        perturbation_interval=settings.interval,
        burn_in_period=grace,
        quantile_fraction=settings.quantile,
        hyperparam_mutations=_mutations(experiment),
        log_config=False,
        require_attrs=False,  # a row without the metric changes nothing
    )


class Asha(schedulers.ASHAScheduler):
    """Ray Tune's, which can also replay the rows of trials from before the sweep resumed."""

    def replay(self, trial: Any, rows: Sequence[Row]) -> None:
        controller: Any = None  # unused
        self.on_trial_add(controller, trial)
        for row in rows:
            self.on_trial_result(controller, trial, row)


class Median(schedulers.MedianStoppingRule):
    """Ray Tune's, with `replay`, and without its error at the end of a trial whose last row lacks the metric."""

    def replay(self, trial: Any, rows: Sequence[Row]) -> None:
        if scored := [row for row in rows if self._metric in row]:
            self._results[trial] = scored

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Row) -> None:
        """Do nothing: each row was counted when it came."""


class HyperBand(schedulers.HyperBandScheduler):
    """Ray Tune's, which would end the sweep at a row without the metric; this one ignores the row."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Row) -> str:
        if self._metric not in result:
            return TrialScheduler.CONTINUE
        return super().on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Row) -> None:
        self.on_trial_remove(tune_controller, trial)


def _mutations(experiment: Experiment) -> dict[str, Any]:
    """Return the search space for population-based training: lists to step along, ranges to draw from."""
    return {
        key: list(getattr(values, values.kind)) if values.kind in ("grid", "choice") else domain
        for (key, values), domain in zip(experiment.search.items(), search_space(experiment).values(), strict=True)
    }


def build_optuna(experiment: Experiment, past: Sequence[Trial] = ()) -> Any:
    """Return an Optuna searcher that knows the scores of the trials so far."""
    from ray.tune.search.optuna import OptunaSearch

    metric, mode = experiment.tune.metric, experiment.tune.mode
    searcher = OptunaSearch(search_space(experiment), metric=metric, mode=mode, seed=experiment.run.seed % 2**32)
    for trial in past:
        if trial.rows and metric in trial.rows[-1]:
            searcher.add_evaluated_point(trial.point, trial.rows[-1][metric])
    return searcher
