"""What TensorBoard's projector shows of a probe: so many sounds, each with its labels."""

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from doppel_ray.probe import ProbesConfig
from doppel_ray.probe.projector import CONFIG, project
from doppel_ray.probe.task import Kind, TaskSpec

TARGETS: dict[Kind, np.ndarray] = {
    "multiclass": np.array([0, 1, 2] * 4),
    "multilabel": np.array([[True, True, False], [False, False, False]] * 6),
    "regression": np.arange(36.0).reshape(12, 3),
}


def shown(folder: Path, kind: Kind, count: int, vectors: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The vectors and the lines of labels that TensorBoard would read."""
    probes = ProbesConfig.model_validate({"tasks": ["factors", "esc10"], "root": folder, "projector": count})
    first, second = probes.build()
    questions = TaskSpec(kind, TARGETS[kind], ("dog", "rain", "sea"), (), ("accuracy",))
    project(folder, probes, "epoch_0003", first, questions, vectors)
    project(folder, probes, "epoch_0003", second, questions, 0 * vectors)
    (entry,) = text_format.Parse((folder / CONFIG).read_text(), ProjectorConfig()).embeddings
    assert entry.tensor_name == "factors, epoch_0003", "of the first task alone"
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
def test_every_sound_has_its_labels(tmp_path: Path, kind: Kind, labels: list[str]) -> None:
    vectors = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    found, lines = shown(tmp_path, kind, 1000, vectors)
    np.testing.assert_allclose(found, vectors, rtol=1e-4)
    assert lines[:4] == labels
    assert len(lines) == 12 + (kind == "regression")


def test_no_more_are_shown_than_asked_for_and_none_that_could_not_be_read(tmp_path: Path) -> None:
    vectors = np.arange(12, dtype=np.float32)[:, None].repeat(2, axis=1)
    vectors[3] = np.nan
    found, lines = shown(tmp_path, "multiclass", 4, vectors)
    assert found[:, 0].tolist() == [0, 4, 8, 11]
    assert lines == ["dog", "rain", "sea", "sea"]


def test_newer_embeddings_take_the_place_of_older_ones(tmp_path: Path) -> None:
    for size in (5, 7):
        found, _ = shown(tmp_path, "multiclass", 1000, np.ones((12, size), dtype=np.float32))
        assert found.shape == (12, size)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "labels.tsv",
        CONFIG,
        "vectors.tsv",
    ]
