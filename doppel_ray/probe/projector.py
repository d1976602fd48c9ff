"""Embeddings of a probe's sounds as TensorBoard's projector reads them: a cloud, coloured by their labels."""

from pathlib import Path

import numpy as np

from doppel_ray.core import files
from doppel_ray.probe.evaluate import ProbesConfig
from doppel_ray.probe.task import TaskSpec
from doppel_ray.probe.tasks import Task

FOLDER = "projector"
CONFIG = "projector_config.pbtxt"
"""Where TensorBoard looks for it in a run's folder."""
ENTRY = """embeddings {{
  tensor_name: "{name}"
  tensor_path: "{folder}/vectors.tsv"
  metadata_path: "{folder}/labels.tsv"
}}"""


def project(
    folder: Path, probes: ProbesConfig, name: str, task: Task, questions: TaskSpec, vectors: np.ndarray
) -> None:
    """Show embeddings of the first task, in place of those of an earlier checkpoint.

    Args:
        folder: the trial's, which is a run of TensorBoard's.
        probes: which task is the first, and how many of its sounds are shown (`projector`), at even distances.
        name: the checkpoint's.
        task: which the embeddings are of; of any but the first nothing is shown.
        questions: about its n examples.
        vectors: (n, size) float32; those of sounds that cannot be read are NaN.
    """
    if task.name != probes.tasks[0].name or not probes.projector:
        return
    read = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    shown = read[np.linspace(0, len(read) - 1, min(probes.projector, len(read))).round().astype(int)]
    tables = {
        f"{FOLDER}/vectors.tsv": [[f"{value:.5g}" for value in row] for row in vectors[shown]],
        f"{FOLDER}/labels.tsv": _labels(questions, shown),
        CONFIG: [[ENTRY.format(name=f"{task.name}, {name}", folder=FOLDER)]],
    }
    (folder / FOLDER).mkdir(exist_ok=True)
    for file, lines in tables.items():
        files.replace(folder / file, "".join("\t".join(cells) + "\n" for cells in lines))


def _labels(questions: TaskSpec, shown: np.ndarray) -> list[list[str]]:
    """A line for each example; of values, which are several columns, also their names as the first line."""
    targets = questions.targets[shown]
    if questions.kind == "regression":
        return [list(questions.labels), *([f"{value:.4g}" for value in row] for row in targets)]
    if questions.kind == "multiclass":
        return [[questions.labels[target]] for target in targets]
    return [["+".join(questions.labels[k] for k in np.flatnonzero(row)) or "none"] for row in targets]
