"""Encoders and heads: the published sizes, and weights that a seed decides."""

import pytest
import torch

from doppel_ray.models import EncoderConfig, HeadConfig, Model

FEATURES = torch.randn(2, 1, 96, 64, generator=torch.manual_seed(0))


def test_resnet18_has_the_published_size() -> None:
    """ResNet-18 of torchvision, without its last layer: 11,176,512; one input channel, not three, saves 2·64·7·7."""
    encoder = EncoderConfig(kind="resnet18").build()
    assert sum(p.numel() for p in encoder.parameters()) == 11_176_512 - 6272
    assert encoder.size == 512


@pytest.mark.parametrize("frames", [96, 40])
@pytest.mark.parametrize(
    ("kind", "width", "size"), [("resnet18", 64, 512), ("resnet18", 8, 64), ("cnn", 32, 512), ("cnn", 8, 128)]
)
def test_an_encoder_gives_one_vector_whatever_the_length(kind: str, width: int, size: int, frames: int) -> None:
    encoder = EncoderConfig.model_validate({"kind": kind, "width": width}).build().eval()
    assert encoder.size == size
    assert encoder(FEATURES[:, :, :frames]).shape == (2, size)


def test_an_encoder_takes_as_many_channels_as_the_frontend_gives() -> None:
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
def test_a_head_projects_the_representation(head: HeadConfig, size: int, layers: int) -> None:
    model = Model(EncoderConfig(width=8), head, seed=0).eval()
    assert model(FEATURES).shape == (2, size)
    assert sum(isinstance(module, torch.nn.Linear) for module in model.head.modules()) == layers


def test_the_seed_decides_the_weights_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = (Model(EncoderConfig(width=8), HeadConfig(), seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["encoder.stem.0.weight"], other["encoder.stem.0.weight"])
