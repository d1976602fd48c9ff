"""Catalogues: paths, labels and folds of recordings, read without opening audio.

Items are sorted by path, whatever the order of a file system or a table, so that item 17 is the same recording on every
machine with the same files.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from doppel_ray.core import rng
from doppel_ray.core.errors import ConfigError
from doppel_ray.data import audio_folders
from doppel_ray.data.recordings.tables import (
    count,
    first,
    in_order,
    is_number,
    need_columns,
    need_each_once,
    need_folder,
    need_known,
    read_cell,
    read_path,
    read_table,
    text,
)

UNLABELLED = -1
"""The label of an item that has none."""

LABELLED_STREAM = 2**20
"""Stream of the draws that choose the labels that are kept."""

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""Speech Commands' ten digits, "SC09"."""

EMOTIONS = ("achievement", "anger", "fear", "pain", "pleasure", "surprise")
"""VIVAE's emotions."""

FAMILIES = (
    "bass",
    "brass",
    "flute",
    "guitar",
    "keyboard",
    "mallet",
    "organ",
    "reed",
    "string",
    "synth_lead",
    "vocal",
)
"""NSynth's instrument families in the order of their numbers (Engel et al., ICML 2017)."""

PITCHES = tuple(str(note) for note in range(128))
"""NSynth's pitches: MIDI notes."""


Item = tuple[str, str | None, str]
"""Path, name of the class or None, and fold or ""."""


@dataclass(frozen=True)
class Catalogue:
    """The recordings of a source.

    Attributes:
        root: folder that the paths are relative to.
        paths: of each item, with forward slashes, in the order of their text.
        labels: class number of each item, or `UNLABELLED`.
        classes: the name of each class number; empty where nothing is labelled.
        folds: fold or split of each item, as its source names it ("1", "train"); "" where it has none.
        skipped: a line about what else is in the folders that were searched; "" if nothing was.
    """

    root: Path
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    folds: tuple[str, ...]
    skipped: str = ""

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, item: int) -> Path:
        return self.root / self.paths[item]

    def absent(self) -> list[str]:
        """Return the paths without a file; each folder is listed once, which is faster than a query for each file."""
        found: dict[Path, set[str]] = {}
        absent = []
        for path in self.paths:
            whole = self.root / path
            if whole.parent not in found:
                found[whole.parent] = set(os.listdir(whole.parent)) if whole.parent.is_dir() else set()
            if whole.name not in found[whole.parent]:
                absent.append(path)
        return absent

    def of_folds(self, folds: Iterable[str]) -> "Catalogue":
        """Return the items of these folds or splits.

        Raises:
            ConfigError: there is no such fold.
        """
        folds, known = list(folds), sorted(set(self.folds) - {""})
        for fold in folds:
            if fold not in known:
                has = f"there are {', '.join(known)}" if known else "the recordings are in no folds"
                raise ConfigError(f"{self.root}: no recording is in fold {fold!r}; {has}")
        return self._only([item for item, fold in enumerate(self.folds) if fold in folds])

    def partly_labelled(self, fraction: float, seed: int) -> "Catalogue":
        """Return a copy in which only a fraction of each class, at least one item, keeps its label.

        A larger fraction also keeps the labels that a smaller one keeps.
        """
        labels = np.array(self.labels, dtype=np.int64)
        draws = rng.uniform(seed, torch.arange(len(self)), LABELLED_STREAM, 1).squeeze(1).numpy()
        for label in range(len(self.classes)) if fraction < 1.0 else ():
            items = np.flatnonzero(labels == label)
            keep = max(1, round(fraction * len(items))) if fraction > 0.0 else 0
            labels[items[np.argsort(draws[items], kind="stable")[keep:]]] = UNLABELLED
        return replace(self, labels=tuple(labels.tolist()))

    def _only(self, items: Sequence[int]) -> "Catalogue":
        return replace(
            self,
            paths=tuple(self.paths[item] for item in items),
            labels=tuple(self.labels[item] for item in items),
            folds=tuple(self.folds[item] for item in items),
        )


