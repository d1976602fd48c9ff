"""Unpack a downloaded archive, safely."""

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from rich.console import Console

from doppel_ray.probe.datasets.download import FetchError, meter

Member = tuple[str, IO[bytes] | None]
"""Path of a file in an archive and its bytes; None for a folder."""


def unpack(file: Path, into: Path, console: Console) -> None:
    """Unpack a .zip or .tar.gz into a folder, which appears when all of it is unpacked.

    Raises:
        FetchError: a member is a link, a device or outside the folder, or the archive is damaged.
    """
    unfinished = into.with_name(f"{into.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    members = _zip_members if file.suffix == ".zip" else _tar_members
    try:
        with file.open("rb") as data, meter(console, f"{file.name}: unpacking", file.stat().st_size) as report:
            for name, content in members(data):
                path = unfinished / _inside(name, file)
                (path if content is None else path.parent).mkdir(parents=True, exist_ok=True)
                if content is not None:
                    with content, path.open("wb") as out:
                        shutil.copyfileobj(content, out, 2**20)
                report(data.tell())
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise FetchError(f"{file.name} is damaged: {error}") from None
    else:
        unfinished.replace(into)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _tar_members(data: IO[bytes]) -> Iterator[Member]:
    # As a stream: seeking back in a compressed file would read it again from the start.
    with tarfile.open(fileobj=data, mode="r|*") as archive:
        for member in archive:
            if not member.isfile() and not member.isdir():
                raise FetchError(f"it is not safe to unpack: {member.name!r} is a link or a device")
            yield member.name, archive.extractfile(member)


def _zip_members(data: IO[bytes]) -> Iterator[Member]:
    with zipfile.ZipFile(data) as archive:
        for member in archive.infolist():
            if stat.S_ISLNK(member.external_attr >> 16):
                raise FetchError(f"it is not safe to unpack: {member.filename!r} is a link")
            yield member.filename, None if member.is_dir() else archive.open(member)


def _inside(name: str, file: Path) -> PurePosixPath:
    """Return a member's path, which must be below the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise FetchError(f"{file.name} is not safe to unpack: {name!r} would be outside its folder")
    return path
