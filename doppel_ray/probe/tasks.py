"""Probe tasks: sounds with targets and folds, from what the user has or from the synthesizer itself."""

import csv
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from doppel_ray.audio import files
from doppel_ray.section import ConfigError
from doppel_ray.synth import Synth, SynthConfig, counter

FACTOR_SEED = 0x5EED_FAC7
"""Seed of the sounds of the factors task: another stream than any run's, so that none of them was trained on."""


@dataclass(frozen=True)
class Examples:
    """What a task asks about.

    Attributes:
        sounds: (n, samples) float32, padded with zeros to the longest.
        lengths: (n,) samples of each sound before the padding.
        targets: target name -> (n,) class numbers (int64) or values (float64).
        folds: (n,) fold of each sound; each fold is the test set once.
        skipped: files that could not be read.
    """

    sounds: Tensor
    lengths: np.ndarray
    targets: dict[str, np.ndarray]
    folds: np.ndarray
    skipped: tuple[str, ...] = ()


class Task(ABC):
    """A probe task.

    Attributes:
        name: as `probes.tasks` names it.
        kind: what is fitted on the embeddings: a class for each sound, or values.
        metric: name of its first metric.
    """

    name: str
    kind: Literal["classification", "regression"]
    metric: str
    test_folds: tuple[int, ...] | None = None

    @abstractmethod
    def check(self) -> None:
        """Refuse now what would fail later.

        Raises:
            ConfigError: the data is missing, empty or unreadable.
        """

    @abstractmethod
    def load(self, sample_rate: int) -> Examples:
        """The examples, at `sample_rate` Hz."""


# What a listener hears in the sounds of the factors task -> the parameter of Voice that makes it, and its range in the
# parameter's own unit (MIDI note, seconds, Hz, level).
FACTORS = {
    "pitch": ("keyboard.midi_f0", 36.0, 96.0),
    "note_duration": ("keyboard.duration", 0.3, 0.9),
    "attack": ("adsr_1.attack", 0.0, 0.3),
    "sustain": ("adsr_1.sustain", 0.0, 1.0),
    "tremolo_rate": ("lfo_1.frequency", 1.0, 12.0),
    "oscillator_shape": ("vco_2.shape", 0.0, 1.0),
    "sine_level": ("mixer.level.0", 0.0, 1.0),
    "square_saw_level": ("mixer.level.1", 0.0, 1.0),
    "noise_level": ("mixer.level.2", 0.0, 1.0),
}

# Everything else is held still, so that each factor can be heard: no pitch modulation, one envelope and one tremolo on
# all three sources. `mod_matrix.mod` has a row for each of vco_1 pitch and level, vco_2 pitch and level, noise level,
# and in it adsr_1, adsr_2, lfo_1, lfo_2.
HELD = {
    **{f"mod_matrix.mod.{k}": 0.0 for k in range(20)},
    **{f"mod_matrix.mod.{4 * row}": 1.0 for row in (1, 3, 4)},
    **{f"mod_matrix.mod.{4 * row + 2}": 0.4 for row in (1, 3, 4)},
    "adsr_1.decay": 0.15,
    "adsr_1.release": 0.1,
    "adsr_1.alpha": 1.5,
    "lfo_1.mod_depth": 0.0,
    "lfo_1.sin": 1.0,
    **{f"lfo_1.{shape}": 0.0 for shape in ("tri", "saw", "rsaw", "sqr")},
    "lfo_1_amp_adsr.attack": 0.0,
    "lfo_1_amp_adsr.sustain": 1.0,
    "lfo_1_amp_adsr.release": 0.1,
    **{f"vco_{k}.{name}": 0.0 for k in (1, 2) for name in ("tuning", "mod_depth", "initial_phase")},
}


@dataclass(frozen=True)
class Factors(Task):
    """What can be heard in unseen synthetic sounds, predicted from their embeddings; needs no download.

    The sounds are always Voice's, whatever the experiment trains on, so that scores compare across architectures.
    Targets are in the parameters' own units. A factor's metric is R² on the test folds; `score` is the mean over the
    factors.
    """

    count: int = 1024
    duration: float = 1.0
    name = "factors"
    kind = "regression"
    metric = "score"
    FOLDS = 4

    def check(self) -> None:
        return None

    def load(self, sample_rate: int) -> Examples:
        return _render_factors(self.count, self.duration, sample_rate)


@functools.lru_cache(maxsize=1)
def _render_factors(count: int, duration: float, sample_rate: int) -> Examples:
    synth: Synth = SynthConfig(architecture="voice", sample_rate=sample_rate, duration=duration).build()
    indices = torch.arange(count)
    draws = counter.uniform(FACTOR_SEED, indices, counter.Stream.PARAMETERS, len(FACTORS)).double().unbind(1)
    targets = {
        name: low + (high - low) * draw for (name, (_, low, high)), draw in zip(FACTORS.items(), draws, strict=True)
    }
    theta = synth.from_human(HELD | {FACTORS[name][0]: value for name, value in targets.items()})
    sounds = synth.render(theta, seed=FACTOR_SEED, indices=indices)
    return Examples(
        sounds=sounds,
        lengths=np.full(count, sounds.shape[1]),
        targets={name: value.numpy() for name, value in targets.items()},
        folds=np.arange(count) % Factors.FOLDS,
    )


