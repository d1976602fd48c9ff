"""`train`: length, batch, workers and checkpoints of training."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from doppel_ray.core.schema import Gpus, Range, Section


class KeepConfig(Section):
    """Which checkpoints of a trial to keep; the others are deleted once their metrics are logged."""

    best: int = Field(default=0, ge=0)
    """Number of best checkpoints to keep by tune.metric; only probed checkpoints count."""
    last: int = Field(default=1, ge=1)
    """Number of newest checkpoints to keep; a trial resumes from the newest."""

    def max_count(self, epochs: int) -> int:
        """Return the largest number of checkpoints kept of a trial of this many epochs."""
        return min(epochs, self.best + self.last)


def _plain(value: Any) -> Any:
    """Return the mapping that `3` or `best 2, last 1` stands for."""
    if isinstance(value, str) and re.fullmatch(r"\w+ \d+(, *\w+ \d+)*", value):
        return {name: int(count) for name, count in re.findall(r"(\w+) (\d+)", value)}
    return {"last": value} if isinstance(value, int) else value


Keep = Annotated[KeepConfig, BeforeValidator(_plain)]
"""`{best: 2, last: 1}`, or `best 2, last 1`; `3` is `{last: 3}`."""


class TrainConfig(Section):
    """Training: epochs, batch, workers and checkpoints."""

    epochs: int = Field(default=200, ge=1)
    """Number of epochs. Each epoch trains on new pairs and ends with a checkpoint."""
    pairs_per_epoch: int = Field(default=100_000, ge=1)
    """Pairs per epoch; rounded down to whole batches."""
    batch_size: int = Field(default=768, ge=2)
    """Pairs per batch, summed over all workers."""
    workers: Range = (1, 1)
    """Number of train workers (distributed data parallel); each trains on batch_size / workers pairs. With a range such
    as 1..4, a trial uses as many as fit, continues with fewer if nodes are lost, and takes more after an epoch if nodes
    are added."""
    cpus_per_worker: float = Field(default=1.0, gt=0.0)
    """CPUs reserved for each train worker; rounded, also its number of threads."""
    gpus_per_worker: Gpus = 0.0
    """GPUs reserved for each train worker; 0: train on the CPU."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Numeric precision. bf16: autocast to bfloat16. auto: bf16 if every train worker's GPU or CPU supports it in
    hardware (CPUs: AMX or AVX512_BF16), else fp32; the metrics record which was used."""
    clip: float | None = Field(default=None, gt=0.0)
    """Clip the gradient to this norm; null: no clipping."""
    max_failures: int = Field(default=3, ge=0)
    """Number of restarts from the last checkpoint after train workers fail or are lost."""
    start_timeout: float = Field(default=1800.0, gt=0.0)
    """Seconds that a trial waits for resources for its train workers before it fails; rounded up to whole attempts of
    RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S (120) seconds. Longer where spot nodes may be out of stock for longer."""
    data_timeout: float = Field(default=1800.0, gt=0.0)
    """Seconds that a train worker waits for one batch before it fails with an explanation; its log tells earlier that
    it waits. As long as nodes for generators may be out of stock."""
    checkpoint_minutes: float | None = Field(default=None, gt=0.0)
    """Minutes between checkpoints within an epoch; null: checkpoints only after each epoch."""
    spot: Literal["none", "aws"] = "none"
    """Cloud whose warnings that a node will be taken away trigger a checkpoint at once. aws: EC2 spot warnings, read
    from the metadata service. On a cluster, Ray's own warnings (`ray drain-node`, autoscaler) always do."""
    spot_address: str = "http://169.254.169.254"
    """Address of the metadata service that gives spot warnings."""
    keep: Keep | None = None
    """Checkpoints of a trial to keep. {best: 2, last: 1}: the two best by tune.metric and the newest. 3: the newest
    three. null: all."""
    init: Path | None = None
    """Checkpoint whose encoder to start from, for fine-tuning; null: random weights."""
    on_divergence: Literal["stop", "return"] = "stop"
    """What to do if loss, gradient, embedding or weights become NaN or infinite, or the embedding collapses. stop: end
    the trial and keep its last good checkpoint. return: resume from that checkpoint with half the learning rate, up to
    three times."""
    log_every: int = Field(default=10, ge=1)
    """Steps between two points of TensorBoard's per-step curves."""

    @model_validator(mode="after")
    def _consistent(self) -> "TrainConfig":
        low, high = self.workers
        if not 1 <= low <= high:
            raise ValueError(f"workers is {low}..{high}; expected at least 1, and the first not above the second")
        if 0.0 < self.gpus_per_worker <= 0.5 and high > 1:
            raise ValueError(
                f"gpus_per_worker is {self.gpus_per_worker:g} and workers up to {high}, so that two could share a GPU, "
                "which NCCL refuses; set gpus_per_worker above 0.5, or workers to 1"
            )
        for workers in (high, low):
            if self.batch_size % workers:
                near = self.batch_size - self.batch_size % workers
                raise ValueError(
                    f"batch_size {self.batch_size} is not a multiple of {workers} workers; "
                    f"the nearest multiple is {near or workers}"
                )
        if self.batch_size < 2 * high:
            raise ValueError(
                f"batch_size {self.batch_size} gives each of {high} workers {self.batch_size // high} pair; "
                "each needs at least 2"
            )
        if self.pairs_per_epoch < self.batch_size:
            raise ValueError(f"pairs_per_epoch {self.pairs_per_epoch} is less than one batch of {self.batch_size}")
        return self

    @property
    def worker_counts(self) -> tuple[int, ...]:
        """Allowed numbers of workers, largest first: those that divide the batch size."""
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