def folder(root: Path) -> Catalogue:
    """List every audio file that `audio_folders.find` finds below a folder, unlabelled.

    Raises:
        ConfigError: there is no such folder, or no audio in it.
    """
    need_folder(root, "a folder of audio files")
    found = _found(root, f"no audio files in or below it; expected {', '.join(sorted(audio_folders.SUFFIXES))}")
    items: list[Item] = [(path.relative_to(root).as_posix(), None, "") for path in found.paths]
    return _catalogue(root, items, classes=(), skipped=found.note)


def manifest(
    file: Path,
    path_column: str = "path",
    label_column: str | None = None,
    fold_column: str | None = None,
    classes: Sequence[str] | None = None,
) -> Catalogue:
    """List the recordings of a CSV, TSV or Parquet file. An empty label is none.

    Args:
        file: the table; paths in it are absolute, or relative to its folder.
        path_column: column of the paths.
        label_column: column of the labels; None: `label`, if there is one.
        fold_column: column of the folds or splits; None: `fold` or `split`, if there is one.
        classes: the labels that may occur, in the order of their numbers; None: those that do, sorted.

    Raises:
        ConfigError: there is no such table, it cannot be read, lacks a column or rows, or names an unknown class.
    """
    columns, rows = read_table(file)
    label_column = label_column or ("label" if "label" in columns else None)
    fold_column = fold_column or next((name for name in ("fold", "split") if name in columns), None)
    need_columns(file, columns, [name for name in (path_column, label_column, fold_column) if name is not None])
    items: list[Item] = []
    for number, row in enumerate(rows, start=1):
        path = read_path(file, number, row, path_column)
        label, fold = (
            read_cell(file, number, row, name, required=False) if name else "" for name in (label_column, fold_column)
        )
        items.append((Path(path).as_posix(), label or None, fold))
    if not items:
        raise ConfigError(f"{file}: no rows")
    need_each_once(file, (path for path, _, _ in items))
    if classes is None:
        classes = in_order(label for _, label, _ in items if label)
    return _catalogue(file.parent, items, classes, table=file)


def esc50(root: Path, subset: Literal["esc10"] | None = None) -> Catalogue:
    """List ESC-50's layout: `meta/esc50.csv` and `audio/`, five folds (Piczak, ACM Multimedia 2015).

    Classes are in the order of the `target` column and are numbered from 0, also those of ESC-10 (Piczak's numbers
    have gaps there).

    Raises:
        ConfigError: a part of the layout is missing, or a row does not fit it.
    """
    need_folder(root, "ESC-50's layout, meta/esc50.csv and audio/")
    return _listed_by_target(
        root,
        root / "meta" / "esc50.csv",
        ("filename", "target", "category"),
        lambda row: f"audio/{row['filename']}",
        flag=subset,
    )


def urbansound8k(root: Path) -> Catalogue:
    """List UrbanSound8K's layout: `metadata/UrbanSound8K.csv` and `audio/fold1` to `fold10`.

    Salamon et al., ACM Multimedia 2014. Its ten folds are official: slices of one recording are in one fold. Classes
    are in the order of `classID`.

    Raises:
        ConfigError: a part of the layout is missing, or a row does not fit it.
    """
    need_folder(root, "UrbanSound8K's layout, metadata/UrbanSound8K.csv and audio/fold1 to fold10")
    return _listed_by_target(
        root,
        root / "metadata" / "UrbanSound8K.csv",
        ("slice_file_name", "classID", "class"),
        lambda row: f"audio/fold{row['fold']}/{row['slice_file_name']}",
    )


