"""A positive pair is a function of (seed, index), whoever makes it and in whatever company."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from doppel_ray.data.augment import AugmentConfig, Gain, SpecMask
from doppel_ray.data.frontends import FrontendConfig
from doppel_ray.data.pairs import CHUNK as CHUNKS
from doppel_ray.data.pairs import PairMaker, PairsConfig
from doppel_ray.data.recordings import SourceConfig, choose, rank
from doppel_ray.models.objectives import equal_pairs
from doppel_ray.synth import SynthConfig

CHUNK = CHUNKS["cpu"]
BRIEF = SynthConfig(duration=0.2)
GAIN = (Gain(),)


def maker(seed: int = 0, augment: tuple[AugmentConfig, ...] = GAIN, **pairs: float) -> PairMaker:
    return PairMaker(BRIEF, PairsConfig.model_validate(pairs), FrontendConfig(), augment, seed)


@pytest.fixture(scope="module")
def stream() -> torch.Tensor:
    return maker()(torch.arange(80))


def test_features_shape_and_dtype(stream: torch.Tensor) -> None:
    assert stream.shape == (80, 2, 1, 18, 64)
    assert stream.dtype == torch.float16
    assert torch.isfinite(stream).all()


@settings(max_examples=15)
@given(st.lists(st.integers(0, 79), min_size=1, max_size=CHUNK + 3))
def test_pair_does_not_depend_on_the_batch(stream: torch.Tensor, indices: list[int]) -> None:
    torch.testing.assert_close(maker()(torch.tensor(indices)).float(), stream[indices].float(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [1, 7, CHUNK, CHUNK + 1, 80])
def test_stream_does_not_depend_on_batch_size(stream: torch.Tensor, size: int) -> None:
    count = min(80, 4 * size)
    batches = torch.cat([maker()(part) for part in torch.arange(count).split(size)])
    torch.testing.assert_close(batches.float(), stream[:count].float(), rtol=0, atol=1e-4)


def test_pairs_of_large_indices() -> None:
    far = torch.tensor([10**12, 2**62])
    features = maker()(far)
    assert torch.isfinite(features).all()
    torch.testing.assert_close(maker()(far[1:]).float(), features[1:].float(), rtol=0, atol=1e-4)


def test_pairs_of_other_seeds_and_indices_differ(stream: torch.Tensor) -> None:
    different = maker(seed=1)(torch.arange(32)).float() - stream[:32].float()
    assert (different.abs().mean(dim=(1, 2, 3, 4)) > 0.01).all()
    assert len(torch.unique(stream[:, 0].flatten(1), dim=0)) == 80


def test_distance_of_features_grows_with_delta() -> None:
    """At δ = 0 both views are one sound."""

    def distance(delta: float) -> float:
        features = maker(augment=(), delta=delta)(torch.arange(32)).float()
        return (features[:, 0] - features[:, 1]).abs().mean().item()

    assert distance(0.0) == 0.0
    assert 0.0 < distance(0.02) < distance(0.1) < distance(0.5)


def test_views_are_augmented_independently() -> None:
    features = maker(delta=0.0)(torch.arange(32)).float()
    assert ((features[:, 0] - features[:, 1]).abs().amax(dim=(1, 2, 3)) > 0.01).all()


def test_spectral_masks_do_not_depend_on_the_batch() -> None:
    masked = maker(augment=(Gain(), SpecMask(fill=-1.0)))
    found = masked(torch.arange(40))
    assert ((found == -1).flatten(2).any(dim=2)).float().mean() > 0.9
    plain = maker()(torch.arange(40))
    torch.testing.assert_close(found[found != -1], plain[found != -1], rtol=0, atol=2e-3)
    torch.testing.assert_close(masked(torch.tensor([37]))[0], found[37], rtol=0, atol=2e-3)


def test_reuse_repeats_pairs() -> None:
    features = maker(reuse=5)(torch.arange(12))
    torch.testing.assert_close(features[5:10].float(), features[:5].float(), rtol=0, atol=1e-4)
    assert len(torch.unique(features[:5].flatten(1), dim=0)) == 5


def test_ids_of_synthetic_pairs() -> None:
    """A pair that comes round again has its identity; fresh pairs never share one."""
    *_, ids = maker(reuse=5).labelled(torch.arange(12))
    assert ids.tolist() == [k % 5 for k in range(12)]
    *_, fresh = maker().labelled(torch.tensor([0, 7, 2**62]))
    assert fresh.tolist() == [0, 7, 2**62]


def test_ids_of_recordings(esc50_folder: Path) -> None:
    """Two pairs have one identity if and only if they are segments of one recording; none is a synthetic pair's."""
    recordings = {"layout": "esc50", "root": str(esc50_folder), "views": "same"}
    source = SourceConfig.model_validate({"mix": {"recordings": 1.0, "synthetic": 1.0}, "recordings": recordings})
    mixed = PairMaker(BRIEF, PairsConfig(), FrontendConfig(), (), 0, source)
    assert mixed.recordings is not None
    indices = torch.arange(4 * len(mixed.recordings))  # two passes over the recordings
    recorded = choose(source.mix, 0, indices)
    _, items = mixed.recordings.views_and_items(rank(source.mix, 0, indices[recorded]))
    *_, ids = mixed.labelled(indices)
    assert torch.equal(ids[~recorded], indices[~recorded])
    assert (ids[recorded] < 0).all()
    assert torch.equal(equal_pairs(ids[recorded]), equal_pairs(items))
    assert torch.equal(ids[recorded].unique(return_counts=True)[1], torch.full((len(mixed.recordings),), 2))


