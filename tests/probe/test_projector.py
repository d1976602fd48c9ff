"""TensorBoard's projector shows sounds of the first task with their labels."""

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from doppel_ray.probe.projector import CONFIG, project
from doppel_ray.probe.task import Kind, TaskSpec
from doppel_ray.probe.tasks import Factors, Native

TARGETS: dict[Kind, np.ndarray] = {
    "multiclass": np.array([0, 1, 2] * 4),
    "multilabel": np.array([[True, True, False], [False, False, False]] * 6),
    "regression": np.arange(36.0).reshape(12, 3),
}


def shown(folder: Path, kind: Kind, count: int, vectors: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The vectors and the lines of labels that TensorBoard would read."""
    spec = TaskSpec(kind, TARGETS[kind], ("dog", "rain", "sea"), (), ("accuracy",))
    project(folder, "factors", count, "epoch_0003", Factors(), spec, vectors)
    project(folder, "factors", count, "epoch_0003", Native(kind="esc10"), spec, 0 * vectors)
    (entry,) = text_format.Parse((folder / CONFIG).read_text(), ProjectorConfig()).embeddings
    assert entry.tensor_name == "factors, epoch_0003", "only of the shown task"
    lines = (folder / entry.metadata_path).read_text().splitlines()
    return np.loadtxt(folder / entry.tensor_path, delimiter="\t", ndmin=2), lines


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ("multiclass", ["dog", "rain", "sea", "dog"]),
        ("multilabel", ["dog+rain", "none", "dog+rain", "none"]),
        ("regression", ["dog\train\tsea", "0\t1\t2", "3\t4\t5", "6\t7\t8"]),
    ],
)
def test_labels_of_every_kind(tmp_path: Path, kind: Kind, labels: list[str]) -> None:
    vectors = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    found, lines = shown(tmp_path, kind, 1000, vectors)
    np.testing.assert_allclose(found, vectors, rtol=1e-4)
    assert lines[:4] == labels
    assert len(lines) == 12 + (kind == "regression")


def test_count_limits_readable_sounds(tmp_path: Path) -> None:
    vectors = np.arange(12, dtype=np.float32)[:, None].repeat(2, axis=1)
    vectors[3] = np.nan
    found, lines = shown(tmp_path, "multiclass", 4, vectors)
    assert found[:, 0].tolist() == [0, 4, 8, 11]
    assert lines == ["dog", "rain", "sea", "sea"]


def test_newer_embeddings_replace_older_ones(tmp_path: Path) -> None:
    for size in (5, 7):
        found, _ = shown(tmp_path, "multiclass", 1000, np.ones((12, size), dtype=np.float32))
        assert found.shape == (12, size)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "labels.tsv",
        CONFIG,
        "vectors.tsv",
    ]
