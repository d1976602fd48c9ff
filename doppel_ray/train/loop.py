"""The training loop of one train worker."""

import doppel_ray.cluster.ray_env  # isort: skip  # noqa: F401  # before anything of Ray's

import contextlib
import logging
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import ray.train.torch
import torch
from ray.train import Checkpoint

from doppel_ray.config.experiment import Experiment
from doppel_ray.core.logs import log_to
from doppel_ray.models.checkpoint import Position
from doppel_ray.models.learner import DivergedError, Learner
from doppel_ray.runs.folder import check_visible
from doppel_ray.runs.lock import ORPHANS, WORKER_LOCK, lock_folder
from doppel_ray.runs.metrics_log import EARLY, RESIZE, format_speed
from doppel_ray.runs.reader import EXPERIMENT
from doppel_ray.train.elastic import WorkerScaling, broadcast_count
from doppel_ray.train.preemption import CheckpointTrigger, Ec2SpotNotices
from doppel_ray.train.prefetch import Batch, Prefetcher
from doppel_ray.train.step_log import EpochMetrics, StepLog

log = logging.getLogger(__name__)

MAX_ROLLBACKS = 3
"""Rollbacks to the last checkpoint after which a trial that diverges again ends."""


def train_loop(config: dict[str, Any]) -> None:
    """Train in this process, which is one of the train workers.

    Args:
        config: "experiment" as plain data; "folder", the trial's; "source", the checkpoint to start from while the
            trial has none of its own, or None; "drains", whether Ray announces the draining of a node; "scaling", the
            fields of `WorkerScaling`.
    """
    experiment, folder = Experiment.model_validate(config["experiment"]), Path(config["folder"])
    # Else this node's own disk would take the checkpoints, and may be gone with them.
    check_visible(folder / EXPERIMENT)
    rank = ray.train.get_context().get_world_rank()
    log_to(folder / f"worker_{rank}.log")
    alone = lock_folder(folder, WORKER_LOCK, ORPHANS) if rank == 0 and folder.is_dir() else contextlib.nullcontext()
    with alone:
        worker = TrainWorker(experiment, folder, WorkerScaling(**config["scaling"]), config["drains"])
        worker.resume(config["source"])
        try:
            worker.train()
        except DivergedError as error:  # train.on_divergence stop, or too many rollbacks
            worker.report_divergence(error)


