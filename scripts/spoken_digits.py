"""Speech that nobody here tunes to: `python scripts/spoken_digits.py --out DIR` makes two probe tasks with espeak-ng.

Ten digits are spoken by 40 voices (accents, voice variants, pitches and speeds of espeak-ng), three times each at other
pitches and speeds: 1,200 clips of about half a second. `digits.csv` asks for the digit and has a fold of eight voices
for each of five folds, so that every test voice is unheard; `voices.csv` asks which of 40 voices it is, and its folds
share the digits out, so that every test digit is unheard of that voice. Probe them with

    --probes.tasks '[{kind: manifest, root: DIR/digits.csv}, {kind: manifest, root: DIR/voices.csv}]'

espeak-ng is a formant synthesizer: its speech stands in for recordings, and says less than they would.
"""

import argparse
import csv
import random
import subprocess
from pathlib import Path

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029")
VARIANTS = ("m1", "m2", "m3", "m5", "m7", "f1", "f2", "f4")
TAKES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    (options.out / "audio").mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    rows = []
    voices = [(accent, variant) for variant in VARIANTS for accent in ACCENTS]
    for number, (accent, variant) in enumerate(voices):
        pitch, speed = draw.randint(20, 80), draw.randint(130, 210)  # of the voice
        for digit, word in enumerate(DIGITS):
            for take in range(TAKES):
                path = f"audio/{word}_{accent}+{variant}_{take}.wav"
                spoken = ["-v", f"{accent}+{variant}", "-p", str(pitch + draw.randint(-8, 8))]
                spoken += ["-s", str(speed + draw.randint(-15, 15)), "-w", str(options.out / path), word]
                subprocess.run(["espeak-ng", *spoken], check=True)
                rows.append((path, word, f"{accent}+{variant}", number % 5 + 1, digit % 5 + 1))
    for name, label, fold in (("digits", 1, 3), ("voices", 2, 4)):
        with (options.out / f"{name}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(("path", "label", "fold"))
            table.writerows((row[0], row[label], row[fold]) for row in rows)
        print(options.out / f"{name}.csv")


if __name__ == "__main__":
    main()
