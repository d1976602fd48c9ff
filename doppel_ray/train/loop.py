"""The loop of one train worker, and the trainer around it; `python -m doppel_ray.train` runs one configuration."""

import doppel_ray.cluster.ray_env  # isort: skip  # noqa: F401  # before anything of Ray's

import contextlib
import logging
import math
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray.train
import ray.train.torch
import torch
from ray.train import Checkpoint

from doppel_ray.config.train import TrainConfig
from doppel_ray.core.logs import log_to
from doppel_ray.models.checkpoint import Position
from doppel_ray.models.learner import DivergedError, Learner
from doppel_ray.runs.lock import ORPHANS, WORKER_LOCK, lock_folder
from doppel_ray.runs.metrics_log import EARLY, RESIZE, format_speed
from doppel_ray.train.early import CheckpointTrigger
from doppel_ray.train.elastic import WorkerScaling, agreed
from doppel_ray.train.energy import Meter
from doppel_ray.train.notices import Ec2SpotNotices
from doppel_ray.train.prefetch import Prefetcher
from doppel_ray.train.step_log import Means, StepLog, _memory_mb

if TYPE_CHECKING:
    from doppel_ray.config.experiment import Experiment

log = logging.getLogger(__name__)

MOST_RETURNS = 3
"""Times that a trial may go back to its last checkpoint after the loss was no number or the embedding collapsed."""


# --- one worker -----------------------------------------------------------------------------------------------------


def train_loop(config: dict[str, Any]) -> None:
    """What each train worker runs.

    Args:
        config: "experiment" as plain data; "folder", the trial's; "source", the checkpoint that it goes on from before
            it has one of its own, or None; "drains", whether Ray says it when a node is to be drained; "room", what the
            trial may count on.
    """
    from doppel_ray.config.experiment import Experiment

    experiment, folder = Experiment.model_validate(config["experiment"]), Path(config["folder"])
    rank = ray.train.get_context().get_world_rank()
    log_to(folder / f"worker_{rank}.log")
    alone = lock_folder(folder, WORKER_LOCK, ORPHANS) if rank == 0 and folder.is_dir() else contextlib.nullcontext()
    with alone:
        _train(experiment, folder, rank, config["source"], config["drains"], WorkerScaling(**config["room"]))


