"""The stream of features as a Ray Dataset: bounded, ordered, and resumable at any index."""

import time
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa
import ray.data
from ray.data import ExecutionOptions, ExecutionResources
from ray.data.block import BlockAccessor

from doppel_ray.cluster.ray_compat import (
    BlockEntry,
    BlockSlice,
    DatasetStats,
    ExecutionCallback,
    InputData,
    LogicalPlan,
    RefBundle,
)
from doppel_ray.config.data import DataConfig, Pools
from doppel_ray.train.stream import pool_scaling
from doppel_ray.train.stream.generators import ActorPlacement, Generator, strategy

ROWS = 1024
"""Index blocks in one Ray object: 16 KB, which travel with a task."""


def block_size(local_batch: int, at_most: int) -> int:
    """The largest divisor of a worker's share of the batch that is not above `at_most`.

    Equal blocks that divide the local batch go round the workers in turn, so that step s of the run always consumes the
    indices [s · batch, (s + 1) · batch), whatever the number of workers.
    """
    return next(size for size in range(min(local_batch, at_most), 0, -1) if local_batch % size == 0)


def index_blocks(start: int, stop: int, size: int) -> dict[str, np.ndarray]:
    """The indices [start, stop) in blocks: "start", the first index of each, and "count", how many; (blocks,) int64."""
    first = np.arange(start, stop, size)
    return {"start": first, "count": np.minimum(size, stop - first)}


class Rows(Sequence[RefBundle]):
    """Rows as what Ray Data passes on, each of which becomes a task of its own.

    The stream of the published recipe has 156,250 index blocks. As many Ray objects take minutes to make, and hundreds
    of MB; here a task is told which row of a larger object is its own, and that when its turn comes.
    """

    def __init__(self, columns: dict[str, np.ndarray]) -> None:
        self.length = min(len(column) for column in columns.values())
        parts = [
            pa.table({name: column[at : at + ROWS] for name, column in columns.items()})
            for at in range(0, max(1, self.length), ROWS)  # of no rows, a part without any
        ]
        # `ray.put` works in this process. `ray.data.range` has read tasks and `from_arrow` has metadata tasks: these
        # ask for a CPU each, and wait for ever when train workers and generators hold them all.
        self.blocks = [(BlockEntry(ray.put(part), BlockAccessor.for_block(part).get_metadata()),) for part in parts]
        self.schema = parts[0].schema
        self.slices = [(BlockSlice(row, row + 1),) for row in range(ROWS)]

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, at: int) -> RefBundle: ...
    @overload
    def __getitem__(self, at: slice) -> "Rows": ...
    def __getitem__(self, at: int | slice) -> "RefBundle | Rows":
        if isinstance(at, slice):  # Ray Data makes a copy, with [:]
            return self
        if not 0 <= at < self.length:
            raise IndexError(at)
        return RefBundle(self.blocks[at // ROWS], self.schema, owns_blocks=False, slices=self.slices[at % ROWS])

    def dataset(self) -> ray.data.Dataset:
        context = ray.data.DataContext.get_current().copy()
        plan = LogicalPlan(InputData(self), context)  # it says list, and takes any sequence
        return ray.data.Dataset(plan, context, DatasetStats(metadata={}, parent=None))


class LoopThrottle(ExecutionCallback):
    """Keeps Ray Data's scheduling loop from running more often than it has work.

    The loop waits for tasks to be done. Where training is the bottleneck there are always some: done, and left alone
    because the buffer is full. It then runs without a pause, on most of a core, which training could have used.
    """

    SHORTEST, LONGEST = 0.005, 0.1
    """Seconds to pause after a round in which something moved, and at most after many in which nothing did."""

    def __init__(self) -> None:
        self.moved = -1
        self.pause = self.SHORTEST

    def on_execution_step(self, executor: Any) -> None:
        """Called by Ray Data after each round."""
        operators = [operator.metrics for operator in executor._topology]
        moved = sum(metrics.num_tasks_submitted + metrics.num_outputs_taken for metrics in operators)
        self.pause = self.SHORTEST if moved != self.moved else min(1.5 * self.pause, self.LONGEST)
        self.moved = moved
        time.sleep(self.pause)


class Stream:
    """The pairs of a run as Ray Datasets.

    Args:
        experiment: as plain data, which the generators read what to make from.
        pools: of generators.
        data: how blocks travel.
        local_batch: pairs of one batch of one train worker.
        stop: the first index that is no longer of the run.
    """

    def __init__(self, experiment: dict[str, Any], pools: Pools, data: DataConfig, local_batch: int, stop: int) -> None:
        self.experiment = experiment
        self.pools = pools
        self.data = data
        self.block = block_size(local_batch, data.block_pairs)
        self.stop = stop

    def dataset(self, start: int) -> ray.data.Dataset:
        """The rest of the stream from index `start` on; nothing is made before it is iterated."""
        context = ray.data.DataContext.get_current()
        context.execution_options = self.execution_options()
        context.target_max_block_size = None  # a task gives one block, as large as its index block says
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        pool_scaling.follow(context)
        if LoopThrottle not in context.custom_execution_callback_classes:
            context.custom_execution_callback_classes.append(LoopThrottle)
        return (
            Rows(index_blocks(start, self.stop, self.block))
            .dataset()
            .map_batches(
                Generator,
                fn_constructor_kwargs={"experiment": self.experiment},
                compute=strategy(self.pools),
                batch_size=None,
                ray_remote_args_fn=ActorPlacement(self.pools),
            )
        )

    def execution_options(self) -> ExecutionOptions:
        """Blocks in order, and no more resources than the pools' own.

        Without the limits Ray Data takes every CPU that Train has left for its own, and trials side by side would count
        the same CPUs each.
        """
        return ExecutionOptions(
            preserve_order=True,
            resource_limits=ExecutionResources(
                cpu=sum(pool.num_cpus * pool.actors[1] for pool in self.pools),
                gpu=sum(pool.num_gpus * pool.actors[1] for pool in self.pools),
                object_store_memory=self.data.buffer_mb * 2**20,
            ),
        )