@pytest.mark.parametrize("architecture", ["voice", "voicefm", "parametric"])
def test_pairs_of_every_architecture(architecture: str) -> None:
    synth = SynthConfig.model_validate({"architecture": architecture, "duration": 0.1})
    features = PairMaker(synth, PairsConfig(), FrontendConfig(), (), seed=0)(torch.arange(2))
    assert torch.isfinite(features).all()


def test_delta_schedules() -> None:
    indices = torch.tensor([0, 25, 50, 75, 100, 200])

    def deltas(**schedule: object) -> object:
        return PairsConfig.model_validate({"delta": 0.1, "schedule": schedule}).delta_at(indices, 100)

    assert deltas() == 0.1
    assert deltas(kind="linear", end=0.3).tolist() == pytest.approx([0.1, 0.15, 0.2, 0.25, 0.3, 0.3])
    assert deltas(kind="cosine", end=0.3).tolist()[::2] == pytest.approx([0.1, 0.2, 0.3])
    steps = deltas(kind="steps", steps={"0.5": 0.0, 0.75: 0.4})
    assert steps.tolist() == pytest.approx([0.1, 0.1, 0.0, 0.4, 0.4, 0.4])


@pytest.mark.parametrize(
    "schedule",
    [{"kind": "linear"}, {"kind": "steps"}, {"end": 0.1}, {"kind": "linear", "end": {"pitch": 0.1}}],
    ids=str,
)
def test_inconsistent_schedule_is_refused(schedule: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"end|steps|same groups"):
        PairsConfig.model_validate({"schedule": schedule})


def test_mixed_sources_do_not_depend_on_the_batch(esc10: Path) -> None:
    source = {"mix": {"synthetic": 3, "recordings": 1}, "recordings": {"layout": "esc50", "root": str(esc10)}}
    mixed = PairMaker(BRIEF, PairsConfig(), FrontendConfig(), (), 0, SourceConfig.model_validate(source))
    features, labels, ids = mixed.labelled(torch.arange(40))
    assert (labels >= 0).sum() == 10
    parts = [mixed.labelled(part) for part in torch.arange(40).split(13)]
    torch.testing.assert_close(torch.cat([part[0] for part in parts]).float(), features.float(), rtol=0, atol=1e-4)
    assert torch.equal(torch.cat([part[1] for part in parts]), labels)
    assert torch.equal(torch.cat([part[2] for part in parts]), ids)
    alone = maker(augment=())(torch.arange(40))
    torch.testing.assert_close(features[labels < 0].float(), alone[labels < 0].float(), rtol=0, atol=1e-4)


