"""A pool of processes embeds a task's sounds as one process does; half a minute, the start of two actors."""

from pathlib import Path

import numpy as np
import pytest

from doppel_ray.config.experiment import Experiment
from doppel_ray.config.probes import ProbesConfig
from doppel_ray.models import checkpoint
from doppel_ray.models.checkpoint import ModelSpec, Position
from doppel_ray.probe.evaluate import TaskEmbedder, evaluate_checkpoint
from doppel_ray.tune.probe_pool import EncoderPool

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


def test_two_processes_embed_as_one(tmp_path: Path, esc50_folder: Path) -> None:
    plain = Experiment.model_validate({"encoder": {"kind": "cnn", "width": 8}}).plain()
    folder = tmp_path / "epoch_0000"
    folder.mkdir()
    checkpoint.save(folder, ModelSpec.of(plain).untrained(), plain, Position(), {}, {})
    broken = sorted((esc50_folder / "audio").iterdir())[0]
    broken.write_bytes(b"no audio")
    probes = ProbesConfig.model_validate(
        {"tasks": ["esc50"], "root": esc50_folder, "unreadable": "skip", "cache": 0, "actors": 2, "cpus": 0.5}
    )
    (task,) = probes.build()
    together, alone = EncoderPool(folder, probes), TaskEmbedder(folder)
    for encoding in ("trained", "mel"):
        found, failed = together(task, encoding)
        expected, expected_failed = alone(task, encoding)
        assert failed == expected_failed
        assert len(failed) == 1
        assert broken.name in next(iter(failed.values()))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)  # NaN where the broken file is, in both
    by_pool, by_one = (evaluate_checkpoint(folder, [task], probes.protocol, embedder) for embedder in (together, alone))
    assert by_pool == pytest.approx(by_one, abs=0.02)
