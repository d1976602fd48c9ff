"""Find the audio files in a folder: the one walk of embedding, recordings, augmentations and probe tasks."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

SUFFIXES = frozenset(
    [
        ".wav",
        ".wave",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".mp3",
        ".aif",
        ".aiff",
        ".aifc",
        ".au",
        ".snd",
        ".caf",
        ".w64",
        ".rf64",
        ".sph",
        ".nist",
        ".voc",
    ]
)
"""Suffixes of audio files in a folder; libsndfile reads all of these."""

_MACOS = "__MACOSX"
"""Folder with macOS metadata, which its archives hold beside the files."""


@dataclass(frozen=True)
class Found:
    """The content of one or more folders.

    Attributes:
        paths: of the audio files, sorted.
        skipped: what else is there -> how many.
    """

    paths: list[Path] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def note(self) -> str:
        """A line about what was skipped; "" if nothing was."""
        return skipped_note(self.skipped)


def skipped_note(skipped: Counter[str]) -> str:
    """Return a line about what was skipped; "" if nothing was."""
    return "skipped: " + ", ".join(f"{n} {what}" for what, n in sorted(skipped.items())) if skipped else ""


def find(folder: Path) -> Found:
    """Find the audio files in and below a folder.

    Skips and counts files with other endings, hidden files and folders (`._*` among them), `__MACOSX`, linked folders,
    folders that cannot be opened, and what is no file.
    """
    found, folders = Found(), [folder]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if (reason := _skip_reason(entry)) is not None:
                        found.skipped[reason] += 1
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    else:
                        found.paths.append(Path(entry.path))
        except OSError as error:
            found.skipped[f"unreadable folders ({error.strerror})"] += 1
    found.paths.sort()
    return found


def _skip_reason(entry: "os.DirEntry[str]") -> str | None:
    if entry.name == _MACOS:
        return f"{_MACOS} folders"
    if entry.name.startswith("._"):
        return "macOS metadata files (._*)"
    if entry.name.startswith("."):
        return "hidden files or folders"
    if entry.is_dir():
        return "linked folders" if entry.is_symlink() else None
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix not in SUFFIXES:
        return f"files ending in {suffix}" if suffix.isascii() and 1 < len(suffix) <= 8 else "files with other endings"
    if not entry.is_file() and not entry.is_symlink():  # a dangling link is named when it is read
        return "pipes or devices"
    return None


def printable(path: Path | str) -> str:
    """Return a path as text that every stream and file accepts: bytes that are not UTF-8 are escaped."""
    return str(path).encode("utf-8", errors="backslashreplace").decode("utf-8")
