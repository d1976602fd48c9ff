"""Recordings made up on the spot, in the layouts of public data sets."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import soundfile

COLUMNS = ("filename", "fold", "target", "category", "esc10", "src_file", "take")


def write_esc50(
    root: Path, folds: int = 2, classes: int = 3, takes: int = 4, columns: tuple[str, ...] = COLUMNS
) -> Path:
    """Tones of half a second at 22,050 Hz, a pitch for each class; only the first two classes are of ESC-10."""
    (root / "meta").mkdir(parents=True)
    (root / "audio").mkdir()
    random = np.random.default_rng(0)
    rows = []
    for fold in range(1, folds + 1):
        for target in range(classes):
            for take in range(takes):
                name = f"{fold}-{take}-A-{target}.wav"
                time = np.arange(11025) / 22050
                tone = 0.3 * np.sin(2 * np.pi * 300 * (target + 1) * (1 + 0.1 * random.random()) * time)
                soundfile.write(root / "audio" / name, tone + 0.01 * random.standard_normal(11025), 22050)
                values = (name, fold, target, f"tone_{target}", target < 2, take, "A")
                rows.append(dict(zip(COLUMNS, values, strict=True)))
    with (root / "meta" / "esc50.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return root


def write_noise(path: Path, seconds: float = 0.5, seed: int = 0, sample_rate: int = 16000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).standard_normal(round(seconds * sample_rate))
    soundfile.write(path, 0.1 * noise, sample_rate)


def write_speech_commands(root: Path, words: tuple[str, ...]) -> Path:
    """Three takes of each word: the first is for training, the others are in the official lists."""
    for number, word in enumerate(words):
        for take in "abc":
            write_noise(root / word / f"{take}_nohash_0.wav", seed=number)
    write_noise(root / "_background_noise_" / "pink_noise.wav")
    (root / "validation_list.txt").write_text("".join(f"{word}/b_nohash_0.wav\n" for word in words))
    (root / "testing_list.txt").write_text("".join(f"{word}/c_nohash_0.wav\n" for word in words))
    return root


def write_nsynth(root: Path) -> Path:
    """A note of each of two instruments in each split."""
    for split in ("train", "valid", "test"):
        folder = root / f"nsynth-{split}"
        notes = {
            f"{family}_synthetic_000-{pitch:03}-100": {"instrument_family_str": family, "pitch": pitch, "velocity": 100}
            for family, pitch in (("organ", 60), ("bass", 36))
        }
        for name in notes:
            write_noise(folder / "audio" / f"{name}.wav")
        (folder / "examples.json").write_text(json.dumps(notes))
    return root


def write_urbansound8k(root: Path, folds: int = 10, classes: tuple[str, ...] = ("air_conditioner", "siren")) -> Path:
    """A slice of each class in each fold."""
    rows = [
        {
            "slice_file_name": f"{100 * fold + number}-{number}-0-0.wav",
            "fsID": 100 * fold + number,
            "start": 0.0,
            "end": 0.5,
            "salience": 1,
            "fold": fold,
            "classID": number,
            "class": name,
        }
        for fold in range(1, folds + 1)
        for number, name in enumerate(classes)
    ]
    for row in rows:
        write_noise(root / "audio" / f"fold{row['fold']}" / str(row["slice_file_name"]), seed=int(str(row["classID"])))
    write_table(root / "metadata" / "UrbanSound8K.csv", rows)
    return root


def write_vivae(root: Path, speakers: tuple[str, ...] = ("S01", "S02", "S11")) -> Path:
    """A strong and a low vocalisation of each emotion by each speaker, in the full set."""
    for speaker in speakers:
        for number, emotion in enumerate(("achievement", "anger", "fear", "pain", "pleasure", "surprise")):
            for intensity in ("low", "strong"):
                write_noise(root / "full_set" / f"{speaker}_{emotion}_{intensity}_01.wav", seed=number)
    return root


def write_table(file: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """Rows as CSV or Parquet, by the file's name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), file)
    else:
        with file.open("w", newline="") as lines:
            writer = csv.DictWriter(lines, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return file