def vivae(root: Path) -> Catalogue:
    """List VIVAE's layout: WAV files in the folder itself or in its `full_set` (Holz et al., PLOS ONE 2022).

    They are named `<speaker>_<emotion>_<intensity>_<number>`, such as `S01_anger_low_01.wav`.
    Classes are the six emotions. Folds are the speakers, so that no voice is in both training and test.

    Raises:
        ConfigError: there is no such folder, or no WAV in it, or a name is not of that form.
    """
    expected = "VIVAE's layout: full_set/ with files such as S01_anger_low_01.wav"
    need_folder(root, expected)
    below = "full_set/" if (root / "full_set").is_dir() else ""
    found = _found(root / below, f"no WAV files in it; expected {expected}")
    names = sorted(path.name for path in found.paths if path.parent == root / below and path.suffix.lower() == ".wav")
    if not names:
        raise ConfigError(f"{root / below}: no WAV files in it; expected {expected}")
    parts = {name: name[:-4].split("_") for name in names}
    if strange := [name for name in names if len(parts[name]) != 4]:
        raise ConfigError(
            f"{root / below}: {count(strange, 'file')} not named <speaker>_<emotion>_<intensity>_<number>.wav: "
            f"{first(strange)}"
        )
    items: list[Item] = [(f"{below}{name}", emotion, speaker) for name, (speaker, emotion, _, _) in parts.items()]
    return _catalogue(root, items, EMOTIONS, skipped=found.note)


def speech_commands(root: Path, subset: Literal["sc09"] | None = None) -> Catalogue:
    """List Speech Commands v2: a folder for each word, and the official lists (Warden, arXiv 1804.03209).

    Splits are "train", "valid" (in validation_list.txt) and "test" (in testing_list.txt). Classes are the words,
    sorted; of "sc09" the digits, in the order of their value.

    Raises:
        ConfigError: a list or the folder of a digit is missing, a list names a file that is not there, or there is no
            audio.
    """
    expected = "Speech Commands' layout: a folder for each word, validation_list.txt and testing_list.txt"
    need_folder(root, expected)
    there = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(("_", ".")))
    words: Sequence[str] = DIGITS if subset == "sc09" else there
    missing = sorted(set(words) - set(there))
    if missing or not words:
        raise ConfigError(f"{root}: no folder for {', '.join(missing) or 'any word'}; expected {expected}")
    split: dict[str, str] = {}
    for name, file in (("valid", root / "validation_list.txt"), ("test", root / "testing_list.txt")):
        if not file.is_file():
            raise ConfigError(f"{file} is missing; expected {expected}")
        lines = file.read_text(encoding="utf-8").split()
        split |= dict.fromkeys((line for line in lines if subset is None or line.partition("/")[0] in words), name)
    items: list[Item] = []
    skipped: Counter[str] = Counter()
    for word in words:
        found = audio_folders.find(root / word)
        skipped += found.skipped
        for path in found.paths:
            relative = path.relative_to(root).as_posix()
            items.append((relative, word, split.pop(relative, "train")))
    if split:
        file = root / ("validation_list.txt" if "valid" in split.values() else "testing_list.txt")
        raise ConfigError(f"{file}: {count(list(split), 'file')} listed, but not there: {first(list(split))}")
    if not items:
        raise ConfigError(f"{root}: no audio in the folders of the words {', '.join(words)}")
    return _catalogue(root, items, words, skipped=audio_folders.skipped_note(skipped))