def test_layers_do_not_depend_on_the_batch() -> None:
    mixed, plain = maker(layers=3, delta=0.0), maker(delta=0.0)
    indices = torch.tensor([5, 0, 7])
    sounds, *_ = mixed.sounds(indices)
    assert sounds.abs().max() <= 1.0
    torch.testing.assert_close(mixed.sounds(indices[1:2])[0], sounds[:, 1:2], rtol=0, atol=1e-5)
    parts, *_ = plain.sounds(torch.tensor([15, 16, 17]))  # those of pair 5
    basis = parts[0].T.double()
    levels = [torch.linalg.lstsq(basis, view[0].double()[:, None]).solution for view in sounds]
    for view, weights in zip(sounds, levels, strict=True):
        torch.testing.assert_close(basis @ weights, view[0].double()[:, None], rtol=0, atol=1e-4)
        assert (weights > 0).all()
    assert ((levels[0] / levels[1]).log().diff(dim=0).abs() > 1e-3).all(), "each view has levels of its own"


def test_layers_at_delta_0(stream: torch.Tensor) -> None:
    far, near = maker(augment=(), layers=2, delta=0.5), maker(augment=(), layers=2, delta=0.01)
    gap = [(m(torch.arange(16))[:, 0].float() - m(torch.arange(16))[:, 1].float()).abs().mean() for m in (far, near)]
    assert gap[0] > 2 * gap[1]
    assert maker(layers=1)(torch.arange(80)).equal(stream)


def test_onsets_are_drawn_for_each_layer_of_each_view() -> None:
    at_once, scenes = maker(delta=0.0), maker(layers=2, delta=0.0, onsets=0.6)
    indices = torch.arange(8)
    sounds, *_ = scenes.sounds(indices)
    torch.testing.assert_close(scenes.sounds(indices[3:4])[0], sounds[:, 3:4], rtol=0, atol=1e-5)
    assert sounds.abs().max() <= 1.0
    assert not torch.allclose(sounds[0], sounds[1], atol=1e-2), "each view has onsets of its own"
    alone, *_ = at_once.sounds(indices)
    late, *_ = maker(delta=0.0, onsets=0.6).sounds(indices)
    size, delays = alone.shape[2], set()
    for before, after in zip(alone.flatten(0, 1), late.flatten(0, 1), strict=True):
        delay = int((after != 0).int().argmax() - (before != 0).int().argmax())
        assert 0 <= delay < 0.6 * size
        torch.testing.assert_close(after[delay:], before[: size - delay], rtol=0, atol=0)
        delays.add(delay)
    assert len(delays) == 16, "no two views start at one time"


def test_onset_after_the_end_is_refused() -> None:
    with pytest.raises(ValueError, match=r"onsets"):
        PairsConfig.model_validate({"layers": 2, "onsets": 1.0})


@pytest.mark.parametrize(
    "pairs", [{"noise": "shared"}, {"noise": "view"}, {"noise": "view", "layers": 2, "onsets": 0.5}], ids=str
)
def test_pairs_of_each_noise_kind_do_not_depend_on_the_batch(pairs: dict[str, object]) -> None:
    made = PairMaker(BRIEF, PairsConfig.model_validate(pairs), FrontendConfig(), (), 0)
    whole = made(torch.arange(40)).float()
    parts = torch.cat([made(part) for part in torch.arange(40).split(7)]).float()
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-4)


def test_unknown_noise_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="'shared' or 'view'"):
        PairsConfig.model_validate({"noise": "pair"})
