"""Encoders and heads: the published sizes, and weights that a seed decides."""

import pytest
import torch

from doppel_ray.models import EncoderConfig, HeadConfig, Model
from doppel_ray.models.encoders import ENCODERS, Conv2d

FEATURES = torch.randn(2, 1, 96, 64, generator=torch.manual_seed(0))


def test_resnet18_parameter_count() -> None:
    """ResNet-18 of torchvision, without its last layer: 11,176,512; one input channel, not three, saves 2·64·7·7."""
    encoder = EncoderConfig(kind="resnet18").build()
    assert sum(p.numel() for p in encoder.parameters()) == 11_176_512 - 6272
    assert encoder.size == 512


@pytest.mark.parametrize("frames", [96, 40])
@pytest.mark.parametrize(
    ("kind", "width", "size"),
    [("resnet18", 64, 512), ("resnet18", 8, 64), ("cnn", 32, 512), ("cnn", 8, 128), ("framenet", 32, 1472)],
)
def test_encoder_output_for_any_length(kind: str, width: int, size: int, frames: int) -> None:
    encoder = EncoderConfig.model_validate({"kind": kind, "width": width}).build().eval()
    assert encoder.size == size
    assert encoder(FEATURES[:, :, :frames]).shape == (2, size)


def test_encoder_of_three_channels() -> None:
    assert EncoderConfig(width=8).build(channels=3).eval()(FEATURES.expand(2, 3, 96, 64)).shape == (2, 64)


@pytest.mark.parametrize(
    ("head", "size", "layers"),
    [
        (HeadConfig(kind="none"), 64, 0),
        (HeadConfig(kind="linear", size=512), 512, 1),
        (HeadConfig(kind="mlp", hidden=32, layers=3, size=16), 16, 4),
    ],
    ids=["none", "linear", "mlp"],
)
def test_head_layers_and_size(head: HeadConfig, size: int, layers: int) -> None:
    model = Model(EncoderConfig(width=8), head, seed=0).eval()
    output = model(FEATURES)
    assert output.embeddings.shape == (2, size)
    assert output.logits is None
    assert sum(isinstance(module, torch.nn.Linear) for module in model.head.modules()) == layers


def test_weights_depend_on_the_seed_alone() -> None:
    """The global generator is not changed."""
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = (Model(EncoderConfig(width=8), HeadConfig(), seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["encoder.stem.0.weight"], other["encoder.stem.0.weight"])


def test_clar_head_sizes() -> None:
    head = HeadConfig(kind="mlp", hidden=512, layers=2, size=128).build(512)
    linear = [module for module in head.modules() if isinstance(module, torch.nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(512, 512), (512, 512), (512, 128)]


def test_waveform_resnet18_kernels() -> None:
    """As many weights as ResNet-18: kernels of 9 where it has 3 · 3, but for the first, 7 where it has 7 · 7."""
    flat, deep = EncoderConfig(kind="resnet18_1d").build(), EncoderConfig(kind="resnet18").build()
    sizes = [sum(p.numel() for p in encoder.parameters()) for encoder in (flat, deep)]
    assert sizes[0] == sizes[1] - 64 * 49 + 64 * 7
    kernels = [module.kernel_size for module in flat.modules() if isinstance(module, torch.nn.Conv2d)]
    assert sorted(set(kernels)) == [(1, 1), (1, 7), (1, 9)]
    assert flat.size == 512


def test_framenet_for_any_number_of_mels() -> None:
    """It takes any number of mels, and distinguishes bands."""
    encoder = EncoderConfig(kind="framenet", width=8).build(channels=3).eval()
    assert encoder(torch.randn(2, 3, 126, 128)).shape == (2, 368)
    low = torch.zeros(1, 3, 96, 64)
    low[..., :16] = 1.0
    assert not torch.allclose(encoder(low), encoder(low.roll(32, dims=3)), rtol=0.1)


@pytest.mark.parametrize("samples", [16000, 5000])
def test_waveform_encoder_output_for_any_length(samples: int) -> None:
    config = EncoderConfig(kind="resnet18_1d", width=8)
    assert config.build().eval()(torch.randn(2, 1, samples)).shape == (2, 64)


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoder_domain(kind: str) -> None:
    config = EncoderConfig.model_validate({"kind": kind, "width": 8})
    assert config.domain == config.build().domain == ("waveform" if kind == "resnet18_1d" else "spectrogram")


@pytest.mark.parametrize(("representation", "size"), [("pooled", 64), ("projected", 16)])
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_representation_setting(representation: str, size: int, head: str) -> None:
    encoder = EncoderConfig.model_validate({"width": 8, "representation": representation})
    model = Model(encoder, HeadConfig.model_validate({"kind": head, "size": 16}), seed=0).eval()
    found = model.represent(FEATURES)
    assert found.shape == (2, size)
    expected = model.encoder(FEATURES) if representation == "pooled" else model(FEATURES).embeddings
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("head", ["none", "linear", "mlp"])
def test_classifier_does_not_change_other_weights(head: str) -> None:
    """A model with classes has logits of its embeddings, and otherwise the same weights."""
    encoder, config = EncoderConfig(kind="cnn", width=8), HeadConfig.model_validate({"kind": head, "size": 16})
    plain, model = Model(encoder, config, seed=0).eval(), Model(encoder, config, seed=0, classes=5).eval()
    output = model(FEATURES)
    assert output.logits is not None
    assert output.logits.shape == (2, 5)
    torch.testing.assert_close(output.embeddings, plain(FEATURES).embeddings)
    assert set(model.state_dict()) - set(plain.state_dict()) == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(("size", "stride"), [((3, 2), 1), ((6, 4), 2), ((5, 3), 2)])
def test_small_convolution_equals_the_library(size: tuple[int, int], stride: int) -> None:
    ours = Conv2d(5, 7, 3, stride, padding=1, bias=False)
    theirs = torch.nn.Conv2d(5, 7, 3, stride, padding=1, bias=False)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 5, *size)
    torch.testing.assert_close(ours(x), theirs(x))
    for layer in (ours, theirs):
        layer(x).square().sum().backward()
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-4)


def test_head_does_not_read_early_layers() -> None:
    """Probes read early layers, and the head does not."""
    config, head = EncoderConfig(kind="framenet", width=8), HeadConfig(kind="linear", size=16)
    model = Model(config, head, seed=0).train()
    features = torch.randn(4, 1, 96, 64)
    assert model.represent(features).shape == (4, model.encoder.size)
    pooled = model.encoder(features)
    pooled.retain_grad()
    model.head(pooled[:, model.encoder.early :]).square().sum().backward()
    assert model.encoder.early == 48
    assert (pooled.grad[:, :48] == 0).all()
    torch.testing.assert_close(model(features).embeddings, model.head(pooled[:, 48:]))
