"""Ray Train's record of a trial's checkpoints, cut short by a kill -9 or a full disk."""

from pathlib import Path

import pytest
from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import _CheckpointManagerState

from doppel_ray.config.experiment import Experiment
from doppel_ray.models import checkpoint
from doppel_ray.models.checkpoint import ModelSpec, Position
from doppel_ray.train import ray_snapshot
from doppel_ray.train.trainer import next_index, snapshot

SMALL = Experiment.model_validate({"encoder": {"kind": "cnn", "width": 8}})


@pytest.mark.parametrize("left", ["", '{"ray_version":"2.60.0","checkpoint_results":[{"vers'], ids=["nothing", "half"])
def test_damaged_record_is_rebuilt_from_complete_checkpoints(tmp_path: Path, left: str) -> None:
    run, plain = tmp_path / "checkpoints", SMALL.plain()
    for epoch in (2, 1, 3):
        folder = run / f"epoch_{epoch:04d}"
        folder.mkdir(parents=True)
        metrics = {"epoch": epoch, "pairs": 320 * epoch, "loss": 1.0}
        checkpoint.save(folder, ModelSpec.of(plain).untrained(), plain, Position(epoch, 10, 320), metrics, {"rng": []})
    (run / "epoch_0003" / checkpoint.RESUME).unlink()  # the kill came while it was written
    (run / ray_snapshot.SNAPSHOT).write_text(left)
    assert [known["checkpoint"].name for known in snapshot(tmp_path)] == ["epoch_0001", "epoch_0002"]
    assert next_index(tmp_path) == 640
    state = _CheckpointManagerState.model_validate_json((run / ray_snapshot.SNAPSHOT).read_text())
    assert state.latest_checkpoint_result is not None
    assert state.latest_checkpoint_result.checkpoint_dir_name == "epoch_0002", "Ray Train reads it"
