"""Recordings made up on the spot, in ESC-50's layout."""

import csv
from pathlib import Path

import numpy as np
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
