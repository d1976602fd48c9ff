"""A sound is the mean of its windows, whatever it is embedded together with."""

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
def test_a_long_sound_is_the_mean_of_its_windows_and_a_short_one_is_filled_up_with_silence(batch: int) -> None:
    vectors = embed_sounds(Sounds(20, 4, 8, 16), range(4), windows(8, batch))
    # Windows at 0, 8 and (to end with the sound) 12.
    assert vectors.tolist()[0] == pytest.approx([(1 + 9 + 13) / 3, (8 + 16 + 20) / 3, 8])
    assert vectors.tolist()[1:] == [[1, 0, 8], [1, 8, 8], [5, 12, 8]]
    assert vectors.dtype == np.float32


def test_without_a_window_each_sound_is_taken_whole_and_in_its_own_length() -> None:
    assert embed_sounds(Sounds(20, 4, 4, 8), range(4), WHOLE).tolist() == [
        [1, 20, 20],
        [1, 4, 4],
        [1, 4, 4],
        [1, 8, 8],
    ]


def test_a_sound_longer_than_the_longest_window_is_the_mean_of_such_windows() -> None:
    found = embed_sounds(Sounds(2500), range(1), WHOLE)[0].tolist()
    assert found == pytest.approx([(1 + 1001 + 1501) / 3, (1000 + 2000 + 2500) / 3, 1000])


def test_only_the_items_asked_for_are_read_in_their_order() -> None:
    sounds = Sounds(20, 4, 8)
    sounds.several[1] = torch.empty(0)  # would fail
    assert embed_sounds(sounds, [2, 0], WHOLE)[:, 1].tolist() == [8, 20]


def test_no_more_than_a_batch_is_embedded_at_once() -> None:
    seen = []

    def watched(windows: Tensor) -> Tensor:
        seen.append(len(windows))
        return windows

    embed_sounds(Sounds(100, 100), range(2), Embedder(watched, Reading(10, 10, 60)))
    assert seen == [6, 6, 6, 2]


def test_a_sound_that_cannot_be_read_has_no_numbers(tmp_path: Path) -> None:
    write_noise(tmp_path / "a.wav")
    sounds = Recorded([tmp_path / "a.wav", tmp_path / "gone.wav"], 16000)
    vectors = embed_sounds(sounds, range(2), windows(100))
    assert np.isfinite(vectors[0]).all()
    assert np.isnan(vectors[1]).all()
    assert sounds.failed == {1: f"{tmp_path / 'gone.wav'}: no such file"}
    assert embed_sounds(sounds, [1], windows(100)).shape == (1, 0)


def test_mel_statistics_are_of_the_sound_and_not_of_what_it_is_beside() -> None:
    sounds = Sounds(16000, 9000, 300)
    embedder = by_mel_statistics(16000)
    together = embed_sounds(sounds, range(3), embedder)
    assert np.isfinite(together).all()
    for item in range(3):
        np.testing.assert_allclose(embed_sounds(sounds, [item], embedder)[0], together[item], rtol=1e-5)


def test_mel_statistics_are_of_bands_up_to_half_the_sample_rate() -> None:
    for sample_rate in (1000, 8000, 14999):
        vectors = embed_sounds(Sounds(sample_rate), range(1), by_mel_statistics(sample_rate))
        assert vectors.shape == (1, 128)
        assert np.isfinite(vectors).all()
