"""One walk finds the audio in a folder, and counts what it skips."""

import logging
import os
from pathlib import Path

import pytest

from doppel_ray.core.errors import ConfigError
from doppel_ray.data import audio_folders
from doppel_ray.data.recordings import Recordings, RecordingsConfig, catalogue
from tests.recordings import write_noise


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """Two files of audio beside everything that a folder from somebody's disk holds."""
    root = tmp_path / "crowded"
    for name in ("b.WAV", "a/x.flac", ".hidden.wav", ".trash/old.wav", "__MACOSX/b.wav"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_noise(root / name)
    for name in ("._b.WAV", "a/._x.flac", "notes.txt", "a/list.txt", "README", "a/song.mid"):
        (root / name).write_bytes(b"\x00\x05\x16\x07")
    (root / "loop").symlink_to(root)
    (root / "folder.wav").mkdir()
    os.mkfifo(root / "pipe.wav")
    return root


def test_find_counts_what_it_skips(crowded: Path) -> None:
    found = audio_folders.find(crowded)
    assert [path.relative_to(crowded).as_posix() for path in found.paths] == ["a/x.flac", "b.WAV"]
    assert found.skipped == {
        "macOS metadata files (._*)": 2,
        "__MACOSX folders": 1,
        "hidden files or folders": 2,
        "files ending in .txt": 2,
        "files ending in .mid": 1,
        "files with other endings": 1,
        "linked folders": 1,
        "pipes or devices": 1,
    }
    assert "2 files ending in .txt" in found.note


def test_linked_file_is_found(crowded: Path) -> None:
    """A link to a file is the file, also where its target is missing: reading it names it."""
    (crowded / "c.wav").symlink_to(crowded / "b.WAV")
    (crowded / "d.wav").symlink_to(crowded / "gone.wav")
    assert {path.name for path in audio_folders.find(crowded).paths} == {"x.flac", "b.WAV", "c.wav", "d.wav"}


def test_source_logs_what_it_skips(crowded: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Recordings(RecordingsConfig(root=crowded), 16000, 1.0, seed=0).check()
    assert "1 linked folders" in caplog.text
    assert "2 macOS metadata files" in caplog.text


def test_folder_without_audio_is_refused_with_its_content(tmp_path: Path) -> None:
    (tmp_path / "song.mid").touch()
    with pytest.raises(ConfigError, match=r"no audio files .*; skipped: 1 files ending in \.mid"):
        catalogue.folder(tmp_path)


def test_vivae_ignores_macos_metadata(tmp_path: Path) -> None:
    write_noise(tmp_path / "S01_anger_low_01.wav")
    (tmp_path / "._S01_anger_low_01.wav").write_bytes(b"\x00\x05\x16\x07")
    assert catalogue.vivae(tmp_path).paths == ("S01_anger_low_01.wav",)
