"""Two views of a recording are a function of (seed, index) and the files, in whatever company they are read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from doppel_ray.cluster.experiment_checks import check_source
from doppel_ray.config.experiment import Experiment, validate_experiment
from doppel_ray.core.errors import ConfigError
from doppel_ray.data import audio_files
from doppel_ray.data.pairs import PairMaker
from doppel_ray.data.recordings import Catalogue, Recordings, RecordingsConfig, SourceConfig, choose, rank
from doppel_ray.data.recordings.order import permuted
from doppel_ray.models.checkpoint import ModelSpec
from doppel_ray.synth import SynthConfig
from doppel_ray.synth.timing import Timing
from tests.recordings import write_noise

RATE = 16000


def recordings(root: Path, seed: int = 0, sample_rate: int = RATE, duration: float = 1.0, **config: Any) -> Recordings:
    return Recordings(RecordingsConfig.model_validate({"root": root} | config), sample_rate, duration, seed)


def esc10_recordings(root: Path, **config: Any) -> Recordings:
    return recordings(root, **({"layout": "esc50", "subset": "esc10"} | config))


def ramp(path: Path, seconds: float, sample_rate: int = RATE) -> None:
    """A sound that tells where in it one is: from 0.1 rising to 0.9."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.linspace(0.1, 0.9, round(seconds * sample_rate)), sample_rate, subtype="FLOAT")


@given(st.integers(1, 3000), st.integers(0, 2**63 - 1), st.integers(0, 2**50))
def test_each_pass_is_a_permutation(size: int, seed: int, turn: int) -> None:
    items = permuted(size, seed, torch.full((size,), turn), torch.arange(size))
    assert torch.equal(items.sort().values, torch.arange(size))


def test_permutations_are_uniform() -> None:
    size, turns = 10, 2000
    passes, positions = torch.arange(size * turns) // size, torch.arange(size * turns) % size
    items = permuted(size, 0, passes, positions)
    count = torch.zeros(size, size).index_put_((positions, items), torch.tensor(1.0), accumulate=True)
    chi_squared = ((count - turns / size) ** 2 / (turns / size)).sum().item()
    assert chi_squared < 81 + 4 * np.sqrt(2 * 81)  # 9 x 9 degrees of freedom
    follows = torch.zeros(size, size).index_put_((items[:-1], items[1:]), torch.tensor(1.0), accumulate=True)
    assert follows.fill_diagonal_(turns / size).min() > 0.7 * turns / size, "no item keeps to another"


@pytest.mark.slow
@given(
    st.fixed_dictionaries({"synthetic": st.floats(0.01, 100), "recordings": st.floats(0, 100)}),
    st.integers(0, 2**40),
    st.integers(0, 2**61),
    st.integers(1, 300),
)
def test_choose_follows_weights_evenly(mix: dict[str, float], seed: int, start: int, count: int) -> None:
    """Sources are mixed evenly by weight, as a function of the index alone."""
    source = SourceConfig.model_validate({"mix": mix, "recordings": {"root": "."}})
    indices = start + torch.arange(count)
    chosen = choose(source.mix, seed, indices)
    assert abs(chosen.sum().item() - source.share * count) <= 1.001
    assert torch.equal(chosen, torch.cat([choose(source.mix, seed, index) for index in indices.split(1)]))
    ranks = rank(source.mix, seed, indices)[chosen]  # the recordings' own numbers leave nothing out
    assert torch.equal(ranks, ranks[:1] + torch.arange(len(ranks)))


def test_rank_counts_recordings() -> None:
    assert rank({"recordings": 1.0}, 0, torch.arange(5)).tolist() == [0, 1, 2, 3, 4]
    assert not choose({"synthetic": 1.0}, 0, torch.arange(1000)).any()
    for seed in range(20):
        assert rank({"synthetic": 0.7, "recordings": 0.3}, seed, torch.zeros(1, dtype=torch.int64)) == 0


@pytest.fixture(scope="module")
def stream(esc10: Path) -> tuple[torch.Tensor, torch.Tensor]:
    return esc10_recordings(esc10, mixture=2).views(torch.arange(60))


@settings(max_examples=15)
@given(st.lists(st.integers(0, 59), min_size=1, max_size=40), st.sampled_from([0, 2, 256]), st.integers(1, 3))
def test_views_do_not_depend_on_batch_or_cache(
    esc10: Path, stream: tuple[torch.Tensor, torch.Tensor], indices: list[int], cache_mb: int, threads: int
) -> None:
    reader = esc10_recordings(esc10, mixture=2, cache_mb=cache_mb, threads=threads)
    for _ in range(2):
        sounds, labels = reader.views(torch.tensor(indices))
        assert torch.equal(sounds, stream[0][:, indices])
        assert torch.equal(labels, stream[1][indices])
    assert reader._cache.held <= cache_mb * 2**20