def nsynth(root: Path, label: Literal["family", "pitch"] = "family", splits: Iterable[str] | None = None) -> Catalogue:
    """List NSynth: `nsynth-{train,valid,test}`, each with `examples.json` and `audio/` (Engel et al., ICML 2017).

    Args:
        root: folder that holds the three, or some of them.
        label: the instrument family (11 classes), or the pitch (128 MIDI notes).
        splits: those to read, as the largest index is slow to parse; None: all in the folder.

    Raises:
        ConfigError: a split is missing, its index cannot be read, or it names an unknown family or pitch.
    """
    expected = "NSynth's layout: nsynth-train, nsynth-valid, nsynth-test, each with examples.json and audio/"
    need_folder(root, expected)
    there = [split for split in ("train", "valid", "test") if (root / f"nsynth-{split}").is_dir()]
    wanted = there if splits is None else list(splits)
    missing = [split for split in wanted if split not in there]
    if missing or not wanted:
        folders = ", ".join(f"nsynth-{split}" for split in missing) or "nsynth-train"
        raise ConfigError(f"{root}: no folder {folders}; expected {expected}")
    key, classes = ("instrument_family_str", FAMILIES) if label == "family" else ("pitch", PITCHES)
    items: list[Item] = []
    for split in wanted:
        index = root / f"nsynth-{split}" / "examples.json"
        try:
            notes = json.loads(index.read_text(encoding="utf-8"))
            items += [(f"nsynth-{split}/audio/{name}.wav", str(note[key]), split) for name, note in notes.items()]
        except OSError as error:
            raise ConfigError(f"{index}: {error.strerror or error}; expected {expected}") from None
        except (ValueError, AttributeError, TypeError) as error:
            raise ConfigError(f"{index} is not NSynth's index of notes: {error}") from None
        except KeyError:
            raise ConfigError(f"{index}: a note without {key}") from None
    if not items:
        raise ConfigError(f"{root}: no notes in {', '.join(f'nsynth-{split}/examples.json' for split in wanted)}")
    return _catalogue(root, items, classes, table=root)


def _listed_by_target(
    root: Path,
    table: Path,
    columns: tuple[str, str, str],
    path: Callable[[dict[str, str]], str],
    flag: str | None = None,
) -> Catalogue:
    """List a table of files in numbered folds, whose classes have a number and a name.

    Args:
        root: folder that the paths are relative to.
        table: CSV with a column `fold`.
        columns: those of the file's name, of the class's number and of the class's name.
        path: of a row's file, from the row's cells as text.
        flag: column that is true for the rows to take; None: all.
    """
    file_column, number_column, class_column = columns
    found, rows = read_table(table)
    need_columns(table, found, [*columns, "fold", *([flag] if flag else [])])
    items: list[Item] = []
    targets: dict[str, int] = {}
    for position, row in enumerate(rows, start=1):
        if flag and text(row[flag]).lower() != "true":
            continue
        cells = {column: read_cell(table, position, row, column) for column in (*columns, "fold")}
        for column in ("fold", number_column):
            if not is_number(cells[column]):
                raise ConfigError(
                    f"{table}: row {position}: {column} of {cells[file_column]} is {cells[column]!r}; "
                    "expected a whole number"
                )
        name, number = cells[class_column], int(cells[number_column])
        if targets.setdefault(name, number) != number:
            raise ConfigError(
                f"{table}: row {position}: {name!r} is {number_column} {number}, and {targets[name]} in another row"
            )
        items.append((path(cells), name, cells["fold"]))
    if not items:
        raise ConfigError(f"{table}: no row" + (f" for {flag}" if flag else "s"))
    need_each_once(table, (path for path, _, _ in items))
    return _catalogue(root, items, sorted(targets, key=lambda name: (targets[name], name)))


def _found(folder: Path, none: str) -> audio_folders.Found:
    """Search a folder for audio; refuse one that has none, with what is there instead."""
    found = audio_folders.find(folder)
    if not found.paths:
        raise ConfigError("; ".join(filter(None, [f"{folder}: {none}", found.note])))
    return found


def _catalogue(
    root: Path, items: list[Item], classes: Sequence[str], table: Path | None = None, skipped: str = ""
) -> Catalogue:
    """Sort items into a catalogue; refuse labels that are not among the classes."""
    need_known((label for _, label, _ in items if label is not None), classes, table or root)
    number: dict[str | None, int] = {name: k for k, name in enumerate(classes)} | {None: UNLABELLED}
    items = sorted(items, key=lambda item: (item[0], item[1] or "", item[2]))
    paths, labels, folds = zip(*items, strict=True)
    return Catalogue(root, paths, tuple(number[label] for label in labels), tuple(classes), folds, skipped)
