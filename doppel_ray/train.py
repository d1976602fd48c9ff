"""The loop of one train worker, and the trainer around it; `python -m doppel_ray.train` runs one configuration."""

import doppel_ray.environment  # isort: skip  # noqa: F401  # before anything of Ray's

import contextlib
import json
import logging
import math
import queue
import resource
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import ray.train
import torch
from pydantic import Field, model_validator
from ray.train import Checkpoint, FailureConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from torch import Tensor

from doppel_ray import checkpoint, environment, lineage, registry
from doppel_ray.checkpoint import Position
from doppel_ray.data import Stream
from doppel_ray.early import Early
from doppel_ray.elastic import Room, agreed
from doppel_ray.energy import Meter
from doppel_ray.hold import ORPHANS, WORKER_LOCK, hold
from doppel_ray.keep import Keep
from doppel_ray.learner import DivergedError, Learner
from doppel_ray.notices import Aws
from doppel_ray.rows import EARLY, RESIZE, STEPS
from doppel_ray.section import Range, Section

if TYPE_CHECKING:
    from doppel_ray.config import Experiment

log = logging.getLogger(__name__)

START_ATTEMPTS = 5
"""Times that a worker group may fail to start; each waits RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S for its resources."""
MOST_RETURNS = 3
"""Times that a trial may go back to its last checkpoint after the loss was no number or the embedding collapsed."""
COLLECTIVE_TIMEOUT = 300
"""Seconds that a worker waits for the others in a collective operation."""


class TrainConfig(Section):
    """How long, how wide and on what the model is trained."""

    epochs: int = Field(default=200, ge=1)
    """Epochs: ranges of fresh indices, after each of which there is a checkpoint."""
    pairs_per_epoch: int = Field(default=100_000, ge=1)
    """Pairs of an epoch; rounded down to whole batches."""
    batch_size: int = Field(default=768, ge=2)
    """Pairs of a batch, over all workers together."""
    workers: Range = (1, 1)
    """Train workers (DDP); each takes batch_size / workers pairs of every batch. A range such as 1..4: as many as there
    is room for; a trial goes on with fewer when nodes are gone, and after an epoch with more when there are some."""
    cpus_per_worker: float = Field(default=1.0, gt=0.0)
    """CPUs of each train worker: what it reserves, and (rounded) the threads it computes with."""
    gpus_per_worker: float = Field(default=0.0, ge=0.0)
    """GPUs of each train worker; 0: it trains on the CPU."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16: autocast to bfloat16. auto: bf16 if the GPU or CPU of every train worker has units for it (AMX or
    AVX512_BF16 on CPUs), else fp32; each row says which of them it was."""
    clip: float | None = Field(default=None, gt=0.0)
    """Largest norm of the gradient; null: no clipping."""
    max_failures: int = Field(default=3, ge=0)
    """Times that a lost or failed worker group is started again from the last checkpoint."""
    data_timeout: float = Field(default=300.0, gt=0.0)
    """Seconds that a worker waits for one batch before it gives up and says why."""
    checkpoint_minutes: float | None = Field(default=None, gt=0.0)
    """Minutes after which there is a checkpoint within an epoch too; null: only after each epoch."""
    spot: Literal["none", "aws"] = "none"
    """Whose notices that a node is about to be taken away lead to a checkpoint at once. aws: EC2's, from its metadata
    service. Those of Ray itself (`ray drain-node`, an autoscaler) always do on a cluster."""
    spot_address: str = "http://169.254.169.254"
    """Where a node asks for them: the metadata service."""
    keep: Keep | None = None
    """Checkpoints of a trial to keep: `{best: 2, last: 1}` are the best by tune.metric and the newest, 3 the newest
    three; null: all."""
    init: Path | None = None
    """Checkpoint whose encoder training starts from, to fine-tune it; null: random weights."""
    on_divergence: Literal["stop", "return"] = "stop"
    """When loss, gradient, embedding or weights are NaN or infinite, or the embedding has collapsed. stop: end the
    trial, with its last good checkpoint.
    return: go on from the weights of that checkpoint with half the learning rate, up to three times."""
    log_every: int = Field(default=10, ge=1)
    """Steps between points of TensorBoard's curves by step."""

    @model_validator(mode="after")
    def _consistent(self) -> "TrainConfig":
        low, high = self.workers
        if not 1 <= low <= high:
            raise ValueError(f"workers is {low}..{high}; expected at least 1, the first number not above the second")
        for workers in (high, low):
            if self.batch_size % workers:
                near = self.batch_size - self.batch_size % workers
                raise ValueError(
                    f"batch_size {self.batch_size} does not divide over {workers} workers; "
                    f"the nearest that does is {near or workers}"
                )
        if self.batch_size < 2 * high:
            raise ValueError(
                f"batch_size {self.batch_size} leaves {self.batch_size // high} pair for each of {high} workers; "
                "at least 2 are needed"
            )
        if self.pairs_per_epoch < self.batch_size:
            raise ValueError(f"pairs_per_epoch {self.pairs_per_epoch} is less than one batch of {self.batch_size}")
        return self

    @property
    def worker_counts(self) -> tuple[int, ...]:
        """The numbers of workers that are allowed and that the batch divides over, largest first."""
        low, high = self.workers
        return tuple(count for count in range(high, low - 1, -1) if self.batch_size % count == 0)

    @property
    def elastic(self) -> bool:
        """Whether the number of workers may change."""
        return len(self.worker_counts) > 1

    @property
    def steps_per_epoch(self) -> int:
        return self.pairs_per_epoch // self.batch_size

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch


