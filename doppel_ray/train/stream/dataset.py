"""The stream of pairs as a Ray Dataset: bounded, ordered, and resumable at any index."""

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
from doppel_ray.train.stream.generators import ActorPlacement, Generator, pool_strategy

OBJECT_BLOCKS = 1024
"""Index blocks in one Ray object: 16 KB, which travel with a task."""


def block_size(local_batch: int, at_most: int) -> int:
    """Return the largest divisor of a worker's share of the batch that is at most `at_most`.

    Equal blocks that divide the local batch go to the workers in turn, so that step s of the run always consumes the
    indices [s · batch, (s + 1) · batch), whatever the number of workers.
    """
    return next(size for size in range(min(local_batch, at_most), 0, -1) if local_batch % size == 0)


def index_blocks(start: int, stop: int, size: int) -> dict[str, np.ndarray]:
    """Return the indices [start, stop) in blocks: "start", each one's first, and "count"; (blocks,) int64."""
    first = np.arange(start, stop, size)
    return {"start": first, "count": np.minimum(size, stop - first)}


class IndexBlocks(Sequence[RefBundle]):
    """Index blocks as Ray Data's input, each of which becomes one task.

    The stream of the published recipe has 156,250 index blocks. That many Ray objects take minutes and hundreds of
    MB to make. Here each block is a row of a larger object, and its reference is made when its task starts.

    Args:
        columns: as `index_blocks` returns.
    """

    def __init__(self, columns: dict[str, np.ndarray]) -> None:
        self.length = min(len(column) for column in columns.values())
        parts = [
            pa.table({name: column[at : at + OBJECT_BLOCKS] for name, column in columns.items()})
            for at in range(0, max(1, self.length), OBJECT_BLOCKS)  # at least one, if empty
        ]
        # `ray.put` works in this process. `ray.data.range` has read tasks and `from_arrow` has metadata tasks: each
        # needs a CPU, and waits for ever when train workers and generators hold all of them.
        self.blocks = [(BlockEntry(ray.put(part), BlockAccessor.for_block(part).get_metadata()),) for part in parts]
        self.schema = parts[0].schema
        self.slices = [(BlockSlice(row, row + 1),) for row in range(OBJECT_BLOCKS)]

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, at: int) -> RefBundle: ...
    @overload
    def __getitem__(self, at: slice) -> "IndexBlocks": ...
    def __getitem__(self, at: int | slice) -> "RefBundle | IndexBlocks":
        if isinstance(at, slice):  # Ray Data copies its input with [:]
            return self
        if not 0 <= at < self.length:
            raise IndexError(at)
        return RefBundle(
            self.blocks[at // OBJECT_BLOCKS], self.schema, owns_blocks=False, slices=self.slices[at % OBJECT_BLOCKS]
        )

    def dataset(self) -> ray.data.Dataset:
        """Return a dataset of the blocks."""
        context = ray.data.DataContext.get_current().copy()
        plan = LogicalPlan(InputData(self), context)  # annotated as list, takes any sequence
        return ray.data.Dataset(plan, context, DatasetStats(metadata={}, parent=None))


class LoopThrottle(ExecutionCallback):
    """Pauses Ray Data's scheduling loop when it has no work.

    The loop waits for finished tasks. When training is the bottleneck there always are some, which it leaves alone
    because the buffer is full. It then runs without a pause and takes most of a core from training.
    """

    SHORTEST, LONGEST = 0.005, 0.1
    """Seconds to pause after a round that moved a block, and at most after many that did not."""

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
        experiment: as plain data, for the generators.
        pools: of generators.
        data: how blocks travel.
        local_batch: pairs of one batch of one train worker.
        stop: first index after the run.
    """

    def __init__(self, experiment: dict[str, Any], pools: Pools, data: DataConfig, local_batch: int, stop: int) -> None:
        self.experiment = experiment
        self.pools = pools
        self.data = data
        self.block = block_size(local_batch, data.block_pairs)
        self.stop = stop

    def dataset(self, start: int) -> ray.data.Dataset:
        """Return the stream from index `start` on; pairs are made when it is iterated."""
        context = ray.data.DataContext.get_current()
        context.execution_options = self.execution_options()
        context.target_max_block_size = None  # a task returns one block, as large as its index block says
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        pool_scaling.install(context)
        if LoopThrottle not in context.custom_execution_callback_classes:
            context.custom_execution_callback_classes.append(LoopThrottle)
        return (
            IndexBlocks(index_blocks(start, self.stop, self.block))
            .dataset()
            .map_batches(
                Generator,
                fn_constructor_kwargs={"experiment": self.experiment},
                compute=pool_strategy(self.pools),
                batch_size=None,
                ray_remote_args_fn=ActorPlacement(self.pools),
            )
        )

    def execution_options(self) -> ExecutionOptions:
        """Return Ray Data's options: blocks in order, and no more resources than those of the pools.

        Without limits Ray Data counts every CPU that Ray Train leaves as its own, and so do trials side by side.
        """
        return ExecutionOptions(
            preserve_order=True,
            resource_limits=ExecutionResources(
                cpu=sum(pool.num_cpus * pool.actors[1] for pool in self.pools),
                gpu=sum(pool.num_gpus * pool.actors[1] for pool in self.pools),
                object_store_memory=self.data.buffer_mb * 2**20,
            ),
        )
