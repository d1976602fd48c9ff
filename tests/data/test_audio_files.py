"""Recordings are read as mono at the rate that was asked for; what cannot be read is named."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from doppel_ray.data import audio_decoding, audio_files


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
        "cut.flac": "cut short: the last of 16000 promised samples is not there",
        "empty.wav": "an empty file",
        "short.wav": "zero-length audio",
        "streamed.flac": "its header does not say how long it is; write the file again",
    }
    decoded = {path.name: reason for path, reason in audio_files.scan(paths, decode=True).items()}
    assert decoded.keys() == {*headers, "silent.flac", "nan.wav"}
    assert decoded["silent.flac"] == "silent"
    assert "NaN or infinite" in decoded["nan.wav"]


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "GSM610"), ("AU", "G721_32"), ("WAV", "NMS_ADPCM_16")])
def test_file_without_seeking_is_read(tmp_path: Path, kind: str, subtype: str) -> None:
    """Telephony formats are decoded from their start; a part equals the part of the whole."""
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 8000)
    soundfile.write(tmp_path / "phone.wav", tone, 8000, format=kind, subtype=subtype)
    whole = audio_files.read(tmp_path / "phone.wav", 16000)
    assert len(whole) == pytest.approx(32000, abs=400)
    assert float(whole.square().mean().sqrt()) == pytest.approx(0.5 / 2**0.5, rel=0.1)
    with audio_files.opened(tmp_path / "phone.wav", 16000) as clip:
        torch.testing.assert_close(clip.read(8000, 4000), whole[8000:12000], rtol=0, atol=1e-6)


@pytest.mark.parametrize("rate", [1, 999, 768001, 1_600_000_016])
def test_rate_outside_of_audio_is_named(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", 0.1 * np.ones(100), 16000)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[24:28] = rate.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(content)
    for attempt in (
        lambda: audio_files.duration(tmp_path / "a.wav"),
        lambda: audio_files.read(tmp_path / "a.wav", 16000),
    ):
        with pytest.raises(audio_files.UnreadableAudioError, match=rf"its sample rate is {rate} Hz; expected 1000 to"):
            attempt()


def test_too_many_channels_are_named(tmp_path: Path) -> None:
    for channels in (64, 65):
        soundfile.write(tmp_path / f"{channels}.wav", 0.1 * np.ones((100, channels)), 16000)
    assert audio_files.scan([tmp_path / "64.wav", tmp_path / "65.wav"]) == {
        tmp_path / "65.wav": "it has 65 channels; expected at most 64"
    }


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("other", [-1.0, -0.98])
def test_channels_that_cancel_are_named(tmp_path: Path, kind: str, other: float) -> None:
    """They are not averaged into silence; independent channels, a silent one and mere silence are fine."""
    random = np.random.default_rng(0)
    noise, tone = 0.2 * random.standard_normal(32000), 0.3 * np.sin(2 * np.pi * 440 * np.arange(32000) / 16000)
    soundfile.write(tmp_path / f"opposite.{kind}", np.stack([tone, other * tone], axis=1), 16000)
    with pytest.raises(audio_files.UnreadableAudioError, match="its channels cancel"):
        audio_files.read(tmp_path / f"opposite.{kind}", 16000)
    for name, right in (("other", 0.2 * random.standard_normal(32000)), ("one", 0 * noise)):
        soundfile.write(tmp_path / f"{name}.{kind}", np.stack([noise, right], axis=1), 16000)
        assert audio_files.read(tmp_path / f"{name}.{kind}", 16000).abs().amax() > 0.1
    soundfile.write(tmp_path / f"silent.{kind}", np.zeros((32000, 2)), 16000)
    assert audio_files.scan([tmp_path / f"silent.{kind}"], decode=True) == {tmp_path / f"silent.{kind}": "silent"}


def test_name_that_is_not_utf8_is_read(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.wav")
    soundfile.write(os.fsencode(path), 0.1 * np.ones(16000), 16000, format="WAV")
    assert audio_files.scan([path], decode=True) == {}
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(audio_files.UnreadableAudioError) as caught:
        audio_files.read(path, 16000)
    assert "caf\\udce9.wav: cut short" in str(caught.value).encode().decode()  # can be printed anywhere


@pytest.mark.parametrize("kind", ["mp3", "ogg", "wav"])
def test_memory_does_not_grow_with_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A long file is decoded in blocks, and parts in any order equal those of the whole."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(20 * 16000)
    soundfile.write(tmp_path / f"long.{kind}", noise, 16000)
    whole = audio_files.read(tmp_path / f"long.{kind}", 16000)
    monkeypatch.setattr(audio_decoding, "_LONG", 1 << 15)
    monkeypatch.setattr(audio_decoding, "BLOCK", 1 << 12)
    with audio_files.opened(tmp_path / f"long.{kind}", 16000) as clip:
        assert clip.samples == len(whole)
        for start in (0, 4000, 100_000, 104_000, 316_000, 2000):
            expected = whole[start : start + 8000]
            torch.testing.assert_close(clip.read(start, 8000), expected, rtol=0, atol=1e-5)
            held = getattr(clip.frames, "held", ())
            assert len(held) <= 1 << 15