class TrainWorker:
    """One train worker: a learner, its batches, and what it reports. All workers call the same methods in step.

    Args:
        experiment: one point of the search.
        folder: the trial's.
        scaling: the part of the cluster that the trial may use.
        drains: whether Ray announces the draining of a node.
    """

    def __init__(self, experiment: Experiment, folder: Path, scaling: WorkerScaling, drains: bool) -> None:
        self.experiment, self.folder, self.scaling = experiment, folder, scaling
        self.config = config = experiment.train
        context = ray.train.get_context()
        self.rank, self.workers = context.get_world_rank(), context.get_world_size()
        self.device = ray.train.torch.get_device()
        torch.set_num_threads(max(1, round(config.cpus_per_worker)))
        self.learner = Learner(experiment, label_classes(experiment), self.device, self.workers)
        log.info("computes in %s", self.learner.precision)
        cloud = Ec2SpotNotices(config.spot_address) if config.spot == "aws" else None
        self.trigger = CheckpointTrigger(config.checkpoint_minutes, cloud, drains, self.device)
        self.position = Position()

    def resume(self, source: str | None) -> None:
        """Load the trial's newest checkpoint or, if it has none, `source`; open the stream there."""
        saved = ray.train.get_checkpoint() or (Checkpoint.from_directory(source) if source is not None else None)
        if saved is not None:
            with saved.as_directory() as folder:
                self.position = self.learner.load(Path(folder))
            log.info("resumes after epoch %d, at index %d", self.position.epoch, self.position.next_index)
        self.keep_weights()
        columns = ray.train.get_dataset_shard("pairs").iter_batches(
            batch_size=self.config.batch_size // self.workers,
            batch_format="numpy",
            prefetch_batches=self.experiment.data.prefetch_batches,
            drop_last=True,
        )
        self.batches = Prefetcher(iter(columns), self.device, self.config.data_timeout)
        steps = StepLog(self.folder if self.rank == 0 else None, self.config.log_every, self.position.step)
        self.metrics = EpochMetrics(steps, self.config.batch_size)

    def train(self) -> None:
        """Train to the last epoch, or to one after which there is room for more workers.

        Raises:
            DivergedError: training diverged, and may not roll back (again).
        """
        steps = self.config.steps_per_epoch
        if self.position.epoch < self.config.epochs:
            self.batches.wait_for_first()
        for _ in range(self.position.epoch, self.config.epochs):
            self.metrics.start(self.position.next_index)
            for batch in self.batches.take(steps - self.position.within):
                found = self.train_step(batch)
                self.metrics.add(batch, found, self.position.step)
                if self.position.within < steps and (reason := self.trigger.due(self.position.step)):
                    self.save_mid_epoch(reason)
            row = self.end_epoch()
            workers = self.more_workers()
            self.report_epoch(row, workers)
            if workers is not None:
                log.info("there is room for %d train workers: training restarts with them", workers)
                return

    def train_step(self, batch: Batch) -> dict[str, float]:
        """Take one optimizer step, or roll back if it diverges; return the learner's metrics."""
        check_indices(batch.index, self.position.next_index, self.config.batch_size)
        try:
            found = self.learner.step(batch.features, batch.labels, batch.ids, batch.index, self.position.step)
        except DivergedError as error:
            self.rollback(error)
            found = {}
        at = self.position
        index = at.next_index + self.config.batch_size
        self.position = replace(at, step=at.step + 1, next_index=index, within=at.within + 1)
        return found

    def end_epoch(self) -> dict[str, Any]:
        """Return the epoch's metrics; roll back if the embedding has collapsed."""
        row = self.metrics.take(self.position.next_index)
        rank = self.learner.spread()
        if rank is not None:
            row["effective_rank"] = rank
        try:
            self.learner.check(row.get("uniformity", -math.inf), math.inf if rank is None else rank)
        except DivergedError as error:
            self.rollback(error)
        self.position = replace(self.position, epoch=self.position.epoch + 1, within=0)
        return row

    def rollback(self, error: DivergedError) -> None:
        """Restore the last checkpoint's weights; raise `error` instead if that is not allowed (any more)."""
        index = self.position.next_index
        if self.config.on_divergence == "stop" or self.learner.returns >= MAX_ROLLBACKS:
            raise DivergedError(f"{error} (batch from index {index} on)") from error
        self.learner.rollback()
        log.warning(
            "%s (batch from index %d on); continues from the last checkpoint's weights with half the learning rate",
            error,
            index,
        )

    def more_workers(self) -> int | None:
        """Return a larger number of workers that there is room for, the same on every worker, or None."""
        if not self.config.elastic or self.position.epoch == self.config.epochs:
            return None
        found = self.scaling.more(self.experiment, self.workers) if self.rank == 0 else None
        return broadcast_count(found, self.workers, self.device)

    def report_epoch(self, row: dict[str, Any], more_workers: int | None) -> None:
        """Report the epoch's row with a checkpoint; `more_workers` is the number to restart with, if any."""
        learner, position = self.learner, self.position
        metrics = row | {"epoch": position.epoch, "step": position.step, "workers": self.workers}
        metrics |= {"returns": learner.returns, "precision": learner.precision}
        log.info("epoch %d: %s", position.epoch, format_speed(metrics))
        self.save(metrics | ({RESIZE: more_workers} if more_workers else {}))

    def save_mid_epoch(self, reason: str) -> None:
        """Report a checkpoint within the epoch, which makes no row."""
        at = self.position
        log.info("checkpoint within epoch %d, at index %d: %s", at.epoch + 1, at.next_index, reason)
        pairs = {"pairs": at.next_index, "pairs_from": self.metrics.pairs_from}
        self.save({"epoch": at.epoch, "step": at.step, EARLY: reason} | pairs)

    def save(self, metrics: dict[str, Any]) -> None:
        """Report metrics and a checkpoint, which the first worker writes."""
        self.keep_weights()
        self.learner.settle()
        name = self.position.name
        if self.rank > 0:
            ray.train.report(metrics, checkpoint=None, checkpoint_dir_name=name)
            return
        with tempfile.TemporaryDirectory() as folder:
            self.learner.save(Path(folder), self.position, metrics)
            ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder), checkpoint_dir_name=name)

    def keep_weights(self) -> None:
        """Keep a copy of the present weights for `rollback`, if it may be needed."""
        if self.config.on_divergence == "return":
            self.learner.keep()

    def report_divergence(self, error: DivergedError) -> None:
        """Report why training ends, without a checkpoint."""
        log.error("%s", error)
        metrics = {"diverged": str(error), "epoch": self.position.epoch + 1, "step": self.position.step}
        ray.train.report(metrics, checkpoint=None)


def label_classes(experiment: Experiment) -> tuple[str, ...]:
    """Return the classes of a labelled objective; none if it does not use labels."""
    if not experiment.objective.needs_labels or experiment.source.share == 0.0:
        return ()
    return experiment.source.recordings.catalogue().classes


def check_indices(found: np.ndarray, start: int, batch_size: int) -> None:
    """Raise if a batch holds indices of another step: the stream must continue where the checkpoint left it."""
    if found.min() < start or found.max() >= start + batch_size:
        raise RuntimeError(
            f"the stream gave indices {found.min()} to {found.max()}; expected {start} to {start + batch_size - 1}"
        )
