"""What chooses, stops and changes trials: Ray Tune's parts, as the `search` and `tune` sections ask for them."""

import re
from typing import TYPE_CHECKING, Any

from doppel_ray.search import OPTUNA, PAUSING, label
from doppel_ray.section import ConfigError

if TYPE_CHECKING:
    from doppel_ray.config import Experiment


def trial_name(tune_trial: Any) -> str:
    """`003_delta=0.05`: the trial's number (or what a searcher calls it) and what the search gave it."""
    number = tune_trial.trial_id.rpartition("_")[2]
    number = f"{int(number):03d}" if number.isdecimal() else number
    values = "_".join(f"{key.rpartition('.')[2]}={label(value)}" for key, value in tune_trial.config.items())
    return re.sub(r"[^A-Za-z0-9=._+-]", "-", f"{number}_{values}".rstrip("_"))[:80]


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


def trial_count(experiment: "Experiment") -> int:
    """Trials of the whole sweep."""
    grid = 1
    for values in experiment.search.values():
        grid *= len(values.grid) if values.grid is not None else 1
    return grid * experiment.tune.samples


def scheduler(experiment: "Experiment") -> Any:
    """What stops, pauses or changes trials while they run."""
    from ray.tune import schedulers

    tune, epochs = experiment.tune, experiment.train.epochs
    judged: dict[str, Any] = {"time_attr": "epoch", "metric": tune.metric, "mode": tune.mode}
    grace = min(tune.grace, epochs)
    if tune.scheduler == "fifo":
        return schedulers.FIFOScheduler()
    if tune.scheduler == "asha":
        return schedulers.ASHAScheduler(
            **judged, max_t=epochs, grace_period=grace, reduction_factor=tune.reduction, brackets=1
        )
    if tune.scheduler == "median":
        return schedulers.MedianStoppingRule(**judged, grace_period=grace, min_samples_required=2)
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


def searcher(experiment: "Experiment", concurrent: int) -> Any:
    """What chooses the values of trials.

    Args:
        experiment: what is swept.
        concurrent: trials side by side, at most.
    """
    from ray.tune.search import ConcurrencyLimiter
    from ray.tune.search.basic_variant import BasicVariantGenerator

    tune, seed = experiment.tune, experiment.run.seed % 2**32
    if tune.searcher == "random":
        return BasicVariantGenerator(random_state=seed, max_concurrent=concurrent)
    from ray.tune.search.optuna import OptunaSearch

    found = OptunaSearch(space(experiment), metric=tune.metric, mode=tune.mode, seed=seed)
    return ConcurrencyLimiter(found, max_concurrent=concurrent)


def check(experiment: "Experiment", concurrent: int | None) -> None:
    """Refuse what is not installed, and trials that would wait for others that have no room.

    Args:
        experiment: what is swept.
        concurrent: trials that run side by side; None: not known yet.

    Raises:
        ConfigError: says what is missing, and how to mend it.
    """
    import importlib.util

    scheduler, trials = experiment.tune.scheduler, trial_count(experiment)
    if scheduler in PAUSING and concurrent is not None and trials > concurrent:
        raise ConfigError(
            f"tune.scheduler is {scheduler!r}, whose trials wait for each other: all {trials} must run side by side, "
            f"and {concurrent} fit; lower tune.samples or the trials' CPUs (train.cpus_per_worker, "
            "generators.0.num_cpus, probes.cpus), or raise tune.concurrent"
        )
    if scheduler == "pbt" and not experiment.search:
        raise ConfigError("tune.scheduler is 'pbt', and search: is empty: there is nothing to change")
    if experiment.tune.searcher == "optuna" and importlib.util.find_spec("optuna") is None:
        raise ConfigError(f"tune.searcher is 'optuna', which is not installed: pip install '{OPTUNA}'")
    for name in experiment.tune.log_to:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"tune.log_to has {name!r}, which is not installed: pip install 'doppel_ray[{name}]'")