# --- one worker -----------------------------------------------------------------------------------------------------


class Feed:
    """Batches for one worker, in order, fetched and converted beside the training step.

    Args:
        batches: dictionaries of NumPy columns, as the generators make them.
        device: where the features go.
        timeout: seconds to wait for a batch.
    """

    def __init__(self, batches: Iterator[dict[str, np.ndarray]], device: torch.device, timeout: float) -> None:
        self.device = device
        self.timeout = timeout
        self.waited = 0.0
        """Seconds that training waited for data."""
        self.ready: queue.Queue[Any] = queue.Queue(maxsize=1)
        threading.Thread(target=self._fill, args=(batches,), daemon=True, name="feed").start()

    def _fill(self, batches: Iterator[dict[str, np.ndarray]]) -> None:
        try:
            for batch in batches:
                features = torch.from_numpy(np.ascontiguousarray(batch.pop("features"))).to(self.device)
                labels = torch.from_numpy(np.ascontiguousarray(batch.pop("label"))).to(self.device)
                ids = torch.from_numpy(np.ascontiguousarray(batch.pop("id"))).to(self.device)
                self.ready.put((features, labels, ids, batch))
            self.ready.put(StopIteration())
        except Exception as error:  # handed to the training thread, which raises it
            self.ready.put(error)

    def next(self) -> tuple[Tensor, Tensor, Tensor, dict[str, np.ndarray]]:
        """The next batch: features (local batch, 2, ...) float16, labels and identities (local batch,) int64, and the
        other columns.

        Raises:
            TimeoutError: no batch came in time.
        """
        began = time.perf_counter()
        while True:
            try:
                item = self.ready.get(timeout=min(30.0, self.timeout))
                break
            except queue.Empty:
                waited = time.perf_counter() - began
                if waited >= self.timeout:
                    raise TimeoutError(
                        f"no batch came from the generators in {waited:.0f} s (train.data_timeout): "
                        "they are starved of CPUs, or every one of them fails; `ray status` shows what waits"
                    ) from None
                log.warning(
                    "waiting for data since %.0f s; giving up after %.0f s (train.data_timeout)", waited, self.timeout
                )
        self.waited += time.perf_counter() - began
        if isinstance(item, Exception):
            lines = [line.strip() for line in str(item).splitlines() if line.strip()]
            raise RuntimeError(
                f"the stream of pairs ended early: {lines[-1] if lines else 'it is at its end'}"
            ) from item
        return item


