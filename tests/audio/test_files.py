"""Recordings are read as mono at the rate that was asked for; what cannot be read is named."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from doppel_ray.audio import files


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg"])
def test_a_stereo_file_at_another_rate_becomes_mono_at_ours(tmp_path: Path, kind: str) -> None:
    time = np.arange(22050) / 22050
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    path = tmp_path / f"tone.{kind}"
    soundfile.write(path, np.stack([tone, 0.5 * tone], axis=1), 22050)
    assert files.length(path) == pytest.approx(1.0)
    sound = files.read(path, 16000).numpy()
    assert sound.shape == (16000,)
    expected = 0.375 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert np.abs(sound - expected)[200:-200].max() < 0.02


@pytest.mark.parametrize(
    "content",
    [None, b"", b"this is no sound", b"RIFF\x24\x00\x00\x00WAVEfmt "],
    ids=["missing", "empty", "text", "cut short"],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.wav"
    if content is not None:
        path.write_bytes(content)
    for attempt in (lambda: files.length(path), lambda: files.read(path, 16000)):
        with pytest.raises(files.UnreadableAudioError, match=r"broken\.wav: \w"):
            attempt()


def test_a_file_without_a_sample_is_named(tmp_path: Path) -> None:
    path = tmp_path / "silent.wav"
    soundfile.write(path, np.zeros(0), 16000)
    for attempt in (lambda: files.length(path), lambda: files.read(path, 16000)):
        with pytest.raises(files.UnreadableAudioError, match=r"silent\.wav: zero-length audio"):
            attempt()