def test_views_and_labels_of_recordings(esc10: Path) -> None:
    reader = esc10_recordings(esc10, folds=[1, 2, 3, 4])
    sounds, labels = reader.views(torch.arange(320, 640))
    assert sounds.shape == (2, 320, RATE)
    assert sounds.dtype == torch.float32
    assert torch.bincount(labels).tolist() == [32] * 10, "a pass has every recording once"
    assert (sounds.abs().amax(dim=2) >= audio_files.SILENCE).all(), "no view is silent, though many of the files end so"
    assert not torch.equal(sounds[0], sounds[1])
    assert reader.check() == {}
    other, _ = esc10_recordings(esc10, folds=[1, 2, 3, 4], seed=1).views(torch.arange(320, 340))
    assert not torch.equal(other, sounds[:, :20])


@given(
    st.sampled_from([16000, 22050, 24000, 32000, 44100, 48000]),
    st.one_of(st.sampled_from([0.1, 0.25, 0.3, 0.95, 1.0, 2.05]), st.floats(0.05, 4.0)),
)
@settings(max_examples=25)
@example(22050, 0.25)  # 5512.5 samples
def test_length_of_views_equals_synthetic_sounds(sample_rate: int, duration: float) -> None:
    """A recording is as long as a synthetic sound and a model's window."""
    synth = SynthConfig(sample_rate=sample_rate, duration=duration)
    catalogue = Catalogue(Path(), ("a.wav",), (-1,), (), ("",))
    found = Recordings(RecordingsConfig(), sample_rate, duration, 0, catalogue).samples
    recipe = ModelSpec.of(Experiment(synth=synth).plain())
    assert found == Timing(sample_rate, duration, synth.control_rate).samples == recipe.samples


def test_mixed_sources_with_a_fractional_length(tmp_path: Path) -> None:
    """0.25 s at 22,050 Hz are 5512.5 samples."""
    for k in range(8):
        write_noise(tmp_path / f"{k}.wav", seed=k)
    experiment = validate_experiment(
        {
            "synth": {"sample_rate": 22050, "duration": 0.25},
            "source": {"mix": {"synthetic": 0.5, "recordings": 0.5}, "recordings": {"root": str(tmp_path)}},
        }
    )
    sounds, *_ = PairMaker.of(experiment.plain()).sounds(torch.arange(8))
    assert sounds.shape == (2, 8, 5513)


def test_dropped_labels_are_minus_1(esc10: Path) -> None:
    _, labels = esc10_recordings(esc10, labelled=0.1).views(torch.arange(400))
    assert torch.bincount(labels + 1).tolist() == [360] + [4] * 10


def test_segment_start_with_same_views(tmp_path: Path) -> None:
    """CLAR's segment is the start of the recording, for both views."""
    ramp(tmp_path / "long.wav", 3.0)
    ramp(tmp_path / "short.wav", 0.25)
    sounds, _ = recordings(tmp_path, segment="start", views="same").views(torch.arange(2))
    assert torch.equal(sounds[0], sounds[1])
    for sound in sounds[0]:
        assert sound[0] == pytest.approx(0.1)
        assert sound[4000:].amin() > 0 or (sound[4000:] == 0).all(), "the short one is followed by zeros"


@pytest.mark.parametrize("rate", [RATE, 44100])
def test_jitter_covers_the_recording(tmp_path: Path, rate: int) -> None:
    ramp(tmp_path / "ramp.wav", 5.0, rate)
    for cache_mb in (0, 64):
        sounds, _ = recordings(tmp_path, cache_mb=cache_mb).views(torch.arange(200))
        place = (sounds.mean(dim=2) - 0.1) / 0.8 * 5.0 - 0.5  # second at which a view begins, from 0 to 4
        assert place.min() < 0.15
        assert place.max() > 3.85
        assert abs(torch.corrcoef(place)[0, 1]) < 0.25
    same, _ = recordings(tmp_path, views="same").views(torch.arange(200))
    assert torch.equal(same[0], same[1])


def test_mixture_level(tmp_path: Path) -> None:
    """Of a recording of three notes in turn, a mixture has up to three, a segment at most two."""
    notes = [0.5 * np.sin(2 * np.pi * pitch * np.arange(2 * RATE) / RATE) for pitch in (500, 1000, 2000)]
    soundfile.write(tmp_path / "notes.wav", np.concatenate(notes), RATE, subtype="FLOAT")
    for mixture, most in ((1, 2), (6, 3)):
        sounds, _ = recordings(tmp_path, mixture=mixture, duration=0.5).views(torch.arange(50))
        spectrum = torch.fft.rfft(sounds).abs()[..., [250, 500, 1000]]
        assert (spectrum > 40).sum(dim=2).max() == most
        torch.testing.assert_close(sounds.abs().amax(dim=2), torch.full((2, 50), 0.5), rtol=0, atol=0.01)


