"""Ray Train with fewer processes for each trial.

Each process that Ray starts takes seconds of a core to import Ray. Ray Train's own trainer starts one for its
controller, which waits for the train workers, and one that makes the workers' data iterators. Here the controller runs
in the trial's process, which waits too, and makes the iterators. The controller's record, its restarts of lost
workers, and the order of the data are Ray Train's own.
"""

import asyncio
from typing import Any

import ray
from ray.data import DataIterator
from ray.train import Result
from ray.train.torch import TorchTrainer

from doppel_ray.cluster.ray_compat import DatasetsCallback, TrainController


class LeanTrainer(TorchTrainer):
    """Ray Train's trainer, with its controller in this process if this is an actor's."""

    def _initialize_and_run_controller(self, **parts: Any) -> Result:
        if ray.get_runtime_context().get_actor_id() is None:  # train workers are given the controller's actor
            return super()._initialize_and_run_controller(**parts)  # type: ignore[misc]  # annotated as the older one's
        return asyncio.run(_controlled(parts))

    def _create_default_callbacks(self) -> list[Any]:
        shards = ShardsCallback(self.train_run_context, self.datasets)  # type: ignore[attr-defined]
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]
        return [shards if isinstance(callback, DatasetsCallback) else callback for callback in callbacks]


async def _controlled(parts: dict[str, Any]) -> Result:
    """Run Ray Train's controller, given its parts, to its end."""
    controller = TrainController(**parts)
    await controller.run()
    return controller.get_result()


class Shards:
    """One train worker's data iterators.

    Args:
        iterators: dataset's name -> iterator.
    """

    def __init__(self, iterators: dict[str, DataIterator]) -> None:
        self.iterators = iterators

    def get_dataset_shard(self, dataset_info: Any) -> DataIterator:
        """Called by Ray Train in the worker."""
        return self.iterators[dataset_info.dataset_name]

    def shutdown_data_executors(self) -> None:
        """Called by Ray Train when the worker group has ended: stop the generators, which hold CPUs."""
        for iterator in self.iterators.values():
            iterator._coord_actor.shutdown_executor.remote()  # type: ignore[attr-defined]


class ShardsCallback(DatasetsCallback):
    """Makes the iterators of each worker group in the controller, and gives each worker its own."""

    def before_init_train_context(self, workers: list[Any]) -> dict[str, list[Shards]]:
        """Called by Ray Train when the workers have started: their datasets begin where the last checkpoint ended."""
        datasets = {name: make() if callable(make) else make for name, make in self._datasets.items()}
        nodes = [worker.metadata.node_id for worker in workers]
        shards = [Shards(found) for found in self._data_config.configure(datasets, len(workers), None, nodes)]
        self._dataset_shard_provider = shards[0]  # all have the same executor
        return {"dataset_shard_provider": shards}
