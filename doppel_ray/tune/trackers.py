"""Experiment trackers beside TensorBoard (`tune.log_to`): Ray's own callbacks, which get the numbers of each row.

The x-axis is the optimizer's step, as in TensorBoard. Servers, keys and modes come from the trackers' own environment
variables, such as MLFLOW_TRACKING_URI, WANDB_API_KEY and WANDB_MODE, and are never part of a configuration.
"""

import contextlib
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.air.integrations.wandb import WandbLoggerCallback
from ray.tune import Callback
from ray.tune.result import AUTO_RESULT_KEYS, TRAINING_ITERATION
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from doppel_ray.cluster.ray_compat import _WandbLoggingActor
from doppel_ray.config.experiment import Experiment
from doppel_ray.config.search import label
from doppel_ray.core.errors import ConfigError
from doppel_ray.runs.metrics_log import Row, numbers

log = logging.getLogger(__name__)

TUNE_COLUMNS = {*AUTO_RESULT_KEYS, "done", "trial_id"}
"""Columns that Ray Tune adds to a row."""
UPLOAD_TIMEOUT = 120
"""Seconds that the end of a sweep waits for uploads."""


def callbacks(experiment: Experiment, folder: Path) -> list[Callback]:
    """Return the callbacks of the trackers that a sweep logs to.

    Args:
        experiment: the sweep's.
        folder: the sweep's, whose name it has in the trackers.
    """
    project = experiment.tune.log_project or folder.name
    makers = {
        "mlflow": lambda: MLflow(experiment_name=project, tags={"sweep": folder.name}),
        "wandb": lambda: WandB(
            project=project, group=folder.name, dir=str(folder), resume="allow", upload_timeout=UPLOAD_TIMEOUT
        ),
    }
    return [makers[name]() for name in experiment.tune.log_to]


def _numbers(result: Row) -> dict[str, float]:
    """Return a row's numbers, with epoch and pairs as other x-axes."""
    found = numbers({name: value for name, value in result.items() if name not in TUNE_COLUMNS})
    return found | {name: result[name] for name in ("epoch", "pairs")}


class _WandBProcess(_WandbLoggingActor):
    """Logs one trial to W&B, with the driver's environment variables of W&B."""

    def __init__(self, *args: Any, environment: dict[str, str], **settings: Any) -> None:
        os.environ.update(environment)
        super().__init__(*args, **settings)


class WandB(WandbLoggerCallback):
    """Weights & Biases: a project, a group for each sweep, a run for each trial."""

    def setup(self, *args: Any, **info: Any) -> None:
        try:
            super().setup(*args, **info)
        except ValueError as error:
            raise ConfigError(f"tune.log_to has 'wandb': {error}") from None
        # Ray's callback passes the key in a runtime environment, which appears in Ray's logs.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        process: Any = ray.remote(_WandBProcess)
        self._remote_logger_class = process.options(num_cpus=0, scheduling_strategy=here)

    def _start_logging_actor(self, trial: Any, exclude_results: list[str], **settings: Any) -> None:
        environment = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}
        super()._start_logging_actor(trial, exclude_results, environment=environment, **settings)

    def log_trial_result(self, iteration: int, trial: Any, result: Row) -> None:
        super().log_trial_result(iteration, trial, _numbers(result) | {TRAINING_ITERATION: result["step"]})

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        for trial in list(self._trial_queues):  # an interrupted sweep's have not ended, and would be waited for
            self._signal_logging_actor_stop(trial=trial)
        super().on_experiment_end(trials, **info)


class MLflow(MLflowLoggerCallback):
    """MLflow: an experiment, a run for each trial. Points are lost, and no trial fails, while the server is away."""

    def setup(self, *args: Any, **info: Any) -> None:
        from mlflow.exceptions import MlflowException

        try:
            super().setup(*args, **info)
        except MlflowException as error:
            raise ConfigError(f"tune.log_to has 'mlflow': {error}") from None

    def log_trial_start(self, trial: Any) -> None:
        from mlflow import MlflowClient

        if trial in self._trial_runs:  # it was paused, or continues with other values, which its rows hold
            return
        with _log_errors(trial):
            client, where = MlflowClient(), self.mlflow_util.experiment_id
            # A resumed sweep finds its trials by their ids.
            known = client.search_runs([where], f"tags.trial_id = '{trial.trial_id}'")
            tags = {**(self.tags or {}), "trial_id": trial.trial_id}
            run = (known[0] if known else client.create_run(where, run_name=str(trial), tags=tags)).info.run_id
            if known:
                client.update_run(run, status="RUNNING")
            else:
                for key, value in trial.config.items():
                    client.log_param(run, key, label(value))
            self._trial_runs[trial] = run

    def log_trial_result(self, iteration: int, trial: Any, result: Row) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        self.log_trial_start(trial)
        if trial not in self._trial_runs:
            return
        now = int(1000 * time.time())
        points = [
            Metric(re.sub(r"[^\w\-./: ]", "_", name), value, now, result["step"])
            for name, value in _numbers(result).items()
        ]
        with _log_errors(trial):
            MlflowClient().log_batch(self._trial_runs[trial], metrics=points)  # one request, where Ray sends dozens

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        if trial in self._trial_runs:
            with _log_errors(trial):
                super().log_trial_end(trial, failed)


@contextlib.contextmanager
def _log_errors(trial: Any) -> Iterator[None]:
    """Log tracker errors instead of raising: a failed upload must not stop training."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        log.warning("MLflow does not get the rows of %s: %s", trial, error)