def test_silent_segment_is_replaced(tmp_path: Path) -> None:
    """A silent segment is replaced by one with the recording's loudest moment."""
    sound = np.zeros(20 * RATE)
    sound[5 * RATE] = 0.5
    soundfile.write(tmp_path / "click.wav", sound, RATE)
    sounds, _ = recordings(tmp_path).views(torch.arange(50))
    peaks, at = sounds.abs().max(dim=2)
    assert (peaks == 0.5).all()
    assert at.float().std() > 0.2 * RATE, "and not always at the same place"


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Four recordings, and one each that is silent, without a sample, no audio, and cut short in the middle."""
    for k in range(4):
        write_noise(tmp_path / f"fine_{k}.wav", 2.0, seed=k)
    soundfile.write(tmp_path / "silent.wav", np.zeros(2 * RATE), RATE)
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0), RATE)
    (tmp_path / "text.wav").write_text("this is no sound")
    write_noise(tmp_path / "cut.flac", 20.0)
    content = (tmp_path / "cut.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(content[: len(content) // 2])
    return tmp_path


def test_skipped_recordings(damaged: Path) -> None:
    """Unusable recordings are skipped, named and counted, and pairs still depend on the index alone."""
    indices = torch.arange(64)
    reader = recordings(damaged, on_error="skip")
    sounds, _ = reader.views(indices)
    assert (sounds.abs().amax(dim=2) > 0.1).all()
    assert {Path(path).name: reason for path, reason in reader.broken.items() if "cut" not in path} == {
        "silent.wav": "silent",
        "nothing.wav": "zero-length audio",
        "text.wav": "Format not recognised",
    }
    assert "cut.flac" in {Path(path).name for path in reader.broken}
    uncached = recordings(damaged, on_error="skip", cache_mb=0)
    backwards = [uncached.views(part)[0] for part in indices.flip(0).split(1)]
    assert torch.equal(torch.cat(backwards[::-1], dim=1), sounds)


def test_broken_recording_is_named(damaged: Path) -> None:
    """A broken recording ends the run with its name, unless `on_error` is skip."""
    with pytest.raises(audio_files.UnreadableAudioError, match=r"(silent|nothing|text|cut)\.\w+: \w"):
        recordings(damaged).views(torch.arange(8))
    with pytest.raises(ConfigError, match="3 of 8 recordings cannot be used") as caught:
        recordings(damaged).check()
    assert "on_error skip" in str(caught.value)
    assert len(recordings(damaged, on_error="skip").check()) == 3
    assert len(recordings(damaged, on_error="skip").check(decode=True)) == 4


def test_source_without_usable_recordings_is_refused(tmp_path: Path) -> None:
    for k in range(3):
        (tmp_path / f"{k}.wav").write_text("this is no sound")
    reader = recordings(tmp_path, on_error="skip")
    with pytest.raises(ConfigError, match="3 of 3 recordings cannot be used"):
        reader.check()
    with pytest.raises(audio_files.UnreadableAudioError, match="none of the 3 recordings can be used"):
        reader.views(torch.arange(2))


def test_missing_listed_files_are_named(tmp_path: Path) -> None:
    """Missing files are counted, and the first are named."""
    write_noise(tmp_path / "e.wav")
    (tmp_path / "list.csv").write_text("path\n" + "".join(f"{name}.wav\n" for name in "edcba"))
    config: dict[str, Any] = {"layout": "manifest"}
    with pytest.raises(ConfigError, match=r"4 of 5 files are not there, first a\.wav, b\.wav, c\.wav"):
        recordings(tmp_path / "list.csv", **config)
    reader = recordings(tmp_path / "list.csv", on_error="skip", **config)
    reader.views(torch.arange(5))
    assert set(reader.broken.values()) == {"no such file"}
    assert len(reader.broken) == 4


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"subset": "sc09"}, "of layout speech_commands, but layout is folder"),
        ({"layout": "nsynth", "label": "timbre"}, "expected family or pitch"),
        ({"classes": ["a"]}, "classes is set, but layout folder has its own"),
        ({"segment": "start"}, "expected views same and mixture 1"),
        ({"folds": []}, "at least 1"),
    ],
)
def test_contradictory_settings_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RecordingsConfig.model_validate(config)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"mix": {"synthetic": 0}}, "expected a weight above 0"),
        ({"mix": {"recordings": 0.3}}, "give the weight of synthetic too"),
        ({"mix": {"synthetic": -1}}, "greater than or equal to 0"),
        ({"mix": {"noise": 1}}, "'synthetic' or 'recordings'"),
    ],
)
def test_bad_mix_is_refused(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SourceConfig.model_validate(source)


def test_single_recording_is_refused(tmp_path: Path) -> None:
    """Its segments are no negatives of each other; synthetic pairs beside it are."""
    write_noise(tmp_path / "one.wav")
    source: dict[str, Any] = {"mix": {"recordings": 1.0}, "recordings": {"root": str(tmp_path)}}
    with pytest.raises(ConfigError, match=r"has 1 usable recording.*needs at least 2 recordings, or synthetic pairs"):
        check_source(Experiment.model_validate({"source": source}))
    source["mix"] = {"recordings": 1.0, "synthetic": 1.0}
    check_source(Experiment.model_validate({"source": source}))
