"""A trial that loses a node and gets another: run by test_elastic.py in a process without another Ray.

Three nodes of one CPU: two train workers and a generator of 0.9 CPUs fill them. After the first epoch a train worker's
node is killed with -9; after the second a node is added. Prints the trial's rows as JSON.
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
