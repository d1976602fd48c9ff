"""Files that are cut off, damaged or no audio are named with a reason, whatever their format."""

import contextlib
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doppel_ray.data import audio_files, audio_headers
from doppel_ray.data.audio_files import UnreadableAudioError

RATE = 16000

FORMATS = [
    ("wav", "WAV", "PCM_16"),
    ("wav", "WAV", "MS_ADPCM"),
    ("wav", "WAV", "GSM610"),
    ("wav", "WAVEX", "PCM_24"),
    ("rf64", "RF64", "PCM_16"),
    ("w64", "W64", "FLOAT"),
    ("aiff", "AIFF", "PCM_16"),
    ("au", "AU", "PCM_16"),
    ("caf", "CAF", "PCM_16"),
    ("flac", "FLAC", "PCM_16"),
    ("ogg", "OGG", "VORBIS"),
    ("opus", "OGG", "OPUS"),
    ("mp3", "MP3", "MPEG_LAYER_III"),
]


def write(path: Path, kind: str, subtype: str, seconds: float = 4.0) -> Path:
    noise = 0.2 * np.random.default_rng(0).standard_normal(round(seconds * RATE))
    soundfile.write(path, noise, RATE, format=kind, subtype=subtype)
    return path


@pytest.mark.parametrize(("suffix", "kind", "subtype"), FORMATS)
def test_cut_file_is_named(tmp_path: Path, suffix: str, kind: str, subtype: str) -> None:
    """A file of which the second half is missing is named before anything is decoded; the whole one is fine."""
    whole = write(tmp_path / f"whole.{suffix}", kind, subtype)
    assert audio_files.scan([whole]) == {}
    for share in (0.1, 0.5, 0.93):
        cut = tmp_path / f"cut.{suffix}"
        cut.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
        assert cut in audio_files.scan([cut]), share
        with pytest.raises(UnreadableAudioError, match=rf"cut\.{suffix}: \w"):
            audio_files.read(cut, RATE)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_wav_from_a_pipe_is_read(tmp_path: Path, size: int) -> None:
    """A program that writes to a pipe does not know the length; ffmpeg and sox put a large number there."""
    path = write(tmp_path / "pipe.wav", "WAV", "PCM_16", seconds=0.5)
    content = bytearray(path.read_bytes())
    content[40:44] = struct.pack("<I", size)
    path.write_bytes(content)
    assert len(audio_files.read(path, RATE)) == RATE // 2


def test_metadata_after_the_sound(tmp_path: Path) -> None:
    """Bytes after the sound, such as a tag, do not make a file look cut."""
    for suffix, kind, subtype in FORMATS:
        path = write(tmp_path / f"tagged.{suffix}", kind, subtype)
        path.write_bytes(path.read_bytes() + b"TAG" + bytes(125))
        assert audio_headers.check(path).fault is None, kind


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"<!DOCTYPE html><title>404</title>", "a web page"),
        (b"\x00\x05\x16\x07" + bytes(100), "AppleDouble"),
        (b"OggS", "cut short"),
        (b"RIFF\xff\xff\xff\xffWAVEdata\x10\x00\x00\x00", "cut short"),
        (b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f", r"\w"),
    ],
)
def test_what_is_no_audio_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(UnreadableAudioError, match=reason):
        audio_files.read(tmp_path / "a.wav", RATE)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    """A pipe is not waited for."""
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    paths = [*sorted(tmp_path.iterdir()), tmp_path / ("x" * 300), tmp_path / "folder.wav" / "gone.wav"]
    assert list(audio_files.scan(paths)) == paths


# --- fuzzing ---

FILES = int(os.environ.get("DOPPEL_RAY_FUZZ_FILES", "60"))
"""Files that the fuzzer tries; for about an hour: DOPPEL_RAY_FUZZ_FILES=100000."""

ALLOCATED = 64 * 2**20
"""Most bytes of Python and NumPy memory for one file of half a second, whatever its header promises."""


@st.composite
def damaged(draw: st.DrawFn, contents: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """A valid file with bytes changed, most of them in its header, and perhaps cut or extended."""
    suffix, content = draw(st.sampled_from(contents))
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.one_of(st.integers(0, min(128, len(changed) - 1)), st.integers(0, len(changed) - 1)))
        new = draw(st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f" * 8])))
        changed[at : at + len(new)] = new
    end = draw(st.one_of(st.just(len(changed)), st.integers(1, len(changed))))
    return suffix, bytes(changed[:end]) + draw(st.binary(max_size=16))


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, bytes]]:
    root = tmp_path_factory.mktemp("valid")
    return [(s, write(root / f"{kind}-{sub}.{s}", kind, sub, 0.5).read_bytes()) for s, kind, sub in FORMATS]


def attempt(path: Path) -> None:
    """Do with a file what the product does: it is read, or it is named."""
    for use in (lambda: audio_files.read(path, RATE), lambda: audio_files.duration(path)):
        with contextlib.suppress(UnreadableAudioError):
            use()
    audio_files.scan([path], threads=1)
    audio_files.scan([path], decode=True, threads=1)


def test_fuzzed_files_are_read_or_named(contents: list[tuple[str, bytes]], tmp_path: Path) -> None:
    """No other error, no hang, and bounded memory, for valid files with bytes changed."""
    for suffix, content in contents:  # filters and libraries are loaded before memory is counted
        (tmp_path / f"warm.{suffix}").write_bytes(content)
        attempt(tmp_path / f"warm.{suffix}")

    @settings(max_examples=FILES, derandomize=FILES == 60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(damaged(contents))
    def examine(case: tuple[str, bytes]) -> None:
        path = tmp_path / f"fuzzed.{case[0]}"
        path.write_bytes(case[1])
        tracemalloc.reset_peak()
        attempt(path)
        assert tracemalloc.get_traced_memory()[1] < ALLOCATED

    tracemalloc.start()
    try:
        examine()
    finally:
        tracemalloc.stop()
