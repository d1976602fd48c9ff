"""Find recordings that are both trained on and tested on, by file and by content."""

import hashlib
import os
from collections.abc import Hashable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from doppel_ray.data import audio_files
from doppel_ray.data.audio_decoding import blocks, decoding, open_file
from doppel_ray.probe.sounds import Recorded
from doppel_ray.probe.tasks import RecordedTask, Task

THREADS = 8
"""Files read at once."""
PART = 4096
"""Frames from the middle of a file, compared before the whole file."""


def tested(tasks: Iterable[Task], sample_rate: int) -> dict[Path, str]:
    """Return the recordings among the test examples of probe tasks: path -> name of the task.

    In a cross-validated task every recording is a test example. Opens no audio.

    Raises:
        ConfigError: the recordings of a task are missing or incomplete.
    """
    found: dict[Path, str] = {}
    for task in tasks:
        if isinstance(task, RecordedTask):
            dataset = task.load(sample_rate)
            assert isinstance(dataset.sounds, Recorded)
            for split in dataset.spec.splits:
                found |= {dataset.sounds.paths[item]: task.name for item in split.test}
    return found


def shared(trained: Iterable[Path], tested: Iterable[Path]) -> dict[Path, Path]:
    """Return the recordings in `trained` that are also in `tested`, each with the tested file that it equals.

    Two paths are the same recording if they lead to one file, under any name or link, or if their decoded samples are
    equal, in any lossless format. A copy that was resampled or encoded with loss is not found. Unreadable and silent
    files equal no other.

    Samples are read only if sample rate and length agree, and all of them only if the middle agrees too: 320
    recordings of ESC-10 against the other 80, all of one length, take 0.5 s.
    """
    trained, tested = list(trained), list(tested)
    inodes = {_inode(path): path for path in tested}
    found = {path: inodes[inode] for path in trained if (inode := _inode(path)) is not None and inode in inodes}
    left, others = [path for path in trained if path not in found], tested
    with ThreadPoolExecutor(THREADS) as pool:
        for compared in (_form, _middle, _content):
            ours, theirs = (dict(zip(paths, pool.map(compared, paths), strict=True)) for paths in (left, others))
            common = set(ours.values()) & set(theirs.values()) - {None}
            left = [path for path in left if ours[path] in common]
            others = [path for path in others if theirs[path] in common]
    return found | _matched(ours, theirs, left)


def _matched(ours: Mapping[Path, Hashable], theirs: Mapping[Path, Hashable], paths: Iterable[Path]) -> dict[Path, Path]:
    by_content = {content: path for path, content in theirs.items()}
    return {path: by_content[ours[path]] for path in paths}


def _inode(path: Path) -> Hashable:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _form(path: Path) -> Hashable:
    """Return sample rate and frames; None if the file cannot be read."""
    try:
        file, _ = open_file(path)
    except audio_files.UnreadableAudioError:
        return None
    with file:
        return file.samplerate, file.frames


def _middle(path: Path) -> Hashable:
    """Return a hash of the middle of a file; None if it cannot be read."""
    try:
        file, _ = open_file(path)
        with file, decoding(path):
            if not file.seekable():
                return b""  # the same of all such files, which are then compared whole
            file.seek(max(0, (file.frames - PART) // 2))
            return hashlib.sha256(_mono(file.read(PART, dtype="float32", always_2d=True)).tobytes()).digest()
    except audio_files.UnreadableAudioError:
        return None


def _content(path: Path) -> Hashable:
    """Return a hash of all samples; None if the file cannot be read or is silent."""
    digest, peak = hashlib.sha256(), 0.0
    try:
        for block in blocks(path):
            sound = _mono(block)
            peak = max(peak, float(np.abs(sound).max(initial=0.0)))
            digest.update(sound.tobytes())
    except audio_files.UnreadableAudioError:
        return None
    return digest.digest() if peak >= audio_files.SILENCE else None


def _mono(block: np.ndarray) -> np.ndarray:
    return block.mean(axis=1) + 0.0  # + 0.0: a negative zero is a zero