def _train(
    experiment: "Experiment", folder: Path, rank: int, source: str | None, drains: bool, room: WorkerScaling
) -> None:
    train, workers = experiment.train, ray.train.get_context().get_world_size()
    device = ray.train.torch.get_device()
    torch.set_num_threads(max(1, round(train.cpus_per_worker)))

    classes = classes_of(experiment)
    learner = Learner(experiment, classes, device, workers)
    log.info("computes in %s", learner.precision)
    position = Position()
    saved = ray.train.get_checkpoint()
    if saved is None and source is not None:
        saved = Checkpoint.from_directory(source)
    if saved is not None:
        with saved.as_directory() as weights:
            position = learner.load(Path(weights))
        log.info("goes on after epoch %d, at index %d", position.epoch, position.next_index)
    if train.on_divergence == "return":
        learner.keep()

    shard = ray.train.get_dataset_shard("pairs")
    batches = shard.iter_batches(
        batch_size=train.batch_size // workers,
        batch_format="numpy",
        prefetch_batches=experiment.data.prefetch_batches,
        drop_last=True,
    )
    feed = Prefetcher(iter(batches), device, train.data_timeout)
    means, steps = Means(), StepLog(folder if rank == 0 else None, train.log_every, position.step)
    early = CheckpointTrigger(
        train.checkpoint_minutes, Ec2SpotNotices(train.spot_address) if train.spot == "aws" else None, drains, device
    )
    energy = Meter()  # the row is the first worker's
    restarts: set[int] = set()
    step, index, within = position.step, position.next_index, position.within
    first = feed.next() if position.epoch < train.epochs else None  # the clock starts once the generators have
    for epoch in range(position.epoch, train.epochs):
        began, feed.waited = time.perf_counter(), 0.0
        pairs_from, skipped = index, 0
        energy.take()  # what went by between epochs is not this one's
        try:
            for done in range(within + 1, train.steps_per_epoch + 1):
                features, labels, ids, columns = first or feed.next()
                first = None
                _expect(columns["index"], index, train.batch_size)
                restarts |= set(columns["generator"][columns["restarted"]].tolist())
                skipped += _tell_skipped(columns["skipped"])
                try:
                    found = learner.step(features, labels, ids, columns["index"], step)
                except DivergedError as error:
                    _rollback(learner, error, index, train)
                    found = {}
                step, index = step + 1, index + train.batch_size
                found["generator_seconds_per_pair"] = float(columns["seconds"].mean())
                means.add(**found)
                steps.add(step, feed.waited, train.batch_size, found)
                energy.update()
                if done < train.steps_per_epoch and (reason := early.reason(step)) is not None:
                    log.info("checkpoint within epoch %d, at index %d: %s", epoch + 1, index, reason)
                    at = {"epoch": epoch, "step": step, "pairs": index, "pairs_from": pairs_from, EARLY: reason}
                    if train.on_divergence == "return":
                        learner.keep()
                    _report(learner, Position(epoch, step, index, done), at, rank)
            within = 0
            metrics: dict[str, Any] = means.take()
            spread = learner.spread()  # every worker takes part
            try:
                learner.check(metrics.get("uniformity", -math.inf), math.inf if spread is None else spread)
            except DivergedError as error:
                _rollback(learner, error, index, train)
        except DivergedError as error:  # to stop here was asked for
            log.error("%s", error)
            ray.train.report({"diverged": str(error), "epoch": epoch + 1, "step": step}, checkpoint=None)
            break
        seconds = time.perf_counter() - began
        metrics |= {
            "epoch": epoch + 1,
            "step": step,
            "pairs": index,
            "pairs_from": pairs_from,
            "pairs_per_second": (index - pairs_from) / seconds,
            "wait_share": feed.waited / seconds,
            "train_seconds": seconds,
            "memory_mb": _memory_mb(),
            "workers": workers,
            "generator_restarts": len(restarts),
            "recordings_skipped": skipped,
            "returns": learner.returns,
            "precision": learner.precision,
        }
        if spread is not None:
            metrics["effective_rank"] = spread
        if (joules := energy.take()) is not None:
            metrics["energy_joules"] = joules
        log.info("epoch %d: %s", epoch + 1, format_speed(metrics))
        if train.on_divergence == "return":
            learner.keep()
        more = None
        if train.elastic and epoch + 1 < train.epochs:
            more = agreed(room.more(experiment, workers) if rank == 0 else None, workers, device)
        _report(learner, Position(epoch + 1, step, index), metrics | ({RESIZE: more} if more else {}), rank)
        if more:
            log.info("there is room for %d train workers: training goes on with so many", more)
            break


def classes_of(experiment: "Experiment") -> tuple[str, ...]:
    """The classes that an objective with labels tells apart; none if it has no use for them."""
    if not experiment.objective.needs_labels or experiment.source.share == 0.0:
        return ()
    return experiment.source.recordings.catalogue().classes


def _rollback(learner: Learner, error: DivergedError, index: int, train: TrainConfig) -> None:
    """Return to the last checkpoint's weights, or raise `error` again if the run is to stop, or has returned often."""
    if train.on_divergence == "stop" or learner.returns >= MOST_RETURNS:
        raise DivergedError(f"{error} (batch from index {index} on)") from error
    learner.rollback()
    log.warning(
        "%s (batch from index %d on); goes on from the last checkpoint's weights with half the learning rate",
        error,
        index,
    )


def _tell_skipped(told: np.ndarray) -> int:
    """Log the recordings that generators could not use, each once; returns how many."""
    lines = [line for text in told if text for line in text.splitlines()]
    for line in lines:
        log.warning("recording skipped, %s", line)
    return len(lines)


def _expect(found: np.ndarray, start: int, batch: int) -> None:
    """Every index of a batch lies in the range that this step consumes: the stream is where the checkpoint left it."""
    if found.min() < start or found.max() >= start + batch:
        raise RuntimeError(
            f"the stream gave indices {found.min()} to {found.max()} where {start} to {start + batch - 1} were due"
        )


def _report(learner: Learner, position: Position, metrics: dict[str, Any], rank: int) -> None:
    """Report an epoch, or a part of one; the first worker's checkpoint goes with it. Every worker must take part."""
    learner.settle()
    if rank > 0:
        ray.train.report(metrics, checkpoint=None, checkpoint_dir_name=position.name)
        return
    with tempfile.TemporaryDirectory() as folder:
        learner.save(Path(folder), position, metrics)
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder), checkpoint_dir_name=position.name)


# --- the trainer ------------------------------------------------------------------------------------------------------
