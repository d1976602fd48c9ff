"""Private parts of Ray that this package uses, each with the reason; no other module imports private parts.

`from doppel_ray.cluster.ray_compat import RefBundle` imports the part lazily: a process loads only what it uses.
Ray is pinned to one minor release because of them; `tests/cluster/test_ray_compat.py` names those that a release moves.
"""

import importlib
from typing import Any, NamedTuple


class Private(NamedTuple):
    """A private part of Ray."""

    module: str
    """Module that defines it."""
    reason: str
    """Its purpose, and the public way that is missing."""


_ROWS = (
    "Streams many index blocks as rows of few objects: `ray.data.range` and `from_arrow` start read tasks, which need "
    "CPUs that train workers hold."
)
_SCALING = (
    "Scales pools by demand: `ActorPoolStrategy` scales by the number of queued tasks, which is always the largest "
    "allowed, and no public hook scales a pool."
)
_TRIALS = (
    "Gives trials to Ray Tune one by one under our names and identifiers: public search algorithms invent both, so "
    "that a resumed sweep would not recognise its trials."
)
_START = (
    "Starts a trial with fewer processes, each of which takes seconds to import Ray: publicly Ray Train always has a "
    "process of its own for the controller, and one that only passes the data iterators on."
)

PRIVATE = {
    "available_resources_per_node": Private(
        "ray._private.state",
        "Free resources of each node: `ray.available_resources` gives only the cluster's sum.",
    ),
    "AutoscalingConfigProducer": Private(
        "ray.autoscaler._private.kuberay.autoscaling_config",
        "Groups of a RayCluster on Kubernetes with their largest numbers: Ray publishes its present nodes only.",
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
    "TrainController": Private("ray.train.v2._internal.execution.controller", _START),
    "DatasetsCallback": Private("ray.train.v2._internal.callbacks.datasets", _START),
    "_create_trial_from_spec": Private("ray.tune.experiment.config_parser", _TRIALS),
    "_make_parser": Private("ray.tune.experiment.config_parser", _TRIALS),
    "_WandbLoggingActor": Private(
        "ray.air.integrations.wandb",
        "Runs Weights & Biases on the driver's node: the public callback starts its actor on any node, which may lack "
        "the files to upload.",
    ),
}
"""Name -> its module and the reason."""


def __getattr__(name: str) -> Any:
    if name not in PRIVATE:
        raise AttributeError(f"module {__name__} has no attribute {name!r}")
    return getattr(importlib.import_module(PRIVATE[name].module), name)
