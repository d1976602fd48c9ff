"""Recordings are read as mono at the rate that was asked for; what cannot be read is named."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from doppel_ray.data import audio_files


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg"])
def test_read_stereo_at_another_rate(tmp_path: Path, kind: str) -> None:
    """A stereo file at another rate becomes mono at the requested rate."""
    time = np.arange(22050) / 22050
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    path = tmp_path / f"tone.{kind}"
    soundfile.write(path, np.stack([tone, 0.5 * tone], axis=1), 22050)
    assert audio_files.duration(path) == pytest.approx(1.0)
    sound = audio_files.read(path, 16000).numpy()
    assert sound.shape == (16000,)
    expected = 0.375 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert np.abs(sound - expected)[200:-200].max() < 0.02


def converted_level(folder: Path, hz: float, rate: int, to: int) -> float:
    """Level in dB of a tone of 1 s after conversion, over its level before."""
    path = folder / "tone.wav"
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * hz * np.arange(rate) / rate), rate, subtype="FLOAT")
    middle = audio_files.read(path, to)[to // 4 : -to // 4].numpy()
    return float(20 * np.log10(np.sqrt(2 * np.mean(middle**2)) / 0.5 + 1e-12))


@pytest.mark.parametrize(
    ("rate", "to"), [(44100, 16000), (48000, 16000), (22050, 16000), (44100, 22050), (8000, 16000)]
)
def test_resampling_passband_and_aliasing(tmp_path: Path, rate: int, to: int) -> None:
    """Flat to 0.1 dB up to 0.95 of the lower Nyquist frequency (7.6 of 8 kHz); above 1.01 of it, 85 dB down."""
    nyquist = min(rate, to) / 2
    for share in (0.01, 0.5, 0.875, 0.92, 0.95):
        assert converted_level(tmp_path, share * nyquist, rate, to) == pytest.approx(0.0, abs=0.1), share
    if rate > to:
        for share in (1.01, 1.02, 1.05, 1.1, 1.2, 1.3):
            assert converted_level(tmp_path, share * nyquist, rate, to) < -85.0, share


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_read_part_equals_part_of_whole(tmp_path: Path, kind: str, rate: int) -> None:
    path = tmp_path / f"noise.{kind}"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal((2 * rate + 17, 2)), rate)
    whole = audio_files.read(path, 16000)
    with audio_files.opened(path, 16000) as clip:
        assert clip.samples == len(whole)
        for start in (0, clip.step, 50 * clip.step, (clip.samples - 100) // clip.step * clip.step):
            expected = whole[start : start + 8000]
            torch.testing.assert_close(clip.read(start, 8000), expected, rtol=0, atol=1e-6)


def test_resampling_of_unusual_rates(tmp_path: Path) -> None:
    """The exact ratio of 44,101 to 16,000 asks torchaudio for a filter of almost 3 GB."""
    soundfile.write(tmp_path / "odd.wav", 0.5 * np.sin(2 * np.pi * 440 * np.arange(44101) / 44101), 44101)
    sound = audio_files.read(tmp_path / "odd.wav", 16000).numpy()
    assert len(sound) == pytest.approx(16000, abs=2)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(sound)) / 16000)
    assert np.abs(sound - expected)[200:-200].max() < 0.01


@pytest.mark.parametrize(
    "content",
    [None, b"", b"this is no sound", b"RIFF\x24\x00\x00\x00WAVEfmt "],
    ids=["missing", "empty", "text", "cut short"],
)
def test_unreadable_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.wav"
    if content is not None:
        path.write_bytes(content)
    for attempt in (lambda: audio_files.duration(path), lambda: audio_files.read(path, 16000)):
        with pytest.raises(audio_files.UnreadableAudioError, match=r"broken\.wav: \w"):
            attempt()


def test_empty_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "silent.wav"
    soundfile.write(path, np.zeros(0), 16000)
    for attempt in (lambda: audio_files.duration(path), lambda: audio_files.read(path, 16000)):
        with pytest.raises(audio_files.UnreadableAudioError, match=r"silent\.wav: zero-length audio"):
            attempt()


def test_scan_with_and_without_decoding(tmp_path: Path) -> None:
    """A scan names unusable files; one that decodes finds more."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(16000)
    for name, sound in (("fine", noise), ("cut", noise), ("silent", 0 * noise)):
        soundfile.write(tmp_path / f"{name}.flac", sound, 16000)
    soundfile.write(tmp_path / "short.wav", noise[:0], 16000)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "cut.flac").write_bytes((tmp_path / "cut.flac").read_bytes()[:8000])
    soundfile.write(tmp_path / "nan.wav", np.where(noise > 0.3, np.nan, noise), 16000, subtype="FLOAT")
    streamed = bytearray((tmp_path / "fine.flac").read_bytes())
    streamed[21] &= 0xF0  # as an encoder leaves it that writes to a pipe: the length in samples is unknown
    streamed[22:26] = bytes(4)
    (tmp_path / "streamed.flac").write_bytes(streamed)

    paths = [tmp_path / "gone.wav", *sorted(tmp_path.iterdir())]
    headers = {path.name: reason for path, reason in audio_files.scan(paths).items()}
    assert headers == {
        "gone.wav": "no such file",
        "empty.wav": "an empty file",
        "short.wav": "zero-length audio",
        "streamed.flac": "its header does not say how long it is; write the file again",
    }
    decoded = {path.name: reason for path, reason in audio_files.scan(paths, decode=True).items()}
    assert decoded.keys() == {*headers, "cut.flac", "silent.flac", "nan.wav"}
    assert decoded["silent.flac"] == "silent"
    assert "NaN or infinite" in decoded["nan.wav"]
