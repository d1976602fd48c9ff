"""`tune`: how the trials of a sweep are chosen, compared and stopped."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from doppel_ray.config.search import Space
from doppel_ray.core.schema import Section

PAUSING = ("hyperband", "pbt")
"""Schedulers whose trials wait for each other, so that all must fit side by side."""
OPTUNA = "doppel_ray[optuna]"
MUTABLE = ("pairs.delta", "pairs.layers", "source.mix", "objective.", "optim.", "augment", "train.clip")
"""Keys, or how they begin, that a trial may be given other values of while it runs."""


class TuneConfig(Section):
    """How the trials of a sweep are chosen, compared and stopped."""

    metric: str = "probe/factors/score_valid"
    """What trials and checkpoints are chosen by: a column of their rows, a validation score such as
    probe/esc10/accuracy_valid, or loss. Reported is the test score of what it has chosen, probe/esc10/accuracy."""
    mode: Literal["max", "min"] = "max"
    """Whether more of the metric is better."""
    scheduler: Literal["fifo", "asha", "median", "hyperband", "pbt"] = "asha"
    """fifo: every trial runs to its end. asha: the weaker trials are stopped early (Li et al., 2020). median: those
    whose best is below the median of the others' means are (Golovin et al., 2017). hyperband: brackets of trials wait
    for each other, and the weaker part of each is stopped (Li et al., 2018). pbt: every `interval` epochs the weakest
    go on from a checkpoint of the strongest, with other values (population-based training, Jaderberg et al., 2017)."""
    grace: int = Field(default=1, ge=1)
    """Epochs that every trial may run before it can be stopped or changed (asha, median, pbt)."""
    reduction: float = Field(default=2.0, gt=1.0)
    """Of so many trials that reach a rung one goes on (asha, hyperband)."""
    interval: int = Field(default=1, ge=1)
    """Epochs between changes (pbt)."""
    quantile: float = Field(default=0.25, gt=0.0, le=0.5)
    """Share of the trials that are weakest, and share that are strongest (pbt)."""
    searcher: Literal["random", "optuna"] = "random"
    """random: grids in full, everything else drawn at random from run.seed. optuna: values that did well guide the
    next ones (tree-structured Parzen estimators; the extra `optuna`)."""
    samples: int = Field(default=1, ge=1)
    """Times that the whole grid is run, with fresh random draws each time; trials, where there is no grid."""
    repeats: int = Field(default=1, ge=1)
    """Seeds that each point of the search is run with: run.seed and those after it. Reported as mean and interval."""
    minutes: float | None = Field(default=None, gt=0.0)
    """Budget of time: after so many minutes no trial starts, and those that run end with their next row."""
    pairs: int | None = Field(default=None, ge=1)
    """Budget of pairs, of all trials together: once they are trained no trial starts, and those that run end with
    their next row."""
    concurrent: int | None = Field(default=None, ge=1)
    """Trials side by side, at most; null: as many as fit."""
    max_failures: int = Field(default=3, ge=0)
    """Times that a trial that failed, or whose node was lost, is started again from its last checkpoint."""
    log_to: tuple[Literal["mlflow", "wandb"], ...] = ()
    """Trackers that are told every row, beside TensorBoard (the extras `mlflow` and `wandb`); servers and keys come
    from their own environment variables."""
    log_project: str | None = None
    """What the trackers call the experiment or project; null: the name of the run's folder."""

    def check(self, search: Mapping[str, Space]) -> None:
        """Refuse what this way of searching cannot do with a space.

        Raises:
            ValueError: names the key.
        """
        if self.repeats > 1 and "run.seed" in search:
            raise ValueError(
                f"repeats is {self.repeats}, which gives each point seeds of its own, but search.run.seed does"
            )
        if self.repeats > 1 and (self.searcher == "optuna" or self.scheduler == "pbt"):
            steered = "tune.searcher optuna" if self.searcher == "optuna" else "tune.scheduler pbt"
            raise ValueError(
                f"repeats is {self.repeats}, but {steered} gives each trial values that no other has; use 1"
            )
        for key, space in search.items():
            if self.searcher == "optuna" and space.kind == "grid":
                raise ValueError(f"search.{key} is a grid, which tune.searcher optuna cannot guide; write choice")
            if self.scheduler == "pbt" and not key.startswith(MUTABLE):
                raise ValueError(
                    f"search.{key}: tune.scheduler pbt changes values while trials run, which only "
                    f"{', '.join(name.rstrip('.') for name in MUTABLE)} allow"
                )
        if self.scheduler == "pbt" and self.searcher == "optuna":
            raise ValueError("tune.scheduler pbt chooses values itself; tune.searcher must be random")
