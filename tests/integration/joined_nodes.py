"""Nodes that join later: run by test_placement.py in a process without another Ray.

Two nodes join a head, one after the other. Prints, as JSON, what the driver is told about the first, whose run folder
is missing, and about the second, whose run folder is there.
"""

import os

from doppel_ray.cluster import ray_env

os.environ.update(ray_env.variables())  # before Ray is imported

import json
import sys
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from doppel_ray.cluster.joined import JoinedNodes


def told(joined: JoinedNodes) -> str | None:
    """Return what is told once the new node has answered."""
    news = joined.notice()
    assert joined.pending, "a node has joined"
    while joined.pending:
        time.sleep(0.1)
        news = joined.notice()
    return news


if __name__ == "__main__":
    run = Path(sys.argv[1])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    ray.init(address=cluster.address, log_to_driver=False)
    found = []
    for file in (run / "elsewhere" / "run.json", run / "run.json"):
        joined = JoinedNodes(file)
        assert joined.notice() is None, "the nodes of the start have been asked"
        cluster.add_node(num_cpus=1)
        found.append(told(joined))
    print(json.dumps(found), flush=True)
    ray.shutdown()
    cluster.shutdown()
