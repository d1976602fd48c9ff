"""Write embeddings of a probe's sounds for TensorBoard's projector, coloured by their labels."""

from pathlib import Path

import numpy as np

from doppel_ray.core import files
from doppel_ray.probe.task import TaskSpec
from doppel_ray.probe.tasks import Task

FOLDER = "projector"
CONFIG = "projector_config.pbtxt"
"""File name that TensorBoard looks for in a run's folder."""
ENTRY = """embeddings {{
  tensor_name: "{name}"
  tensor_path: "{folder}/vectors.tsv"
  metadata_path: "{folder}/labels.tsv"
}}"""


def project(
    folder: Path, shown_task: str, count: int, name: str, task: Task, spec: TaskSpec, vectors: np.ndarray
) -> None:
    """Write the embeddings of the shown task; they replace those of an earlier checkpoint.

    Args:
        folder: the trial's folder, a run in TensorBoard.
        shown_task: name of the task to show; embeddings of other tasks are ignored.
        count: number of sounds to show, evenly spaced; 0: none.
        name: of the checkpoint.
        task: whose sounds the embeddings are of.
        spec: of its n examples.
        vectors: (n, size) float32; NaN for sounds that cannot be read.
    """
    if task.name != shown_task or not count:
        return
    read = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    shown = read[np.linspace(0, len(read) - 1, min(count, len(read))).round().astype(int)]
    tables = {
        f"{FOLDER}/vectors.tsv": [[f"{value:.5g}" for value in row] for row in vectors[shown]],
        f"{FOLDER}/labels.tsv": _labels(spec, shown),
        CONFIG: [[ENTRY.format(name=f"{task.name}, {name}", folder=FOLDER)]],
    }
    (folder / FOLDER).mkdir(exist_ok=True)
    for file, lines in tables.items():
        files.replace(folder / file, "".join("\t".join(cells) + "\n" for cells in lines))


def _labels(spec: TaskSpec, shown: np.ndarray) -> list[list[str]]:
    """Return a line for each example; for values, which have several columns, a header line before them."""
    targets = spec.targets[shown]
    if spec.kind == "regression":
        return [list(spec.labels), *([f"{value:.4g}" for value in row] for row in targets)]
    if spec.kind == "multiclass":
        return [[spec.labels[target]] for target in targets]
    return [["+".join(spec.labels[k] for k in np.flatnonzero(row)) or "none"] for row in targets]
