"""A sound's embedding is the mean of its windows and does not depend on its batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from doppel_ray.models.clips import Reading
from doppel_ray.probe.embed import Embedder, by_mel_statistics, embed_sounds
from doppel_ray.probe.sounds import Recorded, Rendered
from tests.recordings import write_noise


class Sounds(Rendered):
    """Sounds of several lengths."""

    def __init__(self, *lengths: int) -> None:
        super().__init__(torch.empty(0))
        self.several = [torch.arange(1.0, length + 1.0) for length in lengths]

    def __len__(self) -> int:
        return len(self.several)

    def read(self, item: int) -> Tensor:
        return self.several[item]


def ends(windows: Tensor) -> Tensor:
    """First and last sample, and how many there are."""
    return torch.stack([windows[:, 0], windows[:, -1], torch.full((len(windows),), float(windows.shape[1]))], dim=1)


def windows(size: int, batch: int = 64) -> Embedder:
    return Embedder(ends, Reading(size, size, batch * size))


WHOLE = Embedder(ends, Reading(1, 1000, 2000))


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_long_sound_is_mean_of_windows_and_short_one_is_padded(batch: int) -> None:
    vectors = embed_sounds(Sounds(20, 4, 8, 16), range(4), windows(8, batch))
    # Windows at 0, 8 and (to end with the sound) 12.
    assert vectors.tolist()[0] == pytest.approx([(1 + 9 + 13) / 3, (8 + 16 + 20) / 3, 8])
    assert vectors.tolist()[1:] == [[1, 0, 8], [1, 8, 8], [5, 12, 8]]
    assert vectors.dtype == np.float32


def test_sounds_without_window_are_embedded_whole() -> None:
    assert embed_sounds(Sounds(20, 4, 4, 8), range(4), WHOLE).tolist() == [
        [1, 20, 20],
        [1, 4, 4],
        [1, 4, 4],
        [1, 8, 8],
    ]


def test_sound_longer_than_longest_window() -> None:
    found = embed_sounds(Sounds(2500), range(1), WHOLE)[0].tolist()
    assert found == pytest.approx([(1 + 1001 + 1501) / 3, (1000 + 2000 + 2500) / 3, 1000])


def test_items_are_read_in_given_order() -> None:
    sounds = Sounds(20, 4, 8)
    sounds.several[1] = torch.empty(0)  # would fail
    assert embed_sounds(sounds, [2, 0], WHOLE)[:, 1].tolist() == [8, 20]


def test_batch_size_limit() -> None:
    seen = []

    def watched(windows: Tensor) -> Tensor:
        seen.append(len(windows))
        return windows

    embed_sounds(Sounds(100, 100), range(2), Embedder(watched, Reading(10, 10, 60)))
    assert seen == [6, 6, 6, 2]


def test_unreadable_sound_is_nan(tmp_path: Path) -> None:
    write_noise(tmp_path / "a.wav")
    sounds = Recorded([tmp_path / "a.wav", tmp_path / "gone.wav"], 16000)
    vectors = embed_sounds(sounds, range(2), windows(100))
    assert np.isfinite(vectors[0]).all()
    assert np.isnan(vectors[1]).all()
    assert sounds.failed == {1: f"{tmp_path / 'gone.wav'}: no such file"}
    assert embed_sounds(sounds, [1], windows(100)).shape == (1, 0)


def test_mel_statistics_do_not_depend_on_batch() -> None:
    sounds = Sounds(16000, 9000, 300)
    embedder = by_mel_statistics(16000)
    together = embed_sounds(sounds, range(3), embedder)
    assert np.isfinite(together).all()
    for item in range(3):
        np.testing.assert_allclose(embed_sounds(sounds, [item], embedder)[0], together[item], rtol=1e-5)


def test_mel_statistics_of_a_sound_of_two_seconds_include_its_end() -> None:
    sounds, embedder = Sounds(30400, 30400), by_mel_statistics(16000)
    sounds.several[1] = torch.where(torch.arange(30400) < 29000, sounds.several[0], 0.0)
    ends_loud, ends_silent = embed_sounds(sounds, range(2), embedder)
    assert np.abs(ends_loud - ends_silent).max() > 0.1


def test_mel_statistics_at_low_sample_rates() -> None:
    for sample_rate in (1000, 8000, 14999):
        vectors = embed_sounds(Sounds(sample_rate), range(1), by_mel_statistics(sample_rate))
        assert vectors.shape == (1, 128)
        assert np.isfinite(vectors).all()
