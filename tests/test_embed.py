"""Files of all formats are embedded, one row each or one for each timestamp, or named as unreadable."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import soundfile
import torch

from doppel_ray import embed
from doppel_ray.core.errors import ConfigError
from doppel_ray.data import audio_files
from doppel_ray.hear import get_scene_embeddings, get_timestamp_embeddings, load_model
from doppel_ray.probe.embed import by_model, embed_sounds
from doppel_ray.probe.sounds import Recorded
from tests.conftest import REPOSITORY
from tests.recordings import write_noise
from tests.test_hear import KINDS, write_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "here", KINDS["mel"])


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """Six files, of five formats, five rates, one and two channels, and from 10 ms to over a minute."""
    random = np.random.default_rng(0)
    root = tmp_path / "sounds"
    (root / "deeper").mkdir(parents=True)
    for name, rate, seconds, channels in (
        ("a.wav", 16000, 0.01, 1),
        ("b.AIFF", 44100, 2.7, 2),
        ("c.ogg", 48000, 1.0, 1),
        ("d.mp3", 22050, 1.5, 2),
        ("e.flac", 8000, 67.3, 1),
        ("deeper/f.wav", 16000, 3.0, 2),
    ):
        noise = random.uniform(-0.5, 0.5, (round(rate * seconds), channels))
        soundfile.write(root / name, noise, rate)
    (root / "notes.txt").write_text("no sound")
    return root


def run(*arguments: object) -> int:
    return embed.main([*map(str, arguments)])


def rows(file: Path) -> list[dict[str, object]]:
    return pyarrow.parquet.read_table(file).to_pylist()


def test_folder_of_mixed_files(folder: Path, sounds: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.parquet"
    assert run("--checkpoint", folder, sounds / "b.AIFF", sounds, "--out", out) == 0
    found = rows(out)
    names = [str(Path(str(row["path"])).relative_to(sounds)) for row in found]
    assert names == ["b.AIFF", "a.wav", "c.ogg", "d.mp3", "deeper/f.wav", "e.flac"], "each once"
    assert [round(float(str(row["seconds"])), 1) for row in found] == [2.7, 0.0, 1.0, 1.5, 3.0, 67.3]
    model = load_model(folder)
    for row in found:
        sound = audio_files.read(Path(str(row["path"])), 16000).unsqueeze(0)
        expected = get_scene_embeddings(sound, model)[0]
        np.testing.assert_allclose(row["embedding"], expected, rtol=1e-4, atol=1e-5)
    schema = pyarrow.parquet.read_schema(out)
    assert str(schema.field("embedding").type) == "fixed_size_list<element: float>[128]"
    about = json.loads(schema.metadata[b"doppel_ray"])
    assert about["checkpoint"] == str(folder)
    assert (about["sample_rate"], about["encoder"], about["size"]) == (16000, "cnn", 128)
    assert "torch" in about["origin"]["versions"]
    assert [path.name for path in out.parent.iterdir()] == ["out.parquet"]


@pytest.mark.slow
@pytest.mark.parametrize("reading", ["windows", "whole"])
def test_files_agree_with_probes(sounds: Path, tmp_path: Path, reading: str) -> None:
    """A file of 67 s, of which a minute is read at a time, among short ones."""
    settings = {"encoder": {"kind": "cnn", "width": 8, "reading": reading}}
    folder, out = write_checkpoint(tmp_path / "checkpoint", settings), tmp_path / "out.parquet"
    assert run("--checkpoint", folder, sounds, "--out", out) == 0
    found = rows(out)
    paths = [Path(str(row["path"])) for row in found]
    expected = embed_sounds(Recorded(paths, 16000), range(len(paths)), by_model(load_model(folder)))
    np.testing.assert_allclose([row["embedding"] for row in found], expected, rtol=1e-4, atol=1e-5)
    about = json.loads(pyarrow.parquet.read_schema(out).metadata[b"doppel_ray"])
    assert about["reading"] == reading


@pytest.mark.slow
def test_timestamps_agree_with_hear_api(folder: Path, sounds: Path, tmp_path: Path) -> None:
    """The long file takes many batches, each of which reads its own part of the file."""
    out = tmp_path / "out.parquet"
    assert run("--checkpoint", folder, sounds, "--timestamps", "--hop", 250, "--out", out) == 0
    found, model = rows(out), load_model(folder)
    for path in (sounds / "a.wav", sounds / "b.AIFF", sounds / "e.flac"):
        mine = [row for row in found if row["path"] == str(path)]
        sound = audio_files.read(path, 16000).unsqueeze(0)
        embeddings, timestamps = get_timestamp_embeddings(sound, model, hop=250.0)
        assert [row["milliseconds"] for row in mine] == timestamps[0].tolist()
        np.testing.assert_allclose([row["embedding"] for row in mine], embeddings[0], rtol=1e-3, atol=1e-4)


def test_csv_agrees_with_parquet(folder: Path, sounds: Path, tmp_path: Path) -> None:
    for out in (tmp_path / "out.csv", tmp_path / "out.parquet"):
        assert run("--checkpoint", folder, sounds / "deeper", "--out", out) == 0
    with (tmp_path / "out.csv").open() as file:
        (row,) = csv.DictReader(file)
    (expected,) = rows(tmp_path / "out.parquet")
    assert row["path"] == expected["path"]
    assert np.float32([row[f"embedding_{k}"] for k in range(128)]).tolist() == expected["embedding"]


def damage(sounds: Path) -> None:
    """One file that is no sound, and one that ends before its header says."""
    (sounds / "bad.wav").write_bytes(b"no sound")
    whole = (sounds / "e.flac").read_bytes()
    (sounds / "e.flac").write_bytes(whole[: len(whole) // 2])


def test_unreadable_files_are_named_and_skipped(
    folder: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(sounds)
    assert run("--checkpoint", folder, sounds, "--out", tmp_path / "out.parquet") == 1
    assert "2 of 7 files cannot be read:" in capsys.readouterr().err
    names = [Path(str(row["path"])).name for row in rows(tmp_path / "out.parquet")]
    assert names == ["a.wav", "b.AIFF", "c.ogg", "d.mp3", "f.wav"]


def refusal(*arguments: object) -> str:
    with pytest.raises(ConfigError) as refused:
        run(*arguments)
    return str(refused.value)


def test_unreadable_files_are_refused_on_request(folder: Path, sounds: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    damage(sounds)
    arguments = ("--checkpoint", folder, sounds, "--unreadable", "refuse", "--out", out)
    assert "bad.wav" in refusal(*arguments)
    (sounds / "bad.wav").unlink()
    assert "e.flac" in refusal(*arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["sounds"]


def test_name_that_is_not_utf8(folder: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Such a file is named as unreadable, the others are written."""
    name = os.fsdecode(b"caf\xe9.wav")
    (sounds / "a.wav").rename(sounds / name)
    for suffix in (".parquet", ".csv"):
        assert run("--checkpoint", folder, sounds, "--out", tmp_path / f"out{suffix}") == 1
        assert "1 of 6 files cannot be read:" in (errors := capsys.readouterr().err)
        assert "caf\\udce9.wav: its name is not UTF-8" in errors
    assert len(rows(tmp_path / "out.parquet")) == 5
    arguments = ("--checkpoint", folder, sounds, "--unreadable", "refuse", "--out", tmp_path / "new.parquet")
    assert "its name is not UTF-8" in refusal(*arguments)


