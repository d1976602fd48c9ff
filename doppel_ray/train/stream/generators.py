"""Generators: the actors that turn blocks of indices into blocks of features.

Ray Data's coordinating processes import this module too, to pass the class on. torch and the synthesizer, which they
never use and which take seconds to import, are imported by the generators alone.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import ray
from ray.data import ActorPoolStrategy
from ray.util import placement_group_table

from doppel_ray.cluster.plan import DRIVER_CPUS
from doppel_ray.config.data import Pools

NODE = "ray.io/node-id"
"""The label under which every node of Ray has its id."""


def strategy(pools: Pools) -> ActorPoolStrategy:
    """All pools as the one that Ray Data knows: a block goes to whichever actor is free, and blocks stay in order."""
    low, high = sum(pool.actors[0] for pool in pools), sum(pool.actors[1] for pool in pools)
    # Two tasks in flight: one rendering, one whose indices have arrived. More would only lengthen the queue that is
    # thrown away when a trial is stopped.
    return ActorPoolStrategy(min_size=low, max_size=high, initial_size=low, max_tasks_in_flight_per_actor=2)


def train_nodes() -> frozenset[str]:
    """The ids of the nodes where trials train now: all of them hold a place for more than a trial's own process."""
    return frozenset(
        node
        for group in placement_group_table().values()
        if group["state"] == "CREATED"
        and any(bundle.get("CPU", 0.0) > DRIVER_CPUS for bundle in group["bundles"].values())
        for node in group["bundles_to_node_id"].values()
    )


class ActorPlacement:
    """Tells Ray Data what each actor that it starts is to have: first what every pool has at least, then the rest.

    Actors that an idle pool gives up are not told apart: after all have been started once, pools take turns. Each goes
    to a node where no one trains while one has room, since a train worker's threads wait for each other; then anywhere.

    Args:
        pools: of generators.
        trains: tells the nodes to leave to training.
    """

    def __init__(self, pools: Pools, trains: Callable[[], frozenset[str]] = train_nodes) -> None:
        self.pools = pools
        self.trains = trains
        least = [number for number, pool in enumerate(pools) for _ in range(pool.actors[0])]
        more = [number for number, pool in enumerate(pools) for _ in range(pool.actors[1] - pool.actors[0])]
        self.order = least + more
        self.started = 0

    def __call__(self) -> dict[str, Any]:
        pool = self.pools[self.order[self.started % len(self.order)]]
        self.started += 1
        share: dict[str, Any] = {"num_cpus": pool.num_cpus, "num_gpus": pool.num_gpus}
        if trains := self.trains():
            share["label_selector"] = {NODE: f"!in({','.join(sorted(trains))})"}
            share["fallback_strategy"] = [{"label_selector": {}}]
        return share


class Generator:
    """The callable that an actor of the pool runs on each index block.

    It renders on the GPU if it has been given a share of one, and with as many threads as CPUs.

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
            # Behind the trainer, whose threads wait for each other, on processors that both want: generators find room
            # in its pauses, and where they don't, training waits for them and makes some.
            os.nice(20)
        self.maker = PairMaker.of(experiment, device)
        self.restarted = context.was_current_actor_reconstructed
        self.told: set[str] = set()
        self.process = os.getpid()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Features of one index block.

        Args:
            batch: {"start": (1,) int64, "count": (1,) int64}.

        Returns:
            "index" (count,) int64; "features" float16, "label" and "id" int64, as `PairMaker.labelled` has them; and
            what telemetry wants to know of their maker: "seconds" taken per pair, "generator" process, "restarted", on
            each row, and on the first the recordings "skipped" since the block before, with the reasons.
        """
        began = time.perf_counter()
        start, count = int(batch["start"][0]), int(batch["count"][0])
        index = np.arange(start, start + count)
        features, labels, ids = self.maker.labelled(index)
        broken = self.maker.recordings.broken if self.maker.recordings else {}
        news = [f"{path}: {reason}" for path, reason in broken.items() if path not in self.told]
        self.told |= broken.keys()
        seconds = (time.perf_counter() - began) / count
        return {
            "index": index,
            "features": features.numpy(),
            "label": labels.numpy(),
            "id": ids.numpy(),
            "skipped": np.array(["\n".join(news)] + [""] * (count - 1), dtype=object),
            "seconds": np.full(count, seconds, np.float32),
            "generator": np.full(count, self.process, np.int32),
            "restarted": np.full(count, self.restarted, np.bool_),
        }