@dataclass(frozen=True)
class Esc50(Task):
    """Environmental sounds in ESC-50's layout: `meta/esc50.csv` and `audio/`, five folds (Piczak, 2015).

    Attributes:
        root: folder that holds `meta` and `audio`.
        subset: "esc50", or "esc10" for the rows whose `esc10` flag is set.
        unreadable: "refuse" files that cannot be read, or "skip" them.
        test_folds: folds that are each the test set once; None: all.
    """

    root: Path
    subset: Literal["esc10", "esc50"] = "esc50"
    unreadable: Literal["refuse", "skip"] = "refuse"
    test_folds: tuple[int, ...] | None = None
    kind = "classification"
    metric = "accuracy"

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.subset

    def rows(self) -> list[dict[str, str]]:
        """The rows of the task in `meta/esc50.csv`.

        Raises:
            ConfigError: the file is missing, lacks a column, has no row for this task, or names a fold or class that
                is no number.
        """
        table = self.root / "meta" / "esc50.csv"
        if not self.root.is_dir():
            raise ConfigError(
                f"probes.root is {str(self.root)!r}: there is no such folder; "
                f"{self.name} needs ESC-50's layout, meta/esc50.csv and audio/"
            )
        if not table.is_file():
            raise ConfigError(
                f"probes.root is {str(self.root)!r}: {self.name} needs ESC-50's layout, but meta/esc50.csv is missing"
            )
        with table.open(newline="") as file:
            reader = csv.DictReader(file)
            missing = {"filename", "fold", "target", "esc10"} - set(reader.fieldnames or ())
            if missing:
                raise ConfigError(f"{table}: column {', '.join(sorted(missing))} is missing")
            rows = [row for row in reader if self.subset == "esc50" or row["esc10"].strip().lower() == "true"]
        if not rows:
            raise ConfigError(f"{table}: no row for {self.name}")
        for row in rows:
            for column in ("fold", "target"):
                if not (row[column] or "").strip().isdecimal():
                    raise ConfigError(
                        f"{table}: {column} of {row['filename']} is {row[column]!r}; expected a whole number"
                    )
        return rows

    def check(self) -> None:
        rows = self.rows()
        broken, folds = [], set()
        for row in rows:
            try:
                files.length(self.root / "audio" / row["filename"])
                folds.add(int(row["fold"]))
            except files.UnreadableAudioError as error:
                broken.append(str(error))
        if len(broken) == len(rows):
            raise ConfigError(f"{self.name}: none of the {len(rows)} files can be read, first {broken[0]}")
        if broken and self.unreadable == "refuse":
            shown = "\n  ".join(broken[:10]) + (f"\n  and {len(broken) - 10} more" if len(broken) > 10 else "")
            raise ConfigError(
                f"{self.name}: {len(broken)} of {len(rows)} files cannot be read:\n  {shown}\n"
                "mend them, or leave them out with --probes.unreadable skip"
            )
        if len(folds) < 2:
            which = "readable files" if broken else "rows"
            raise ConfigError(
                f"{self.name}: all {which} are in fold {min(folds)}; cross-validation needs at least 2 folds"
            )
        if strange := set(self.test_folds or ()) - folds:
            raise ConfigError(
                f"probes.test_folds has {min(strange)}, and {self.name} has folds {', '.join(map(str, sorted(folds)))}"
            )

    def load(self, sample_rate: int) -> Examples:
        return _read_esc50(self, sample_rate)


@functools.lru_cache(maxsize=2)
def _read_esc50(task: Esc50, sample_rate: int) -> Examples:
    sounds, targets, folds, skipped = [], [], [], []
    for row in task.rows():
        try:
            sounds.append(files.read(task.root / "audio" / row["filename"], sample_rate))
        except files.UnreadableAudioError as error:
            if task.unreadable == "refuse":
                raise ConfigError(f"{task.name}: {error}") from None
            skipped.append(str(error))
            continue
        targets.append(int(row["target"]))
        folds.append(int(row["fold"]))
    return Examples(
        sounds=torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True),
        lengths=np.array([len(sound) for sound in sounds]),
        targets={"class": np.array(targets)},
        folds=np.array(folds),
        skipped=tuple(skipped),
    )


TASKS: dict[str, str] = {
    "factors": "parameters of unseen synthetic sounds; built in",
    "esc10": "ESC-10, from --probes.root in ESC-50's layout",
    "esc50": "ESC-50, from --probes.root in ESC-50's layout",
}


def make(
    name: str,
    root: Path | None,
    unreadable: Literal["refuse", "skip"],
    factor_sounds: int,
    test_folds: tuple[int, ...] | None = None,
) -> Task:
    """The task of that name.

    Raises:
        ConfigError: it needs a folder, and none is given.
    """
    makers: dict[str, Callable[[Path], Task]] = {
        "esc10": lambda folder: Esc50(folder, "esc10", unreadable, test_folds),
        "esc50": lambda folder: Esc50(folder, "esc50", unreadable, test_folds),
    }
    if name == "factors":
        return Factors(count=factor_sounds)
    if root is None:
        raise ConfigError(
            f"probes.tasks has {name}, which needs its recordings: give their folder with --probes.root DIR"
        )
    return makers[name](root)
