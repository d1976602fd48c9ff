"""Copy a run from object storage back into a folder."""

import os
import shutil
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from doppel_ray.core import cli
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.object_storage import S3Path
from doppel_ray.runs.lease import check_free, claim, reaching
from doppel_ray.runs.mirror import PARALLEL, is_copied
from doppel_ray.runs.reader import RUN


def fetch(place: S3Path, runs: Path, log: Callable[[str], None]) -> Path:
    """Download a run into a new folder and claim it, to resume it there.

    Args:
        place: of the run's copy.
        runs: folder to put the run's folder in.
        log: receives lines for the user.

    Returns:
        The run's folder.

    Raises:
        ConfigError: there is no such run, another process runs it, or it cannot be copied here.
    """
    folder = runs / place.name
    if folder.exists():
        raise ConfigError(
            f"{folder} exists: resume it with --resume {cli.quoted(folder)}, or copy {place} elsewhere with "
            "--run.dir DIR"
        )
    place.parent.check()
    check_free(place, folder, fetched=True)
    partial = runs / f".{os.getpid()}.{place.name}"
    try:
        download(place, partial, log)
        claim(place, folder, fetched=True)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def download(place: S3Path, folder: Path, log: Callable[[str], None], without: Collection[str] = ()) -> None:
    """Download a run's files into a new folder.

    Args:
        place: of the run's copy.
        folder: to make.
        log: receives lines for the user.
        without: names of files to leave out.

    Raises:
        ConfigError: there is no such run, or it cannot be copied here.
    """
    with reaching(place):
        entries = {
            path: entry
            for path, entry in place.entries().items()
            if is_copied(Path(path).name) and Path(path).name not in without
        }
        if RUN not in entries:
            raise ConfigError(f"{place} holds no run: {RUN} is missing")
    size = sum(entry.size for entry in entries.values())

    def get(path: str) -> None:
        with reaching(place):
            content = place.read(path)
        if content is None:
            return  # deleted since it was listed
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        os.utime(file, (entries[path].written, entries[path].written))

    try:
        folder.mkdir(parents=True)
        if size > (free := shutil.disk_usage(folder).free):
            raise ConfigError(f"{place} takes {size / 1e9:.1f} GB, and {folder.parent} has {free / 1e9:.1f} GB free")
        log(f"copying {place} to {folder.parent}: {len(entries)} files, {size / 1e6:.0f} MB")
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(get, entries))
    except OSError as error:
        raise ConfigError(f"{place} cannot be copied to {folder}: {error.strerror or error}") from None
