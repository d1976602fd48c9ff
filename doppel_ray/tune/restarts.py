"""When a trial's training restarts after Ray Train has ended with an error."""

from enum import Enum, auto

import ray.exceptions
from ray.train.v2.api.exceptions import ControllerError, PreemptionError, WorkerGroupError

from doppel_ray.config.train import TrainConfig


class Restart(Enum):
    """Why training restarts."""

    NO_ROOM = auto()
    """There was no room for all train workers; fewer are allowed."""
    CONTROLLER_DIED = auto()
    """Ray Train's controller, which restarts workers, does not restart itself."""
    WORKER_LOST = auto()
    """A worker was lost; another number of workers may continue, or it was lost with its node."""


class RestartPolicy:
    """Decides whether training restarts, and with fewer than how many workers.

    With a fixed number of workers Ray Train itself restarts lost ones. It replaces neither its own controller nor
    changes the number of workers: that takes another run of it.

    Args:
        train: the trial's settings.
    """

    def __init__(self, train: TrainConfig) -> None:
        self.train = train
        self.failures = 0
        """Errors so far, of the `train.max_failures` allowed; lack of room and losses of nodes do not count."""
        self.below: int | None = None
        """Number of workers for which the last run found no room; None: it found room."""

    def after(self, error: Exception, workers: int, lost_nodes: bool = False) -> Restart | None:
        """Return why training restarts after an error; None: it has failed.

        Args:
            error: that ended a run of Ray Train.
            workers: of that run.
            lost_nodes: whether the cluster lost nodes during that run. An error of another cause comes again without.
        """
        self.below = None
        elastic = self.train.elastic
        if elastic and isinstance(error, ControllerError) and workers > self.train.worker_counts[-1]:
            self.below = workers
            return Restart.NO_ROOM
        self.failures += not (lost_nodes or isinstance(error, PreemptionError))
        if self.failures > self.train.max_failures:
            return None
        if isinstance(error, ray.exceptions.ActorDiedError):
            return Restart.CONTROLLER_DIED
        restarts = elastic or lost_nodes
        return Restart.WORKER_LOST if restarts and isinstance(error, WorkerGroupError | PreemptionError) else None
