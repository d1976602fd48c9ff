"""`train`: how long, how wide and on what the model is trained, and which checkpoints are kept."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from doppel_ray.core.schema import Range, Section

if TYPE_CHECKING:
    pass

START_ATTEMPTS = 5
"""Times that a worker group may fail to start; each waits RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S for its resources."""


class KeepConfig(Section):
    """A policy: the best and the newest are kept, the others deleted once their rows are out."""

    best: int = Field(default=0, ge=0)
    """Checkpoints that are best by tune.metric; those that no probe has judged are not among them."""
    last: int = Field(default=1, ge=1)
    """Newest checkpoints; the very newest is what a trial goes on from."""

    def most(self, epochs: int) -> int:
        """Checkpoints of a trial of so many epochs that are kept at most, once all is over."""
        return min(epochs, self.best + self.last)


def _plain(value: Any) -> Any:
    """`3`, and `best 2, last 1`, as the mapping that they stand for."""
    if isinstance(value, str) and re.fullmatch(r"\w+ \d+(, *\w+ \d+)*", value):
        return {name: int(count) for name, count in re.findall(r"(\w+) (\d+)", value)}
    return {"last": value} if isinstance(value, int) else value


Keep = Annotated[KeepConfig, BeforeValidator(_plain)]
"""`{best: 2, last: 1}`, or `best 2, last 1`; `3` is `{last: 3}`."""


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
