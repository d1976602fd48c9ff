"""A trial whose nodes go and come back: run by test_elastic.py in a process of its own, which no other Ray runs in.

Three nodes of a CPU each: two train workers and a generator of 0.9 fill them. After the first epoch a node where one
trains is killed with -9; after the second there is another. Prints the trial's rows as JSON.
"""

import os

from doppel_ray.cluster import ray_env

os.environ.update(ray_env.variables())  # before Ray is imported

import json
import sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from doppel_ray.train.stream.generators import train_nodes
from doppel_ray.tune import trial
from tests.integration.test_trial import Row, experiment

EPOCHS = 12


def main(folder: Path) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    others = [cluster.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    rows: list[Row] = []

    def on_row(row: Row) -> None:
        rows.append(row)
        if row["epoch"] == 1:
            trains = train_nodes()
            cluster.remove_node(next(node for node in others if node.node_id in trains), allow_graceful=False)
        if row["epoch"] == 2:
            cluster.add_node(num_cpus=1)

    train = {"workers": "1..2", "cpus_per_worker": 0.9, "epochs": EPOCHS}
    trial.run(experiment(train=train, generators=[{"num_cpus": 0.9}]), folder, on_row)
    print(json.dumps(rows), flush=True)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
