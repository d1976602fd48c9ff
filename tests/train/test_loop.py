"""What a train worker refuses."""

from dataclasses import asdict
from pathlib import Path

import pytest

from doppel_ray.config.experiment import Experiment
from doppel_ray.core.errors import ConfigError
from doppel_ray.train.elastic import WorkerScaling
from doppel_ray.train.loop import train_loop


def test_worker_refuses_a_folder_of_its_own_disk(tmp_path: Path) -> None:
    """A node that does not share the run's folder would keep the checkpoints to itself, and take them with it."""
    folder = tmp_path / "runs" / "mine" / "trials" / "000"
    config = {"experiment": Experiment().plain(), "folder": str(folder), "source": None, "drains": False}
    with pytest.raises(ConfigError, match=rf"does not see {folder}.*file system that all nodes share"):
        train_loop(config | {"scaling": asdict(WorkerScaling())})
    assert not list(tmp_path.iterdir())
