"""What is asked for the cause of a sound: a probe's own classifier, or a pretrained model such as those of AudioSet."""

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
from doppel_ray.core import dotted_keys
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.schema import Section
from doppel_ray.data.recordings import Catalogue, Recordings
from doppel_ray.hear import get_scene_embeddings, load_model
from doppel_ray.probe import protocols
from doppel_ray.probe.evaluate import ProbesConfig
from doppel_ray.probe.sounds import Recorded
from doppel_ray.probe.task import Split
from doppel_ray.synth import SynthConfig

AT_ONCE = 256
"""Recordings whose seconds are held at a time."""


class ClassifierConfig(Section):
    """Who is asked for the cause of a sound."""

    classifier: str | None = None
    """A pretrained audio classifier, such as an Audio Spectrogram Transformer of AudioSet: a local folder, or a name on
    the Hugging Face hub (the extra `clap`)."""
    task: str | None = None
    """In its place: a probe task of one class a sound, such as esc10. The probe is fitted on its recordings, as
    --checkpoint hears them; recordings are asked about by probes that have not heard them."""
    root: Path | None = None
    """Folder of the task's recordings."""
    protocol: Literal["linear", "mlp", "knn"] = "linear"
    """How the probe is fitted."""


class Classifier(ABC):
    """Gives a distribution over labels for each sound.

    Attributes:
        classes: names of the labels.
        about: what else is worth writing down, as plain data.
        has_recordings: it brings recordings of its own.
    """

    classes: tuple[str, ...]
    has_recordings: bool

    def __init__(self) -> None:
        self.about: dict[str, Any] = {}

    @abstractmethod
    def hear(self, sounds: Tensor) -> np.ndarray:
        """What it must keep of sounds (n, samples) to be asked about them: (n, size)."""

    @abstractmethod
    def answer(self, kept: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The distribution over labels, (n, classes), for each batch of sounds that it has heard."""

    def recordings(self, layers: int) -> np.ndarray | None:
        """The same for its own recordings, so many seconds of one at once."""
        return None


class Pretrained(Classifier):
    """A classifier of transformers. Its labels' scores become a distribution as transformers' own pipeline has it: by a
    softmax; or, where the model says that labels exclude nothing, one sigmoid for each, here divided by their sum.
    """

    has_recordings = False

    def __init__(self, name: str, sample_rate: int, batch: int, device: torch.device) -> None:
        super().__init__()
        self.name, self.batch, self.device = name, batch, device
        model, extractor = pretrained.load("AutoModelForAudioClassification", name, "--classifier")
        self.model = model.to(device)
        self.ears = pretrained.FeatureExtractor(extractor, sample_rate)
        self.classes = tuple(self.model.config.id2label[k] for k in range(self.model.config.num_labels))
        if len(self.classes) < 2:
            raise ConfigError(f"--classifier {name} knows {len(self.classes)} label; expected 2 or more")

    def __str__(self) -> str:
        return Path(self.name).name

    @torch.inference_mode()
    def hear(self, sounds: Tensor) -> np.ndarray:
        logits = [self.model(**self.ears(part, self.device)).logits.double() for part in sounds.split(self.batch)]
        scores = torch.cat(logits).cpu()
        if self.model.config.problem_type == "multi_label_classification":
            odds = scores.sigmoid()
            return (odds / odds.sum(dim=1, keepdim=True)).numpy()
        return scores.softmax(dim=1).numpy()

    def answer(self, kept: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(kept)


class Probe(Classifier):
    """The classifier of a probe task: fitted on seconds of its recordings, two of each, as a checkpoint hears them, so
    that what it is asked about lasts as long as what it knows.

    Synthetic sounds are asked of a probe that was fitted on all recordings; a recording of one that was fitted on the
    folds without it, or, where the task has a test split, on all but the test recordings. A probe of more numbers than
    examples is surer than it should be, so all answers are tempered by the one temperature at which those about the
    recordings are likeliest (Guo et al., ICML 2017): at that their mean entropy is what it should be.

    Raises:
        ConfigError: the task is unknown, its recordings cannot be read, or a sound of it has more than one class.
    """

    has_recordings = True

    def __init__(
        self, config: ClassifierConfig, checkpoint: Path, synth: SynthConfig, seed: int, device: torch.device
    ) -> None:
        super().__init__()
        if config.root is None:
            raise ConfigError(f"--task {config.task} needs its recordings: give their folder with --root DIR")
        asked = {"tasks": [config.task], "root": config.root, "protocol": config.protocol}
        try:
            probes = ProbesConfig.model_validate(asked)
        except ValidationError as error:
            raise ConfigError(
                f"--task {config.task}: {dotted_keys.explain(error, ProbesConfig, prefix='probes.')}"
            ) from None
        (task,) = probes.build()
        task.check(synth.sample_rate)
        self.task, self.protocol = task, task.protocol or probes.protocol
        examples = task.load(synth.sample_rate)
        self.questions = examples.questions
        if self.questions.kind != "multiclass" or not isinstance(examples.sounds, Recorded):
            raise ConfigError(f"--task {task} asks for {self.questions.kind}; expected recordings of one class each")
        self.classes = self.questions.labels
        self.model = load_model(checkpoint).to(device)
        root = Path(os.path.commonpath(examples.sounds.paths))
        names = tuple(path.relative_to(root).as_posix() for path in examples.sounds.paths)
        catalogue = Catalogue(root, names, tuple(self.questions.targets.tolist()), self.classes, ("",) * len(names))
        self.seconds: Callable[[int], Recordings] = reader(synth, seed, "skip", catalogue)
        self.known, self.known_items = self._heard(1, views=2)
        answers, targets = self._held_out(1)
        self.temperature = likeliest(answers, targets)
        self.about["temperature"] = self.temperature

    def __str__(self) -> str:
        return f"the {self.protocol.kind} probe of {self.task}"

    def hear(self, sounds: Tensor) -> np.ndarray:
        return get_scene_embeddings(sounds, self.model).cpu().numpy()

    def answer(self, kept: Sequence[np.ndarray]) -> list[np.ndarray]:
        every = np.arange(len(self.known))
        [answers] = self._ask(np.concatenate(kept), [(every, np.arange(sum(map(len, kept))))])
        return np.split(tempered(answers, self.temperature), np.cumsum([len(part) for part in kept])[:-1])

    def recordings(self, layers: int) -> np.ndarray:
        answers, targets = self._held_out(layers)
        self.about[f"accuracy_{layers}"] = float((answers.argmax(axis=1) == targets).mean())
        return tempered(answers, self.temperature)

    def _heard(self, layers: int, views: int) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings of so many seconds of each recording, and which recordings these are."""
        recordings, heard, items = self.seconds(layers), list[np.ndarray](), list[np.ndarray]()
        for part in torch.arange(len(recordings)).split(AT_ONCE):
            sounds, known = recordings.views_and_items(part)
            heard.append(self.hear(sounds[:views].flatten(0, 1)))
            items.append(known.repeat(views).numpy())
        return np.concatenate(heard), np.concatenate(items)

    def _held_out(self, layers: int) -> tuple[np.ndarray, np.ndarray]:
        """Answers about a second of each recording by probes that have not heard it, and the classes."""
        heard, items = self._heard(layers, views=1)
        asked = [
            (
                np.flatnonzero(np.isin(self.known_items, np.concatenate([split.train, split.valid]))),
                np.flatnonzero(np.isin(items, split.test)),
            )
            for split in self.questions.splits
        ]
        targets = np.concatenate([self.questions.targets[items[rows]] for _, rows in asked])
        return np.concatenate(self._ask(heard, asked)), targets

    def _ask(self, heard: np.ndarray, splits: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        """Answers about rows of `heard`, after fitting on rows of what is known, for each pair of both."""
        targets = np.concatenate([self.questions.targets[self.known_items], np.zeros(len(heard), dtype=np.int64)])
        none = np.empty(0, dtype=np.int64)
        made = tuple(Split("", train, none, len(self.known) + rows) for train, rows in splits)
        questions = replace(self.questions, targets=targets, splits=made)
        return protocols.ask(self.protocol, np.concatenate([self.known, heard]), questions)


TEMPERATURES = np.geomspace(0.1, 10.0, 201)


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Distributions (n, classes) at another temperature: above 1 less certain, with the same order of classes."""
    powers = np.clip(probabilities, 1e-12, None) ** (1.0 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def likeliest(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """The temperature at which the right classes (n,) are likeliest."""
    rows = np.arange(len(targets))
    losses = [-np.log(tempered(probabilities, t)[rows, targets]).mean() for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])