class Means:
    """Running means of scalars."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)

    def add(self, **values: float) -> None:
        for name, value in values.items():
            self.sums[name] += value
            self.counts[name] += 1

    def take(self) -> dict[str, float]:
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        self.sums.clear()
        self.counts.clear()
        return means


class StepLog:
    """The curves by step, which show what an epoch's mean hides; the trial's own process shows them in TensorBoard.

    Args:
        folder: the trial's; None, or one that this machine does not have, writes nothing.
        every: steps between points.
        step: where training goes on; points after it that an earlier life wrote count no more.
    """

    def __init__(self, folder: Path | None, every: int, step: int) -> None:
        self.every, self.since, self.waited = every, time.perf_counter(), 0.0
        self.means = Means()
        self.file = folder / STEPS if folder is not None and folder.is_dir() else None
        self._write({"goes_on_from": step})

    def add(self, step: int, waited: float, pairs: int, found: dict[str, float]) -> None:
        """Take in one step.

        Args:
            step: steps done.
            waited: seconds that this epoch has waited for data.
            pairs: of a batch, over all workers.
            found: what telemetry has of the step.
        """
        self.means.add(**found)
        if step % self.every:
            return
        seconds = time.perf_counter() - self.since
        self._write(
            {
                "step": step,
                **self.means.take(),
                "pairs_per_second": pairs * self.every / seconds,
                "wait_share": max(0.0, waited - self.waited) / seconds,
                "memory_mb": _memory_mb(),
            }
        )
        self.since, self.waited = time.perf_counter(), waited

    def _write(self, point: dict[str, float]) -> None:
        if self.file is not None:
            with self.file.open("a") as out:
                out.write(json.dumps(point) + "\n")


def train_loop(config: dict[str, Any]) -> None:
    """What each train worker runs.

    Args:
        config: "experiment" as plain data; "folder", the trial's; "source", the checkpoint that it goes on from before
            it has one of its own, or None; "drains", whether Ray says it when a node is to be drained; "room", what the
            trial may count on.
    """
    from doppel_ray.config import Experiment

    experiment, folder = Experiment.model_validate(config["experiment"]), Path(config["folder"])
    rank = ray.train.get_context().get_world_rank()
    log_to(folder / f"worker_{rank}.log")
    alone = hold(folder, WORKER_LOCK, ORPHANS) if rank == 0 and folder.is_dir() else contextlib.nullcontext()
    with alone:
        _train(experiment, folder, rank, config["source"], config["drains"], Room(**config["room"]))


def _train(experiment: "Experiment", folder: Path, rank: int, source: str | None, drains: bool, room: Room) -> None:
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
    feed = Feed(iter(batches), device, train.data_timeout)
    means, steps = Means(), StepLog(folder if rank == 0 else None, train.log_every, position.step)
    early = Early(train.checkpoint_minutes, Aws(train.spot_address) if train.spot == "aws" else None, drains, device)
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
                    _go_back(learner, error, index, train)
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
                _go_back(learner, error, index, train)
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
        log.info("epoch %d: %s", epoch + 1, bound(metrics))
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


def waits_for(row: dict[str, Any]) -> str:
    """Whether the generators or the trainer set the pace of an epoch."""
    return "generators" if row.get("wait_share", 0.0) > 0.1 else "trainer"


def bound(row: dict[str, Any]) -> str:
    """`312 pairs/s, trainer-bound (waited for data 2 % of the time)`."""
    share = f"waited for data {100 * row['wait_share']:.0f} % of the time"
    return f"{row['pairs_per_second']:.0f} pairs/s, {waits_for(row).removesuffix('s')}-bound ({share})"


def _go_back(learner: Learner, error: DivergedError, index: int, train: TrainConfig) -> None:
    """Return to the last checkpoint's weights, or raise `error` again if the run is to stop, or has returned often."""
    if train.on_divergence == "stop" or learner.returns >= MOST_RETURNS:
        raise DivergedError(f"{error} (batch from index {index} on)") from error
    learner.go_back()
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


