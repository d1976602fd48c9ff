"""The pool of generators follows the demand: it grows while training waits for pairs, and shrinks while pairs wait.

Ray Data's own rule counts the tasks that actors have been given, which are always as many as may be: where training is
the bottleneck they are done, and left alone because the buffer is full. So its pools grow to their most and stay there.
"""

import time
from typing import Any

from ray.data import DataContext
from ray.data._internal.actor_autoscaler import ActorPoolScalingRequest
from ray.data._internal.execution.backpressure_policy import (
    ENABLED_BACKPRESSURE_POLICIES,
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
    BackpressurePolicy,
)
from ray.data._internal.execution.execution_callback import ExecutionCallback


class Room(BackpressurePolicy):
    """Generators are given no more blocks while a quarter of the buffer is in use.

    Ray Data itself takes blocks in until half of it is. So what they have in hand is taken from them, and those who are
    not needed have nothing, can be seen to be idle, and can be given up.
    """

    def can_add_input(self, op: Any) -> bool:
        if not op.get_autoscaling_actor_pools():
            return True
        used = self._resource_manager.get_op_usage(op).object_store_memory
        if used < self._resource_manager.get_global_limits().object_store_memory / 4:
            return True
        # One batch may take more than a quarter of a small buffer: what is missing of it is made all the same.
        return op.num_active_tasks() == 0 and self._topology[op].total_enqueued_output_blocks() == 0


class Demand(ExecutionCallback):
    """Every `WINDOW` seconds, looks back on them and makes the pool larger or smaller.

    Larger, up to twice, if most of the time no block was ready; smaller by one if one generator and a quarter were idle
    on average, and there mostly was a block. Between the two nothing changes, so that generators, which take seconds to
    start, are not given up and started again.
    """

    WINDOW = 10.0

    def __init__(self) -> None:
        self.last = time.monotonic()
        self._begin()

    def _begin(self) -> None:
        self.seconds, self.empty, self.busy = 0.0, 0.0, 0.0

    def on_execution_step(self, executor: Any) -> None:
        """Called by Ray Data after each round."""
        now = time.monotonic()
        passed, self.last = now - self.last, now
        pools = [pool for operator in executor._topology for pool in operator.get_autoscaling_actor_pools()]
        pool = pools[0] if pools else None
        if pool is None or pool.num_pending_actors() or not pool.num_running_actors():
            self._begin()  # those who are still starting have not shown yet what they can do
            return
        ready = sum(state.total_enqueued_output_blocks() for state in list(executor._topology.values())[1:])
        self.seconds += passed
        self.empty += passed * (ready == 0)
        self.busy += passed * pool.num_active_actors()
        if self.seconds < self.WINDOW:
            return
        empty, busy, size = self.empty / self.seconds, self.busy / self.seconds, pool.current_size()
        if empty > 0.5 and size < pool.max_size():
            more = min(size, pool.max_size() - size)
            pool.scale(ActorPoolScalingRequest.upscale(delta=more, reason="training waits for pairs"))
        elif empty < 0.25 and busy < size - 1.25 and size > pool.min_size():
            pool.scale(ActorPoolScalingRequest.downscale(delta=-1, reason="pairs wait for training"))
        self._begin()


def follow(context: DataContext) -> None:
    """Let `Demand` alone say how large the pools of the datasets made under this context are."""
    context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, [*ENABLED_BACKPRESSURE_POLICIES, Room])
    context.autoscaling_config.actor_pool_util_upscaling_threshold = float("inf")
    context.autoscaling_config.actor_pool_util_downscaling_threshold = -1.0
    if Demand not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(Demand)
