"""The pool of generators follows the demand: it grows while training waits for pairs, and shrinks while pairs wait.

Ray Data's own rule counts the tasks that actors have been given, which are always as many as may be: where training is
the bottleneck they are done, and left alone because the buffer is full. So its pools grow to their most and stay there.
"""

import time
from typing import Any

from ray.data import DataContext

from doppel_ray.cluster.ray_compat import (
    ENABLED_BACKPRESSURE_POLICIES,
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
    ActorPoolScalingRequest,
    BackpressurePolicy,
    ExecutionCallback,
)


class InFlightLimit(BackpressurePolicy):
    """At most so many blocks are in the generators' hands: none but an idle one can be given up."""

    most: float = float("inf")

    def can_add_input(self, op: Any) -> bool:
        """Asked by Ray Data before it gives an operator a block."""
        return not op.get_autoscaling_actor_pools() or op.num_active_tasks() < self.most


class PoolAutoscaler(ExecutionCallback):
    """Every `WINDOW` seconds, looks back on them and makes the pool larger or smaller.

    Larger, up to twice, if most of the time no block was ready; smaller by one if there mostly was a block, and what
    was done was work for one and a quarter fewer. Between the two nothing changes, so that generators, which take
    seconds to start, are not given up and started again.
    """

    WINDOW = 10.0
    SPARE = 1.25
    """Generators without work, on average, of which one is given up."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.seconds, self.empty, self.worked = 0.0, 0.0, 0.0

    def on_execution_step(self, executor: Any) -> None:
        """Called by Ray Data after each round."""
        now = time.monotonic()
        passed, self.last = now - self.last, now
        found = [(operator, pool) for operator in executor._topology for pool in operator.get_autoscaling_actor_pools()]
        if not found:
            return
        ((operator, pool),) = found
        (cap,) = (policy for policy in executor._backpressure_policies if isinstance(policy, InFlightLimit))
        size = pool.current_size()
        if cap.most < size:
            self._give_up(pool, cap)
            self._begin(operator)
            return
        if pool.num_pending_actors() or not pool.num_running_actors():
            self._begin(operator)  # those who are still starting have not shown yet what they can do
            return
        ready = sum(state.total_enqueued_output_blocks() for state in list(executor._topology.values())[1:])
        self.seconds += passed
        self.empty += passed * (ready == 0)
        if self.seconds < self.WINDOW:
            return
        empty, busy = self.empty / self.seconds, (_worked(operator) - self.worked) / self.seconds
        if empty > 0.5 and size < pool.max_size():
            more = min(size, pool.max_size() - size)
            pool.scale(ActorPoolScalingRequest.upscale(delta=more, reason="training waits for pairs"))
        elif empty < 0.25 and busy < size - self.SPARE and size > pool.min_size():
            cap.most = size - 1
        self._begin(operator)

    def _begin(self, operator: Any) -> None:
        self.seconds, self.empty, self.worked = 0.0, 0.0, _worked(operator)

    def _give_up(self, pool: Any, cap: InFlightLimit) -> None:
        """Release the generator that has been left without a block, once there is one."""
        if pool.scale(ActorPoolScalingRequest.downscale(delta=-1, reason="pairs wait for training")):
            cap.most = float("inf")


def _worked(operator: Any) -> float:
    """Seconds that generators have worked, together."""
    return operator.metrics.block_generation_time


def follow(context: DataContext) -> None:
    """Let `PoolAutoscaler` alone say how large the pools of the datasets made under this context are."""
    context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, [*ENABLED_BACKPRESSURE_POLICIES, InFlightLimit])
    context.autoscaling_config.actor_pool_util_upscaling_threshold = float("inf")
    context.autoscaling_config.actor_pool_util_downscaling_threshold = -1.0
    if PoolAutoscaler not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(PoolAutoscaler)
