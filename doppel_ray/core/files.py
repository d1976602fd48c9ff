"""Atomic writes, and the cache folder."""

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from doppel_ray.core import process
from doppel_ray.core.errors import ConfigError


@contextmanager
def new_output(out: Path, overwrite: bool, folder_of: Collection[str] = ()) -> Iterator[Path]:
    """Yield a temporary path beside `out`, and move what was written there to `out` at the end.

    Removes the temporary path after an error or ctrl-C.

    Args:
        out: path of the resulting file or folder; its parent is created.
        overwrite: replace what is at `out`.
        folder_of: for a folder, the names it may hold; a folder with any other file is never replaced.

    Raises:
        ConfigError: `out` may not be replaced, or cannot be written.
    """
    if out.exists() and not overwrite:
        raise ConfigError(f"--out {out} exists; choose another name, or add --overwrite")
    if out.is_dir() and (not folder_of or {path.name for path in out.iterdir()} - set(folder_of)):
        raise ConfigError(f"--out {out} is a folder with other files, which are never overwritten; choose another name")
    partial = out.with_name(f".{os.getpid()}.{out.name}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written: {error.strerror or error}") from None
    try:
        yield partial
        if out.is_dir():
            _remove(out)
        partial.replace(out)
    finally:
        _remove(partial)


def replace(file: Path, text: str) -> None:
    """Write a text file atomically: readers see the old text or the new one."""
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Return the folder for compiled programs and decoded sounds; it may not exist yet.

    `$DOPPEL_RAY_CACHE`, or `doppel_ray` in the user's cache folder.
    """
    if given := os.environ.get("DOPPEL_RAY_CACHE"):
        return Path(os.path.expanduser(given))
    return Path(os.environ.get("XDG_CACHE_HOME") or process.home() / ".cache", "doppel_ray")
