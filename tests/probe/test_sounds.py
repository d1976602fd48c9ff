"""Recordings are decoded once, and faults of the cache never stop a probe."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from doppel_ray.data import audio_files
from doppel_ray.probe import sounds as module
from doppel_ray.probe.sounds import Cached, Recorded, Rendered, stream
from tests.recordings import write_noise

RATE = 16000
SECOND = 4 * RATE
"""Bytes."""


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where decoded sounds are kept."""
    monkeypatch.setenv("DOPPEL_RAY_CACHE", str(tmp_path / "cache"))
    module._warn_once.cache_clear()
    return tmp_path / "cache" / "sounds"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that have been decoded."""
    done: list[Path] = []
    read = audio_files.read

    def counted(path: Path, sample_rate: int) -> torch.Tensor:
        done.append(path)
        return read(path, sample_rate)

    monkeypatch.setattr(audio_files, "read", counted)
    return done


@pytest.fixture
def recordings(tmp_path: Path) -> Callable[[str], list[Path]]:
    """Five recordings of 0.1 to 0.5 s, 1.5 s in all."""

    def write(name: str) -> list[Path]:
        paths = [tmp_path / name / f"{k}.wav" for k in range(5)]
        for k, path in enumerate(paths):
            write_noise(path, seconds=0.1 * (k + 1), seed=k, sample_rate=22050)
        return paths

    return write


def read_all(sounds: Recorded | Rendered) -> list[torch.Tensor | None]:
    return list(stream(sounds, range(len(sounds))))


def test_second_probe_reads_the_cache(kept: Path, decoded: list[Path], recordings: Callable[[str], list[Path]]) -> None:
    paths = recordings("a")
    direct = read_all(Recorded(paths, RATE))
    assert len(decoded) == 5
    for _ in range(2):
        for found, expected in zip(read_all(Cached(paths, RATE, 10 * SECOND)), direct, strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert len(decoded) == 10
    read_all(Cached(paths, 8000, 10 * SECOND))
    assert len(decoded) == 15, "another rate is another sound"
    write_noise(paths[0], seconds=0.2, seed=9)
    assert len(Cached(paths, RATE, 10 * SECOND).read(0)) == 0.2 * RATE, "a file that has changed is decoded again"


def test_cache_of_another_version_is_not_used(
    kept: Path, decoded: list[Path], recordings: Callable[[str], list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = recordings("a")
    read_all(Cached(paths, RATE, 10 * SECOND))
    monkeypatch.setattr(audio_files, "VERSION", audio_files.VERSION - 1)
    read_all(Cached(paths, RATE, 10 * SECOND))
    assert len(decoded) == 10


def test_cache_limit_removes_least_recently_used(
    kept: Path, decoded: list[Path], recordings: Callable[[str], list[Path]]
) -> None:
    limit = 4 * SECOND  # room for two sets of 1.5 s
    sets = {name: recordings(name) for name in "abc"}
    for age, name in enumerate("ab"):
        before = set(kept.glob("*")) if kept.exists() else set()
        Cached(sets[name], RATE, limit).read(0)
        (fresh,) = set(kept.glob("*")) - before
        os.utime(fresh, (1000.0 + age, 1000.0 + age))
    Cached(sets["a"], RATE, limit).read(0)  # used again: now b is the oldest
    Cached(sets["c"], RATE, limit).read(0)
    assert sum(file.stat().st_size for file in kept.iterdir()) <= limit
    decoded.clear()
    for name in "ac":
        Cached(sets[name], RATE, limit).read(0)
    assert decoded == []
    Cached(sets["b"], RATE, limit).read(0)
    assert len(decoded) == 5


def test_task_larger_than_cache_limit(
    kept: Path, decoded: list[Path], recordings: Callable[[str], list[Path]], caplog: pytest.LogCaptureFixture
) -> None:
    paths = recordings("a")
    for _ in range(2):
        assert len(read_all(Cached(paths, RATE, SECOND))) == 5
    assert len(decoded) == 10
    assert not kept.exists()
    (said,) = caplog.messages
    assert "5 recordings" in said
    assert "probes.cache allows" in said


@pytest.mark.parametrize("damage", ["short", "header", "empty"])
def test_damaged_cache_file_is_rewritten(
    kept: Path, decoded: list[Path], recordings: Callable[[str], list[Path]], damage: str
) -> None:
    paths = recordings("a")
    first = Cached(paths, RATE, 10 * SECOND).read(4)
    (file,) = kept.iterdir()
    content = file.read_bytes()
    file.write_bytes({"short": content[:-100], "header": b"\xff" * 48 + content[48:], "empty": b""}[damage])
    torch.testing.assert_close(Cached(paths, RATE, 10 * SECOND).read(4), first, rtol=0, atol=0)
    assert len(decoded) == 10
    assert file.read_bytes() == content


@pytest.mark.parametrize("trouble", ["folder", "disk"])
def test_unwritable_cache_warns_once(
    trouble: str,
    tmp_path: Path,
    kept: Path,
    recordings: Callable[[str], list[Path]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    paths = recordings("a")
    if trouble == "folder":
        (tmp_path / "cache").write_text("a file stands in the way")
    else:

        def full(self: Cached, file: Path, progress: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Cached, "_write", full)
    for _ in range(2):
        assert None not in [sound is None for sound in read_all(Cached(paths, RATE, 10 * SECOND))]
    assert len([line for line in caplog.messages if "cannot be kept" in line]) == 1


def test_full_disk_leaves_no_partial_file(
    kept: Path, recordings: Callable[[str], list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "replace", full)
    assert len(Cached(recordings("a"), RATE, 10 * SECOND).read(0)) == 0.1 * RATE
    assert list(kept.iterdir()) == []


def test_concurrent_readers(kept: Path, recordings: Callable[[str], list[Path]]) -> None:
    paths = recordings("a")
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: Cached(paths, RATE, 10 * SECOND).read(3), range(2))
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert len(list(kept.iterdir())) == 1


@pytest.mark.parametrize("limit", [0, 10 * SECOND])
def test_unreadable_file_and_reason_are_cached(kept: Path, recordings: Callable[[str], list[Path]], limit: int) -> None:
    paths = recordings("a")
    paths[1].write_bytes(b"no sound")
    paths[3].unlink()
    for _ in range(2):
        sounds = Cached(paths, RATE, limit) if limit else Recorded(paths, RATE)
        found = read_all(sounds)
        assert [item for item, sound in enumerate(found) if sound is None] == [1, 3]
        assert sounds.failed.keys() == {1, 3}
        assert sounds.failed[3] == f"{paths[3]}: no such file"
        with pytest.raises(audio_files.UnreadableAudioError, match=r"1\.wav"):
            sounds.read(1)


def test_rendered_sounds() -> None:
    rendered = Rendered(torch.arange(6.0).reshape(2, 3))
    assert np.array_equal(torch.stack([rendered.read(1), rendered.read(0)]), [[3, 4, 5], [0, 1, 2]])


def test_reason_does_not_repeat_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.wav")
    path.write_bytes(b"not audio")
    (reason,) = Recorded([path], 16000).unreadable().values()
    assert str(tmp_path) not in reason
