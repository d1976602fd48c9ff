"""Ray's private parts that this package leans on: the one place that names them, each with the reason.

`from doppel_ray.cluster.ray_compat import RefBundle` imports the part when it is asked for, so that a process pays for
what it uses alone. Ray is pinned to one minor release for their sake, and `tests/cluster/test_ray_compat.py` says what
broke when a new release moves one of them.
"""

import importlib
from typing import Any, NamedTuple


class Private(NamedTuple):
    """A private part of Ray."""

    module: str
    """Where it lies."""
    reason: str
    """What it is for, and which public way was missing."""


_ROWS = "A stream of many index blocks as rows of few objects: `ray.data.range` and `from_arrow` start read tasks, "
_ROWS += "which ask for CPUs that train workers hold."
_SCALING = "Pools that follow the demand: `ActorPoolStrategy` scales by queued tasks, which are always as many as may "
_SCALING += "be, and there is no public hook to scale a pool."
_TRIALS = "Trials that are handed to Ray Tune one by one, under names and identifiers of ours: public search "
_TRIALS += "algorithms make both up themselves, so that a resumed sweep would not know its trials."

PRIVATE = {
    "available_resources_per_node": Private(
        "ray._private.state",
        "What each node has left: `ray.available_resources` knows the cluster's sum alone.",
    ),
    "ExecutionCallback": Private("ray.data._internal.execution.execution_callback", _SCALING),
    "BackpressurePolicy": Private("ray.data._internal.execution.backpressure_policy", _SCALING),
    "ENABLED_BACKPRESSURE_POLICIES": Private("ray.data._internal.execution.backpressure_policy", _SCALING),
    "ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY": Private("ray.data._internal.execution.backpressure_policy", _SCALING),
    "ActorPoolScalingRequest": Private("ray.data._internal.actor_autoscaler", _SCALING),
    "BlockEntry": Private("ray.data._internal.execution.interfaces.ref_bundle", _ROWS),
    "BlockSlice": Private("ray.data._internal.execution.interfaces.ref_bundle", _ROWS),
    "RefBundle": Private("ray.data._internal.execution.interfaces.ref_bundle", _ROWS),
    "LogicalPlan": Private("ray.data._internal.logical.interfaces", _ROWS),
    "InputData": Private("ray.data._internal.logical.operators", _ROWS),
    "DatasetStats": Private("ray.data._internal.stats", _ROWS),
    "_create_trial_from_spec": Private("ray.tune.experiment.config_parser", _TRIALS),
    "_make_parser": Private("ray.tune.experiment.config_parser", _TRIALS),
    "_WandbLoggingActor": Private(
        "ray.air.integrations.wandb",
        "Weights & Biases on the driver's node: the public callback starts its actor on any node, where the files that "
        "it uploads may not be.",
    ),
}
"""Name -> what it is."""


def __getattr__(name: str) -> Any:
    if name not in PRIVATE:
        raise AttributeError(f"module {__name__} has no attribute {name!r}")
    return getattr(importlib.import_module(PRIVATE[name].module), name)
