"""Generators: the actors that turn blocks of indices into blocks of features.

Ray Data's coordinating processes import this module too, to pass the class on. So torch and the synthesizer, which take
seconds to import, are imported in `Generator` only.
"""

import os
import secrets
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import ray
from ray.data import ActorPoolStrategy
from ray.util import placement_group_table

from doppel_ray.cluster.plan import DRIVER_CPUS
from doppel_ray.config.data import Pools

NODE_ID = "ray.io/node-id"
"""Label with which Ray marks each node's id."""


def pool_strategy(pools: Pools) -> ActorPoolStrategy:
    """Return all pools as one pool of Ray Data's: a block goes to any free actor, and blocks stay in order."""
    low, high = sum(pool.actors[0] for pool in pools), sum(pool.actors[1] for pool in pools)
    # Two tasks in flight: one rendering, one whose indices have arrived. More would lengthen the queue that a stopped
    # trial throws away.
    return ActorPoolStrategy(min_size=low, max_size=high, initial_size=low, max_tasks_in_flight_per_actor=2)


def train_nodes() -> frozenset[str]:
    """Return the ids of the nodes where trials train: those of placement groups with more than a driver's CPUs."""
    return frozenset(
        node
        for group in placement_group_table().values()
        if group["state"] == "CREATED"
        and any(bundle.get("CPU", 0.0) > DRIVER_CPUS for bundle in group["bundles"].values())
        for node in group["bundles_to_node_id"].values()
    )


class ActorPlacement:
    """Gives Ray Data the resources of each actor that it starts: first each pool's minimum, then the rest.

    Ray Data does not say which pool's actor it has released: after all have started once, pools take turns. An actor
    goes to a node without train workers if one has room, since the threads of a train worker wait for each other.

    Args:
        pools: of generators.
        train_nodes: returns the ids of the nodes to leave to training.
    """

    def __init__(self, pools: Pools, train_nodes: Callable[[], frozenset[str]] = train_nodes) -> None:
        self.pools = pools
        self.train_nodes = train_nodes
        least = [number for number, pool in enumerate(pools) for _ in range(pool.actors[0])]
        more = [number for number, pool in enumerate(pools) for _ in range(pool.actors[1] - pool.actors[0])]
        self.order = least + more
        self.started = 0

    def __call__(self) -> dict[str, Any]:
        pool = self.pools[self.order[self.started % len(self.order)]]
        self.started += 1
        share: dict[str, Any] = {"num_cpus": pool.num_cpus, "num_gpus": pool.num_gpus}
        if avoided := self.train_nodes():
            share["label_selector"] = {NODE_ID: f"!in({','.join(sorted(avoided))})"}
            share["fallback_strategy"] = [{"label_selector": {}}]
        return share


class Generator:
    """Makes the pairs of index blocks, in an actor: on the GPU if it has a share of one, with a thread for each CPU.

    Args:
        experiment: as plain data.
    """

    def __init__(self, experiment: dict[str, Any]) -> None:
        import torch

        from doppel_ray.data.pairs import PairMaker

        context = ray.get_runtime_context()
        given = context.get_assigned_resources()
        device = "cuda" if given.get("GPU") else "cpu"
        torch.set_num_threads(max(1, round(given.get("CPU", 1.0))))
        if device == "cpu":
            # Yield shared processors to the trainer, whose threads wait for each other: generators run in its pauses,
            # and when these are too short, training waits for pairs and so pauses.
            os.nice(20)
        self.maker = PairMaker.of(experiment, device)
        self.restarted = secrets.randbits(62) + 1 if context.was_current_actor_reconstructed else 0
        self.reported: set[str] = set()
        """Recordings whose fault has been reported."""
        self.process = os.getpid()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the pairs of one index block.

        Args:
            batch: {"start": (1,) int64, "count": (1,) int64}.

        Returns:
            "index" (count,) int64; "features" float16, "label" and "id" int64, as `PairMaker.labelled` returns them.
            For telemetry: "seconds" per pair, "generator" (its process) and "restarted" on each row, 0 or, of a
            generator that replaced a lost one, a number of its own: nodes and pods may repeat process ids. On the first
            row the recordings "skipped" since the last block, with reasons.
        """
        began = time.perf_counter()
        start, count = int(batch["start"][0]), int(batch["count"][0])
        index = np.arange(start, start + count)
        features, labels, ids = self.maker.labelled(index)
        broken = self.maker.recordings.broken if self.maker.recordings else {}
        news = [f"{path}: {reason}" for path, reason in broken.items() if path not in self.reported]
        self.reported |= broken.keys()
        seconds = (time.perf_counter() - began) / count
        return {
            "index": index,
            "features": features.numpy(),
            "label": labels.numpy(),
            "id": ids.numpy(),
            "skipped": np.array(["\n".join(news)] + [""] * (count - 1), dtype=object),
            "seconds": np.full(count, seconds, np.float32),
            "generator": np.full(count, self.process, np.int32),
            "restarted": np.full(count, self.restarted, np.int64),
        }
