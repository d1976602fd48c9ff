"""Results that are written whole or not at all."""

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from doppel_ray.core.errors import ConfigError


@contextmanager
def written(out: Path, overwrite: bool, folder_of: Collection[str] = ()) -> Iterator[Path]:
    """A path beside `out` to write a file or a folder to, which takes its place at the end.

    What was written before an error, or ctrl-C, is removed.

    Args:
        out: where the result shall be; its folder is made.
        overwrite: replace what is there.
        folder_of: the files of a result that is a folder. A folder that holds anything else is never replaced.

    Raises:
        ConfigError: there is something at `out` that may not be replaced, or it cannot be written to.
    """
    if out.exists() and not overwrite:
        raise ConfigError(f"--out {out} exists; choose another name, or --overwrite it")
    if out.is_dir() and (not folder_of or {path.name for path in out.iterdir()} - set(folder_of)):
        raise ConfigError(f"--out {out} is a folder of other things, which is not overwritten; choose another name")
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
    """Write a text file in place of one that may be there: whoever reads it meets the old text or the new one."""
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(text)
    partial.replace(file)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def cache_folder() -> Path:
    """`$DOPPEL_RAY_CACHE`, or `doppel_ray` in the user's cache folder. It may not exist yet."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("DOPPEL_RAY_CACHE") or Path(home) / "doppel_ray")