def _memory_mb() -> float:
    """Memory of this process now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def log_to(file: Path) -> logging.Handler:
    """Send what this package logs in this process to a file too, if its folder is on this machine."""
    handler: logging.Handler = logging.FileHandler(file) if file.parent.is_dir() else logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("doppel_ray")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    return handler


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


def snapshot(folder: Path) -> list[dict[str, Any]]:
    """The checkpoints that Ray Train has registered for a trial since its last change of course, oldest first.

    Args:
        folder: the trial's.

    Returns:
        For each: "checkpoint" (its folder) and "metrics".
    """
    run = folder / lineage.train_run(folder)
    if not (run / registry.SNAPSHOT).exists():
        return []
    state = registry.read(run)
    found = {result["checkpoint_dir_name"]: result for result in state["checkpoint_results"]}
    if latest := state.get("latest_checkpoint_result"):
        found[latest["checkpoint_dir_name"]] = latest
    return [
        {"checkpoint": run / name, "metrics": result["metrics"]}
        for name, result in sorted(found.items(), key=lambda item: item[1]["metrics"]["pairs"])
    ]


def next_index(folder: Path) -> int:
    """The first index that the trial's newest registered checkpoint, or the one it came from, has not used."""
    if known := snapshot(folder):
        return int(known[-1]["metrics"]["pairs"])
    past = lineage.forks(folder)
    return checkpoint.position(Path(past[-1].source)).next_index if past else 0


def trainer(
    experiment: "Experiment", folder: Path, callbacks: list[ray.train.UserCallback], workers: int, room: Room
) -> TorchTrainer:
    """Ray Train for one trial.

    Args:
        experiment: one point of the search.
        folder: the trial's folder. A trainer made again on the same folder goes on from its newest checkpoint.
        callbacks: Ray Train's user callbacks.
        workers: train workers. Where another number is allowed too, a lost worker ends the trainer, and finding no room
            for all of them does unless they are the fewest; a trainer with as many as there is room for then goes on.
        room: what the trial may count on.
    """
    train = experiment.train
    failures = FailureConfig(  # type: ignore[call-arg]  # annotated as the older one, is Train V2's
        max_failures=0 if train.elastic else train.max_failures,
        controller_failure_limit=0 if train.elastic and workers > train.worker_counts[-1] else START_ATTEMPTS,
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
        "drains": environment.drains(),
        "room": asdict(room),
    }
    resources = {"CPU": train.cpus_per_worker}
    if train.gpus_per_worker:
        resources["GPU"] = train.gpus_per_worker
    return TorchTrainer(
        train_loop,
        train_loop_config=config,
        torch_config=TorchConfig(timeout_s=COLLECTIVE_TIMEOUT),
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=train.gpus_per_worker > 0, resources_per_worker=resources
        ),
        # A function: the controller calls it at each start of a worker group, so that a restarted group goes on at the
        # index of its checkpoint. A dataset would begin again at its first index.
        datasets={"pairs": lambda: stream.dataset(next_index(folder))},
        dataset_config=ray.train.DataConfig(execution_options=stream.execution_options(), enable_shard_locality=False),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # annotated as the older one, is Train V2's
            name=lineage.train_run(folder),
            storage_path=str(folder),
            failure_config=failures,
            worker_runtime_env={} if train.gpus_per_worker else {"env_vars": environment.TRAIN_WORKER},
            callbacks=callbacks,  # type: ignore[arg-type]  # annotated as Tune's Callback, takes Train's
        ),
    )


def main(argv: Sequence[str] | None = None) -> int:
    from doppel_ray import tune

    return tune.start("train", "Train and probe one experiment; a search: section in the file is left out.", None, argv)


if __name__ == "__main__":
    from doppel_ray import command

    command.run(main)
