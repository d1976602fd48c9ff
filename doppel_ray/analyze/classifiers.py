"""Classifiers of the cause of a sound: a probe's, or a pretrained model such as those of AudioSet."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from doppel_ray.analyze import pretrained
from doppel_ray.analyze.sources import reader
from doppel_ray.config.probes import ProbesConfig
from doppel_ray.core import dotted_keys
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.schema import Section
from doppel_ray.data.recordings import Catalogue, Recordings
from doppel_ray.hear import get_scene_embeddings, load_model
from doppel_ray.probe import protocols
from doppel_ray.probe.sounds import Recorded
from doppel_ray.probe.task import Split
from doppel_ray.synth import SynthConfig

AT_ONCE = 256
"""Recordings in memory at a time."""


class ClassifierConfig(Section):
    """The classifier of the cause of a sound."""

    classifier: str | None = None
    """A pretrained audio classifier, such as an Audio Spectrogram Transformer of AudioSet: a local folder, or a name on
    the Hugging Face hub (the extra `clap`)."""
    task: str | None = None
    """Instead of --classifier: a probe task with one class for each sound, such as esc10. The probe is fitted on its
    recordings, embedded by --checkpoint; recordings are classified by probes that were not fitted on them."""
    root: Path | None = None
    """Folder of the task's recordings."""
    protocol: Literal["linear", "mlp", "knn"] = "linear"
    """Protocol of the probe."""


