"""Entropies, and calibrated classifiers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from doppel_ray.analyze.classifiers import ClassifierConfig, Probe, likeliest, tempered
from doppel_ray.analyze.uncertainty import entropy
from doppel_ray.core.errors import ConfigError
from doppel_ray.synth import SynthConfig
from tests.recordings import write_esc50
from tests.test_hear import KINDS, noise, write_checkpoint


def test_entropy() -> None:
    predictions = np.array([[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])
    np.testing.assert_allclose(entropy(predictions), [0.0, 1.0, 2.0], atol=1e-12)


def test_temperature_calibrates() -> None:
    rng = np.random.default_rng(0)
    honest = rng.dirichlet(np.ones(5), size=4000)
    targets = np.array([rng.choice(5, p=p) for p in honest])
    overconfident = tempered(honest, 0.5)
    temperature = likeliest(overconfident, targets)
    assert temperature == pytest.approx(2.0, rel=0.1)
    again = tempered(overconfident, temperature)
    np.testing.assert_allclose(again.sum(axis=1), 1.0)
    assert (again.argmax(axis=1) == honest.argmax(axis=1)).all()
    loss = -np.log2(again[np.arange(len(targets)), targets]).mean()
    assert entropy(again).mean() == pytest.approx(loss, rel=0.05), "as unsure as it is wrong"


def probe(task: str, root: Path, folder: Path) -> Probe:
    checkpoint = write_checkpoint(folder, KINDS["mel"])
    config = ClassifierConfig(task=task, root=root)
    return Probe(config, checkpoint, SynthConfig(duration=0.5, compile=False), 0, torch.device("cpu"))


def test_probe_classifier(tmp_path: Path) -> None:
    found = probe("esc50", write_esc50(tmp_path / "sounds", folds=2, classes=3, takes=6), tmp_path / "checkpoint")
    predictions = found.recordings(1)
    assert predictions.shape == (36, 3)
    np.testing.assert_allclose(predictions.sum(axis=1), 1.0)
    assert found.about["accuracy_1"] > 0.9, "three tones an octave apart"
    tones = torch.stack([torch.sin(2 * torch.pi * 315 * k * torch.arange(8000) / 16000) for k in (1, 2, 3)])
    sounds = 0.3 * tones + 0.01 * noise(3, 8000)
    first, second = found.predict([found.features(sounds), found.features(sounds[:1])])
    assert first.argmax(axis=1).tolist() == [0, 1, 2]
    np.testing.assert_allclose(first[0], second[0], rtol=1e-3)


def test_unfit_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--task factors is regression"):
        probe("factors", tmp_path, tmp_path / "checkpoint")
    with pytest.raises(ConfigError, match="there is no task 'esc11'"):
        probe("esc11", tmp_path, tmp_path / "another")
