"""The pool of generators grows while training waits for pairs, and shrinks while pairs wait for training.

Ray Data's own rule compares the tasks given to actors with the size of the pool. With a stream as input that is always
the maximum: when training is the bottleneck, finished tasks count too, because the full buffer leaves them unread. Its
pools would grow to their maximum and never shrink.
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
    """Limits the blocks that generators work on, so that one becomes idle: Ray Data only releases idle actors."""

    limit: float = float("inf")

    def can_add_input(self, op: Any) -> bool:
        """Called by Ray Data before it gives an operator a block."""
        return not op.get_autoscaling_actor_pools() or op.num_active_tasks() < self.limit


class PoolAutoscaler(ExecutionCallback):
    """Resizes the pool every `WINDOW` seconds, by what happened within them.

    It grows, up to twice its size, if no block was ready most of the time. It loses one generator if a block mostly was
    ready and the work would have kept `SPARE` fewer generators busy. Between the two it keeps its size, because a
    generator takes seconds to start.
    """

    WINDOW = 10.0
    SPARE = 1.25
    """Average number of idle generators at which one is released."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.seconds, self.empty, self.worked = 0.0, 0.0, 0.0

    def on_execution_step(self, executor: Any) -> None:
        """Called by Ray Data after each round of its scheduling loop."""
        now = time.monotonic()
        passed, self.last = now - self.last, now
        found = [(operator, pool) for operator in executor._topology for pool in operator.get_autoscaling_actor_pools()]
        if not found:
            return
        ((operator, pool),) = found
        (limiter,) = (policy for policy in executor._backpressure_policies if isinstance(policy, InFlightLimit))
        size = pool.current_size()
        if limiter.limit < size:
            self._release_idle(pool, limiter)
            self._start_window(operator)
            return
        if pool.num_pending_actors() or not pool.num_running_actors():
            self._start_window(operator)  # generators that are still starting have not shown what they can do
            return
        ready = sum(state.total_enqueued_output_blocks() for state in list(executor._topology.values())[1:])
        self.seconds += passed
        self.empty += passed * (ready == 0)
        if self.seconds < self.WINDOW:
            return
        empty, busy = self.empty / self.seconds, (_work_seconds(operator) - self.worked) / self.seconds
        if empty > 0.5 and size < pool.max_size():
            more = min(size, pool.max_size() - size)
            pool.scale(ActorPoolScalingRequest.upscale(delta=more, reason="training waits for pairs"))
        elif empty < 0.25 and busy < size - self.SPARE and size > pool.min_size():
            limiter.limit = size - 1
        self._start_window(operator)

    def _start_window(self, operator: Any) -> None:
        self.seconds, self.empty, self.worked = 0.0, 0.0, _work_seconds(operator)

    def _release_idle(self, pool: Any, limiter: InFlightLimit) -> None:
        """Release the generator that the limit keeps idle, once there is one."""
        if pool.scale(ActorPoolScalingRequest.downscale(delta=-1, reason="pairs wait for training")):
            limiter.limit = float("inf")


def _work_seconds(operator: Any) -> float:
    """Return the seconds that all generators have worked."""
    return operator.metrics.block_generation_time


def install(context: DataContext) -> None:
    """Let `PoolAutoscaler`, and not Ray Data, size the pools of the datasets made under this context."""
    context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, [*ENABLED_BACKPRESSURE_POLICIES, InFlightLimit])
    context.autoscaling_config.actor_pool_util_upscaling_threshold = float("inf")
    context.autoscaling_config.actor_pool_util_downscaling_threshold = -1.0
    if PoolAutoscaler not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(PoolAutoscaler)