def test_only_unreadable_files(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    message = refusal("--checkpoint", folder, tmp_path / "bad.wav", "--out", tmp_path / "out.parquet")
    assert message.startswith("1 of 1 files cannot be read:")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.wav"]


def test_bad_arguments_are_refused(folder: Path, sounds: Path, tmp_path: Path) -> None:
    given = ("--checkpoint", folder, "--out", tmp_path / "out.parquet", sounds / "a.wav")
    (tmp_path / "out.parquet").write_text("mine")
    (tmp_path / "empty").mkdir()
    assert "out.parquet exists; choose another name, or add --overwrite" in refusal(*given)
    assert (tmp_path / "out.parquet").read_text() == "mine"
    assert "expected .parquet or .csv" in refusal(*given, "--out", tmp_path / "out.npy")
    assert "nowhere.wav: no such file or folder" in refusal(*given, tmp_path / "nowhere.wav", "--overwrite")
    assert "holds no audio" in refusal(*given, tmp_path / "empty", "--overwrite")
    assert "--device tpu cannot be used" in refusal(*given, "--overwrite", "--device", "tpu")
    assert "both must be more than 0" in refusal(*given, "--overwrite", "--threads", 0)
    assert "holds no checkpoint" in refusal("--checkpoint", sounds, sounds, "--out", tmp_path / "new.parquet")
    assert run(*given, "--overwrite") == 0
    assert len(rows(tmp_path / "out.parquet")) == 1


def test_ahead_is_ordered_and_bounded() -> None:
    made, lock = [0], threading.Lock()

    def stream(name: int) -> Iterator[tuple[int, int]]:
        for item in range(3):
            with lock:
                made[0] += 1
            yield name, item

    for taken, item in enumerate(embed.ahead((stream(name) for name in range(50)), threads=3), start=1):
        assert item == divmod(taken - 1, 3)
        time.sleep(0.001)
        assert made[0] <= taken + 2 * 3 + 1


def test_ctrl_c_leaves_no_partial_file(folder: Path, tmp_path: Path) -> None:
    write_noise(tmp_path / "sounds" / "0.wav", seconds=30.0)
    for k in range(1, 500):
        (tmp_path / "sounds" / f"{k}.wav").hardlink_to(tmp_path / "sounds" / "0.wav")
    command = [sys.executable, "-m", "doppel_ray.embed", "--checkpoint", folder, "--timestamps", "--device", "cpu"]
    process = subprocess.Popen(
        [*command, tmp_path / "sounds", "--out", tmp_path / "out" / "embeddings.parquet"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(tmp_path.glob("out/.*.parquet")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    # Python itself ends by the signal, which shells show as 130 too, if ctrl-C came while it was importing a module.
    assert process.returncode in (130, -signal.SIGINT), errors
    assert "Traceback" not in errors
    assert list((tmp_path / "out").iterdir()) == []


def test_long_file_is_decoded_a_batch_at_a_time(folder: Path, sounds: Path) -> None:
    model = load_model(folder)
    found = list(embed.pieces(sounds / "e.flac", model, hop=None))
    assert [len(piece.windows) for piece in found] == [64, 4]
    assert all(piece.windows.dtype == torch.float32 for piece in found)


def test_long_file_read_whole_is_decoded_a_minute_at_a_time(sounds: Path, tmp_path: Path) -> None:
    settings = {"encoder": {"kind": "cnn", "width": 8, "reading": "whole"}}
    model = load_model(write_checkpoint(tmp_path / "checkpoint", settings))
    found = list(embed.pieces(sounds / "e.flac", model, hop=None))
    assert [piece.windows.shape for piece in found] == [(1, 60 * 16000)] * 2


def test_folder_from_a_real_disk(
    folder: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every good file has its row, every bad one its reason, and what is skipped is counted."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16000)
    soundfile.write(sounds / "phone.wav", noise, 8000, subtype="GSM610")
    soundfile.write(sounds / "opposite.wav", np.stack([noise, -noise], axis=1), 16000)
    soundfile.write(sounds / "rate.wav", noise, 16000)
    content = bytearray((sounds / "rate.wav").read_bytes())
    (sounds / "cut.wav").write_bytes(content[:9000])
    content[24:28] = (1_600_000_016).to_bytes(4, "little")
    (sounds / "rate.wav").write_bytes(content)
    (sounds / "._a.wav").write_bytes(b"\x00\x05\x16\x07")
    (sounds / "loop").symlink_to(sounds)
    assert run("--checkpoint", folder, sounds, "--out", tmp_path / "out.parquet") == 1
    errors = capsys.readouterr().err
    for part in (
        "3 of 10 files cannot be read:",
        "cut.wav: cut short",
        "opposite.wav: its channels cancel",
        "rate.wav: its sample rate is 1600000016 Hz",
        "1 files ending in .txt",
        "1 linked folders",
        "1 macOS metadata files",
    ):
        assert part in errors, errors
    assert len(rows(tmp_path / "out.parquet")) == 7
