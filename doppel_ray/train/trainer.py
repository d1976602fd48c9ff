"""Ray Train around the training loop, and its record of a trial."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray.train
from ray.train import FailureConfig, ScalingConfig
from ray.train.torch import TorchConfig

from doppel_ray.cluster import ray_env
from doppel_ray.config.experiment import Experiment
from doppel_ray.models import checkpoint
from doppel_ray.runs import lineage
from doppel_ray.train import ray_snapshot
from doppel_ray.train.elastic import WorkerScaling
from doppel_ray.train.lean_trainer import LeanTrainer
from doppel_ray.train.loop import train_loop
from doppel_ray.train.stream.dataset import Stream

COLLECTIVE_TIMEOUT = 300
"""Seconds that a worker waits for the others in a collective operation."""


def snapshot(folder: Path) -> list[dict[str, Any]]:
    """Return the checkpoints that Ray Train has registered for a trial since its last fork, oldest first.

    Args:
        folder: the trial's.

    Returns:
        For each: "checkpoint" (its folder) and "metrics".
    """
    run = folder / lineage.train_run(folder)
    if not (run / ray_snapshot.SNAPSHOT).exists():
        return []
    state = ray_snapshot.read(run)
    found = {result["checkpoint_dir_name"]: result for result in state["checkpoint_results"]}
    if latest := state.get("latest_checkpoint_result"):
        found[latest["checkpoint_dir_name"]] = latest
    return [
        {"checkpoint": run / name, "metrics": result["metrics"]}
        for name, result in sorted(found.items(), key=lambda item: item[1]["metrics"]["pairs"])
    ]


def next_index(folder: Path) -> int:
    """Return the first index that a trial's newest checkpoint, or the one it was forked from, has not used."""
    if known := snapshot(folder):
        return int(known[-1]["metrics"]["pairs"])
    past = lineage.forks(folder)
    return checkpoint.position(Path(past[-1].source)).next_index if past else 0


def build_trainer(
    experiment: Experiment, folder: Path, callbacks: list[ray.train.UserCallback], workers: int, scaling: WorkerScaling
) -> LeanTrainer:
    """Return Ray Train's trainer for one trial.

    Args:
        experiment: one point of the search.
        folder: the trial's. A new trainer for the same folder resumes from the newest checkpoint there.
        callbacks: Ray Train's user callbacks.
        workers: train workers. If `train.workers` is a range, the trainer ends when a worker is lost, or when there is
            no room for more than the fewest; another trainer, with as many as there is room for, then continues.
        scaling: the part of the cluster that the trial may use.
    """
    train = experiment.train
    attempts = ray_env.start_attempts(train.start_timeout)
    failures = FailureConfig(  # type: ignore[call-arg]  # annotated as the older one, is Train V2's
        max_failures=0 if train.elastic else train.max_failures,
        controller_failure_limit=0 if train.elastic and workers > train.worker_counts[-1] else attempts - 1,
        max_preemption_failures=0 if train.elastic else -1,
    )
    stream = Stream(
        experiment=experiment.plain(),
        pools=experiment.generators,
        data=experiment.data,
        local_batch=train.batch_size // workers,
        stop=train.steps * train.batch_size,
    )
    past = lineage.forks(folder)
    config = {
        "experiment": experiment.plain(),
        "folder": str(folder),
        "source": past[-1].source if past else None,
        "drains": ray_env.watches_preemption(),
        "scaling": asdict(scaling),
    }
    resources = {"CPU": train.cpus_per_worker}
    if train.gpus_per_worker:
        resources["GPU"] = train.gpus_per_worker
    return LeanTrainer(
        train_loop,
        train_loop_config=config,
        torch_config=TorchConfig(timeout_s=COLLECTIVE_TIMEOUT),
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=train.gpus_per_worker > 0, resources_per_worker=resources
        ),
        # A function: the controller calls it at each start of a worker group, so that a restarted group resumes at the
        # index of its checkpoint. A dataset would start again at its first index.
        datasets={"pairs": lambda: stream.dataset(next_index(folder))},
        dataset_config=ray.train.DataConfig(execution_options=stream.execution_options(), enable_shard_locality=False),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # annotated as the older one, is Train V2's
            name=lineage.train_run(folder),
            storage_path=str(folder),
            failure_config=failures,
            worker_runtime_env={} if train.gpus_per_worker else {"env_vars": ray_env.TRAIN_WORKER},
            callbacks=callbacks,  # type: ignore[arg-type]  # annotated as Tune's Callback, takes Train's
        ),
    )