class Classifier(ABC):
    """Returns a distribution over labels for each sound.

    Attributes:
        classes: names of the labels.
        about: further results, as plain data.
        has_recordings: whether it classifies recordings of its own.
    """

    classes: tuple[str, ...]
    has_recordings: bool

    def __init__(self) -> None:
        self.about: dict[str, Any] = {}

    @abstractmethod
    def features(self, sounds: Tensor) -> np.ndarray:
        """Return what `predict` needs of sounds (n, samples): (n, size)."""

    @abstractmethod
    def predict(self, features: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the distribution over labels, (n, classes), for each batch of features."""

    def recordings(self, layers: int) -> np.ndarray | None:
        """Return the same for its own recordings, with the given number of seconds of one recording summed."""
        return None


class Pretrained(Classifier):
    """A classifier from transformers. Scores become a distribution as in transformers' pipeline: by a softmax, or for a
    multi-label model by a sigmoid for each label, here divided by their sum.
    """

    has_recordings = False

    def __init__(self, name: str, sample_rate: int, batch: int, device: torch.device) -> None:
        super().__init__()
        self.name, self.batch, self.device = name, batch, device
        model, extractor = pretrained.load("AutoModelForAudioClassification", name, "--classifier")
        self.model = model.to(device)
        self.extract_features = pretrained.FeatureExtractor(extractor, sample_rate)
        self.classes = tuple(self.model.config.id2label[k] for k in range(self.model.config.num_labels))
        if len(self.classes) < 2:
            raise ConfigError(f"--classifier {name} has {len(self.classes)} label; expected 2 or more")

    def __str__(self) -> str:
        return Path(self.name).name

    @torch.inference_mode()
    def features(self, sounds: Tensor) -> np.ndarray:
        logits = [
            self.model(**self.extract_features(part, self.device)).logits.double() for part in sounds.split(self.batch)
        ]
        scores = torch.cat(logits).cpu()
        if self.model.config.problem_type == "multi_label_classification":
            odds = scores.sigmoid()
            return (odds / odds.sum(dim=1, keepdim=True)).numpy()
        return scores.softmax(dim=1).numpy()

    def predict(self, features: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(features)


class Probe(Classifier):
    """The classifier of a probe task, fitted on a checkpoint's embeddings of two excerpts of each recording, as long as
    the synthetic sounds.

    Synthetic sounds are classified by a probe fitted on all recordings; a recording by one fitted on the folds without
    it or, if the task has a test split, on all but the test recordings. A probe with more dimensions than examples is
    overconfident, so all predictions are tempered by the one temperature at which those for the recordings are
    likeliest (Guo et al., ICML 2017): their mean entropy is then calibrated.

    Raises:
        ConfigError: the task is unknown, its recordings cannot be read, or it is not one class for each sound.
    """

    has_recordings = True

    def __init__(
        self, config: ClassifierConfig, checkpoint: Path, synth: SynthConfig, seed: int, device: torch.device
    ) -> None:
        super().__init__()
        if config.root is None:
            raise ConfigError(f"--task {config.task} needs the folder of its recordings: give it with --root DIR")
        settings = {"tasks": [config.task], "root": config.root, "protocol": config.protocol}
        try:
            probes = ProbesConfig.model_validate(settings)
        except ValidationError as error:
            raise ConfigError(
                f"--task {config.task}: {dotted_keys.explain(error, ProbesConfig, prefix='probes.')}"
            ) from None
        (task,) = probes.build()
        task.check(synth.sample_rate)
        self.task, self.protocol = task, task.protocol or probes.protocol
        dataset = task.load(synth.sample_rate)
        self.spec = dataset.spec
        if self.spec.kind != "multiclass" or not isinstance(dataset.sounds, Recorded):
            raise ConfigError(f"--task {task} is {self.spec.kind}; expected recordings with one class each")
        self.classes = self.spec.labels
        self.model = load_model(checkpoint).to(device)
        root = Path(os.path.commonpath(dataset.sounds.paths))
        names = tuple(path.relative_to(root).as_posix() for path in dataset.sounds.paths)
        catalogue = Catalogue(root, names, tuple(self.spec.targets.tolist()), self.classes, ("",) * len(names))
        self.excerpts: Callable[[int], Recordings] = reader(synth, seed, "skip", catalogue)
        self.fitted, self.fitted_items = self._embedded(1, views=2)
        predictions, targets = self._held_out(1)
        self.temperature = likeliest(predictions, targets)
        self.about["temperature"] = self.temperature

    def __str__(self) -> str:
        return f"the {self.protocol.kind} probe of {self.task}"

    def features(self, sounds: Tensor) -> np.ndarray:
        return get_scene_embeddings(sounds, self.model).cpu().numpy()

    def predict(self, features: Sequence[np.ndarray]) -> list[np.ndarray]:
        every = np.arange(len(self.fitted))
        [predictions] = self._predict(np.concatenate(features), [(every, np.arange(sum(map(len, features))))])
        return np.split(tempered(predictions, self.temperature), np.cumsum([len(part) for part in features])[:-1])

    def recordings(self, layers: int) -> np.ndarray:
        predictions, targets = self._held_out(layers)
        self.about[f"accuracy_{layers}"] = float((predictions.argmax(axis=1) == targets).mean())
        return tempered(predictions, self.temperature)

    def _embedded(self, layers: int, views: int) -> tuple[np.ndarray, np.ndarray]:
        """Return embeddings of `views` excerpts of each recording, and the recording's number for each."""
        recordings, embedded, items = self.excerpts(layers), list[np.ndarray](), list[np.ndarray]()
        for part in torch.arange(len(recordings)).split(AT_ONCE):
            sounds, known = recordings.views_and_items(part)
            embedded.append(self.features(sounds[:views].flatten(0, 1)))
            items.append(known.repeat(views).numpy())
        return np.concatenate(embedded), np.concatenate(items)

    def _held_out(self, layers: int) -> tuple[np.ndarray, np.ndarray]:
        """Return predictions for an excerpt of each recording by probes not fitted on it, and the classes."""
        embedded, items = self._embedded(layers, views=1)
        splits = [
            (
                np.flatnonzero(np.isin(self.fitted_items, np.concatenate([split.train, split.valid]))),
                np.flatnonzero(np.isin(items, split.test)),
            )
            for split in self.spec.splits
        ]
        targets = np.concatenate([self.spec.targets[items[rows]] for _, rows in splits])
        return np.concatenate(self._predict(embedded, splits)), targets

    def _predict(self, embedded: np.ndarray, splits: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        """Return predictions for each split: (rows of `self.fitted` to fit, rows of `embedded` to predict)."""
        targets = np.concatenate([self.spec.targets[self.fitted_items], np.zeros(len(embedded), dtype=np.int64)])
        none = np.empty(0, dtype=np.int64)
        made = tuple(Split("", train, none, len(self.fitted) + rows) for train, rows in splits)
        spec = replace(self.spec, targets=targets, splits=made)
        return protocols.predict(self.protocol, np.concatenate([self.fitted, embedded]), spec)


TEMPERATURES = np.geomspace(0.1, 10.0, 201)


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return distributions (n, classes) at another temperature; above 1 less certain, in the same order of classes."""
    powers = np.clip(probabilities, 1e-12, None) ** (1.0 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def likeliest(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Return the temperature at which the right classes (n,) are likeliest."""
    rows = np.arange(len(targets))
    losses = [-np.log(tempered(probabilities, t)[rows, targets]).mean() for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])
