"""`tune`: how the trials of a sweep are chosen, compared and stopped."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from doppel_ray.config.search import Space
from doppel_ray.core.schema import Section

PAUSING = ("hyperband", "pbt")
"""Schedulers whose trials wait for each other, so that all must run side by side."""
OPTUNA = "doppel_ray[optuna]"
MUTABLE = ("pairs.delta", "pairs.layers", "source.mix", "objective.", "optim.", "augment", "train.clip")
"""Keys, or prefixes of keys, whose values may change while a trial runs."""


class TuneConfig(Section):
    """Trials of a sweep: how they are chosen, compared and stopped."""

    metric: str = "probe/factors/score_valid"
    """Metric that chooses trials and checkpoints: a validation score such as probe/esc10/accuracy_valid, or a training
    metric such as loss. For a validation score, reports show the test score of the choice, probe/esc10/accuracy."""
    mode: Literal["max", "min"] = "max"
    """Whether a larger (max) or smaller (min) metric is better."""
    scheduler: Literal["fifo", "asha", "median", "hyperband", "pbt"] = "asha"
    """How weak trials are stopped. fifo: none are. asha: stops weaker trials early (Li et al., 2020). median: stops a
    trial whose best metric is below the median of the other trials' means (Golovin et al., 2017). hyperband: trials of
    a bracket wait for each other, then the weaker ones stop (Li et al., 2018). pbt: every `interval` epochs the weakest
    trials continue from a checkpoint of the strongest with changed values (population-based training, Jaderberg et al.,
    2017)."""
    grace: int = Field(default=1, ge=1)
    """Epochs that every trial runs before it may be stopped or changed (asha, median, pbt)."""
    reduction: float = Field(default=2.0, gt=1.0)
    """Reduction factor: the best 1/`reduction` of the trials at each rung continue (asha, hyperband)."""
    interval: int = Field(default=1, ge=1)
    """Epochs between changes (pbt)."""
    quantile: float = Field(default=0.25, gt=0.0, le=0.5)
    """Fraction of the trials that count as weakest, and as strongest (pbt)."""
    searcher: Literal["random", "optuna"] = "random"
    """How values are chosen. random: all grid combinations, other values drawn at random from run.seed. optuna: earlier
    results guide the next values (tree-structured Parzen estimators; pip install 'doppel_ray[optuna]')."""
    samples: int = Field(default=1, ge=1)
    """Number of passes over the grid, each with new random draws; without a grid, the number of trials."""
    repeats: int = Field(default=1, ge=1)
    """Number of seeds for each point of the search, from run.seed upwards; reports show mean and interval."""
    minutes: float | None = Field(default=None, gt=0.0)
    """Time budget in minutes; afterwards no trial starts, and running trials stop after their current epoch."""
    pairs: int | None = Field(default=None, ge=1)
    """Budget of training pairs, summed over all trials; afterwards no trial starts, and running trials stop after their
    current epoch."""
    concurrent: int | None = Field(default=None, ge=1)
    """Largest number of trials that run at once; null: as many as fit."""
    max_failures: int = Field(default=3, ge=0)
    """Number of restarts of a trial from its last checkpoint after it fails or its node is lost."""
    log_to: tuple[Literal["mlflow", "wandb"], ...] = ()
    """Experiment trackers that receive every epoch's metrics, besides TensorBoard (pip install 'doppel_ray[mlflow]' or
    'doppel_ray[wandb]'). Server and key come from the tracker's own environment variables."""
    log_project: str | None = None
    """Name of the experiment or project in the trackers; null: name of the run's folder."""

    def check(self, search: Mapping[str, Space]) -> None:
        """Refuse a search that the searcher, the scheduler or the repeats cannot handle.

        Raises:
            ValueError: names the key.
        """
        if self.repeats > 1 and "run.seed" in search:
            raise ValueError(
                f"tune.repeats is {self.repeats} and search has run.seed, and both set the seeds; use one of them"
            )
        if self.repeats > 1 and (self.searcher == "optuna" or self.scheduler == "pbt"):
            adaptive = "tune.searcher optuna" if self.searcher == "optuna" else "tune.scheduler pbt"
            raise ValueError(
                f"tune.repeats is {self.repeats}, but {adaptive} gives every trial different values; use tune.repeats 1"
            )
        for key, space in search.items():
            if self.searcher == "optuna" and space.kind == "grid":
                raise ValueError(f"search.{key} is a grid, which tune.searcher optuna does not support; use choice")
            if self.scheduler == "pbt" and not key.startswith(MUTABLE):
                raise ValueError(
                    f"search.{key}: tune.scheduler pbt changes values while trials run, which only "
                    f"{', '.join(name.rstrip('.') for name in MUTABLE)} allow"
                )
        if self.scheduler == "pbt" and self.searcher == "optuna":
            raise ValueError("tune.scheduler pbt chooses values itself; use tune.searcher random")
