"""Embedding spaces, and pretrained models that are loaded without unpickling."""

import sys
from pathlib import Path

import pytest
import torch

from doppel_ray.analyze import pretrained
from doppel_ray.analyze.classifiers import Pretrained
from doppel_ray.analyze.spaces import Checkpoint, Clap, Mel, SpacesConfig
from doppel_ray.core.errors import ConfigError
from doppel_ray.hear import get_scene_embeddings, load_model
from tests.test_hear import KINDS, noise, write_checkpoint

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLAP model of random weights, as small as one can be."""
    transformers = pytest.importorskip("transformers", reason="the extra `clap` is not installed")
    torch.manual_seed(0)
    small = {"hidden_size": 64, "projection_dim": 8, "num_hidden_layers": 3}
    audio = {"depths": [1, 1, 1], "num_attention_heads": [2, 2, 2], "patch_embeds_hidden_size": 16, **small}
    text = {"vocab_size": 32, "num_attention_heads": 2, "intermediate_size": 16, **small}
    folder = tmp_path_factory.mktemp("clap")
    config = transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=8)
    transformers.ClapModel(config).save_pretrained(folder)
    transformers.ClapFeatureExtractor(truncation="rand_trunc").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Audio Spectrogram Transformer of random weights."""
    transformers = pytest.importorskip("transformers", reason="the extra `clap` is not installed")
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("ast")
    names = {0: "dog", 1: "rain", 2: "siren"}
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ASTConfig(**small, max_length=128, id2label=names, label2id={v: k for k, v in names.items()})
    transformers.ASTForAudioClassification(config).save_pretrained(folder)
    transformers.ASTFeatureExtractor(max_length=128).save_pretrained(folder)
    return folder


def test_checkpoint_space(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint", KINDS["mel"])
    sounds = noise(2, 5, 16000)
    found = Checkpoint(folder, 16000, 4, CPU)(sounds)
    torch.testing.assert_close(
        found, get_scene_embeddings(sounds.flatten(0, 1), load_model(folder)).unflatten(0, (2, 5))
    )
    with pytest.raises(ConfigError, match=r"--synth\.sample_rate 16000"):
        Checkpoint(folder, 22050, 4, CPU)


def test_levelled_embeddings_are_standardised() -> None:
    space = Mel(16000, 32)
    sounds = noise(2, 8, 16000)
    groups = [space(sounds), space(0.1 * sounds)]
    levelled = space.levelled(groups)
    whole = torch.cat([group.flatten(0, 1) for group in levelled])
    torch.testing.assert_close(whole.mean(dim=0), torch.zeros(128), atol=1e-3, rtol=0.0)
    torch.testing.assert_close(whole.std(dim=0, unbiased=False), torch.ones(128), atol=1e-2, rtol=0.0)
    assert torch.isfinite(torch.cat(space.levelled([torch.ones(2, 4, 3)]))).all(), "what never varies"


@pytest.mark.slow
def test_clap_space(clap: Path) -> None:
    space = Clap(str(clap), 16000, 3, CPU)
    found = space(noise(2, 4, 16000))
    assert found.shape == (2, 4, 8)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(2, 4))
    assert space.levelled([found])[0] is found, "its cosines are taken as they are"
    assert space.extract_features.extractor.sampling_rate == 48000
    assert space.extract_features(noise(1, 16000), CPU)["input_features"].shape[1] == 1


def test_pretrained_classifier(classifier: Path) -> None:
    found = Pretrained(str(classifier), 16000, 2, CPU)
    predicted = found.features(noise(3, 16000))
    assert predicted.shape == (3, 3)
    assert found.classes == ("dog", "rain", "siren")
    assert predicted.sum(axis=1) == pytest.approx(1.0)
    found.model.config.problem_type = "multi_label_classification"
    several = found.features(noise(3, 16000))
    assert several.sum(axis=1) == pytest.approx(1.0)
    assert several.max() < predicted.max()


def test_pickled_weights_are_refused(clap: Path, tmp_path: Path) -> None:
    for file in clap.iterdir():
        if file.suffix == ".json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"whatever a pickle may do")
    with pytest.raises(ConfigError, match=r"--clap .* cannot be loaded: .*safetensors"):
        Clap(str(tmp_path), 16000, 1, CPU)


@pytest.mark.slow
def test_model_of_another_class_is_refused(clap: Path, classifier: Path) -> None:
    with pytest.raises(ConfigError, match="is not a ClapModel: it lacks"):
        Clap(str(classifier), 16000, 1, CPU)
    with pytest.raises(ConfigError, match=r"--classifier .* cannot be loaded"):
        Pretrained(str(clap), 16000, 1, CPU)


def test_missing_model_offline_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="the extra `clap` is not installed")
    monkeypatch.setattr(pretrained, "_online", lambda: False)
    with pytest.raises(ConfigError, match="the Hugging Face hub cannot be reached") as refused:
        Clap("nobody/nothing", 16000, 1, CPU)
    assert "model.safetensors" in str(refused.value)


def test_missing_transformers_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'doppel_ray\[clap\]'"):
        Clap("laion/clap-htsat-unfused", 16000, 1, CPU)


def test_default_spaces() -> None:
    given = SpacesConfig(checkpoint=Path("here"), clap="there")
    assert given.names(every=False) == ("clap",)
    assert given.names(every=True) == ("mel", "checkpoint", "clap")
    assert SpacesConfig().names(every=False) == ("mel",)
    assert SpacesConfig(space=("mel",), clap="there").names(every=True) == ("mel",)
