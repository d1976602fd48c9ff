"""HEAR's task format: the preprocessed releases of the Holistic Evaluation of Audio Representations."""

import json
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from doppel_ray.core import dotted_keys
from doppel_ray.core.errors import ConfigError
from doppel_ray.data.recordings.tables import (
    count,
    first,
    need_columns,
    need_folder,
    need_known,
    on_disk,
    read_cell,
    read_table,
    text,
)
from doppel_ray.probe.tasks.entry import RecordedTask
from doppel_ray.probe.tasks.listing import SPLITS, Listing

EXPECTED = "a task of HEAR's: task_metadata.json, labelvocabulary.csv, a JSON for each split, and audio by sample rate"


class Metadata(BaseModel):
    """The fields read from `task_metadata.json`."""

    embedding_type: Literal["scene", "event"]
    prediction_type: Literal["multiclass", "multilabel"]
    split_mode: Literal["trainvaltest", "presplit_kfold", "new_split_kfold"]
    evaluation: tuple[str, ...]
    splits: tuple[str, ...] | None = None
    nfolds: int | None = Field(default=None, le=1000)

    def parts(self) -> tuple[str, ...]:
        """Return the names of the splits or folds, which the JSON files and the audio folders have too."""
        if self.split_mode == "trainvaltest":
            return SPLITS
        return self.splits or tuple(f"fold{fold:02d}" for fold in range(self.nfolds or 0))


class Hear(RecordedTask):
    """A scene task of HEAR (Turian et al., PMLR 176, 2022; hearbenchmark.com).

    `root` is the task's folder, such as `tasks/esc50-v2.0.0-full`: `task_metadata.json`, `labelvocabulary.csv` (`idx`,
    `label`), a JSON for each split (file name -> labels), and audio in `<sample rate>/<split>/`. The smallest rate
    that is not below the requested one is read, or else the largest, and resampled. Folds rotate as in HEAR: each is
    the test set once, and the next one validates.
    """

    kind: Literal["hear"] = "hear"

    @classmethod
    def _default_name(cls, data: dict[str, Any]) -> str:
        return Path(data["root"]).expanduser().absolute().name if data.get("root") else ""

    def listing(self, root: Path, sample_rate: int) -> Listing:
        need_folder(root, EXPECTED)
        metadata = _metadata(root / "task_metadata.json")
        names = _vocabulary(root / "labelvocabulary.csv")
        audio = root / str(_rate(root, sample_rate))
        paths: list[Path] = []
        parts: list[str] = []
        labels_of: list[list[str]] = []
        for part in metadata.parts():
            file = root / f"{part}.json"
            found = {name: _labels(value) for name, value in sorted(_json(file, dict).items())}
            if not found:
                raise ConfigError(f"{file}: no files")
            need_known((label for labels in found.values() for label in labels), names, file)
            several = [f"{name} ({', '.join(labels)})" for name, labels in found.items() if len(labels) != 1]
            if metadata.prediction_type == "multiclass" and several:
                raise ConfigError(f"{file}: {count(several, 'file')} without exactly one label: {first(several)}")
            paths += [audio / part / on_disk(audio / part, name) for name in found]
            parts += [part] * len(found)
            labels_of += found.values()
        number = {name: k for k, name in enumerate(names)}
        if metadata.prediction_type == "multiclass":
            targets = np.array([number[label] for (label,) in labels_of])
        else:
            targets = np.zeros((len(labels_of), len(names)), dtype=bool)
            for row, labels in enumerate(labels_of):
                targets[row, [number[label] for label in labels]] = True
        return Listing(tuple(paths), metadata.prediction_type, targets, names, tuple(parts), metadata.evaluation)


def _metadata(file: Path) -> Metadata:
    try:
        found = Metadata.model_validate(_json(file, dict))
    except ValidationError as error:
        raise ConfigError(f"{file}: {dotted_keys.explain(error, Metadata)}") from None
    if found.embedding_type == "event":
        raise ConfigError(f"{file}: embedding_type is event (labels in time); expected scene (labels of a whole file)")
    if not found.parts():
        raise ConfigError(f"{file}: split_mode is {found.split_mode}, but neither splits nor nfolds is set")
    return found


def _vocabulary(file: Path) -> tuple[str, ...]:
    """Return the labels in the order of their numbers."""
    columns, rows = read_table(file)
    need_columns(file, columns, ("idx", "label"))
    label = {
        read_cell(file, number, row, "idx"): read_cell(file, number, row, "label")
        for number, row in enumerate(rows, start=1)
    }
    wanted = [str(number) for number in range(len(rows))]
    if not rows or set(label) != set(wanted):
        raise ConfigError(f"{file}: expected idx from 0 on, each once; found {first(sorted(label)) or 'no rows'}")
    if twice := [name for name, times in Counter(label.values()).items() if times > 1]:
        raise ConfigError(f"{file}: {count(twice, 'label')} listed more than once: {first(twice)}")
    return tuple(label[number] for number in wanted)


def _rate(root: Path, wanted: int) -> int:
    rates = sorted(int(entry.name) for entry in root.iterdir() if entry.is_dir() and entry.name.isdecimal())
    if not rates:
        raise ConfigError(f"{root}: no folder of audio such as {wanted} or 48000; expected {EXPECTED}")
    return next((rate for rate in rates if rate >= wanted), rates[-1])


def _labels(value: Any) -> list[str]:
    """Return a value's labels as text; HEAR has lists of labels, and single numbers for pitches."""
    labels = value if isinstance(value, list) else [value]
    return [unicodedata.normalize("NFC", text(label)) for label in labels]


def _json(file: Path, expected: type) -> Any:
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}; expected {EXPECTED}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is not JSON: {error}") from None
    if not isinstance(found, expected):
        raise ConfigError(f"{file}: expected names with values, found {type(found).__name__}")
    return found
