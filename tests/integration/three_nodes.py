"""Placement of generators on a cluster: run by test_placement.py in a process without another Ray.

A head without CPUs and two nodes of two; one of them has a placement group, as Ray Train makes for a train worker.
Prints, for streams of two and of three generators, how many are on that node and how many on the other, as JSON.
"""

import os

from doppel_ray.cluster import ray_env

os.environ.update(ray_env.variables())  # before Ray is imported

import json

import ray
from ray._private.state import actors
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group

from doppel_ray.config.data import DataConfig, GeneratorConfig
from doppel_ray.config.experiment import Experiment
from doppel_ray.train.stream.dataset import Stream
from doppel_ray.train.stream.generators import train_nodes


def places(generators: int, trains: str) -> tuple[int, int]:
    """Return how many generators of a stream run on the training node, and on others."""
    pool = GeneratorConfig(actors=(generators, generators), num_cpus=1.0)
    stream = Stream(Experiment().plain(), (pool,), DataConfig(block_pairs=4), local_batch=4, stop=4000)
    batches = iter(stream.dataset(0).iter_batches(batch_size=4, batch_format="numpy"))
    made: set[int] = set()
    while len(made) < generators:
        made |= set(next(batches)["generator"].tolist())
    nodes = [actor["Address"]["NodeID"] for actor in actors().values() if actor["Pid"] in made]
    return nodes.count(trains), len(nodes) - nodes.count(trains)


if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False)
    place = placement_group([{"CPU": 1.0}])
    ray.get(place.ready())
    (held,) = train_nodes()
    print(json.dumps([places(2, held), places(3, held)]), flush=True)
    ray.shutdown()
    cluster.shutdown()
