"""`python -m doppel_ray.probe fetch TASK --root DIR`: a task's recordings from their own source, ready to be probed.

Downloads what `sources` knows, checks it, unpacks it beside its final place, and moves it there when it is whole. What
is on the way lies in `DIR/.fetch`: a file put there by hand under its archive's name is taken instead of a download.
"""

import fcntl
import os
import shutil
import socket
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from doppel_ray.core import cli, dotted_keys
from doppel_ray.core.errors import ConfigError
from doppel_ray.data import audio_files
from doppel_ray.probe.datasets.download import (
    PATIENCE,
    FetchError,
    Patience,
    download,
    file_size,
    in_words,
    meter,
    partial,
    speaker,
    verify,
)
from doppel_ray.probe.datasets.sources import PARTS, SOURCES, Archive, Source

WORK = ".fetch"
"""Folder, in the data set's own, of what is on the way."""
FAILED = 1

Member = tuple[str, IO[bytes] | None]
"""Path of a file in an archive and its bytes; None for a folder."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.Parser("probe fetch", "Download the recordings of a probe task. Without TASK: list what there is.")
    parser.usage = "%(prog)s [TASK --root DIR] [--option value ...]"
    parser.add_argument("task", nargs="?", metavar="TASK", help="one of those that are listed without it")
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder of this data set alone; made if need be")
    parser.add_argument("--splits", metavar="LIST", help="of nsynth: some of train,valid,test [default: all]")
    parser.add_argument(
        "--from",
        dest="address",
        metavar="URL",
        help="a mirror: the archive's address there, or, ending in /, that of the folder it is in",
    )
    parser.add_argument(
        "--checksum",
        metavar="KIND:HEX",
        help="md5:... or sha256:... that the archive must have instead of the source's; none: do not check",
    )
    parser.add_argument("--keep", action="store_true", help=f"keep the archives, in DIR/{WORK}, after unpacking them")
    parser.add_argument(
        "--timeout", type=float, default=Patience.timeout, metavar="SECONDS", help="of silence [default: %(default)g]"
    )
    parser.add_argument(
        "--tries",
        type=int,
        default=Patience.tries,
        metavar="N",
        help="attempts in a row that may bring next to nothing [default: %(default)s]",
    )
    args = parser.parse(argv)
    console = Console()
    if args.task is None:
        _list(console)
        return 0
    source = _source(args.task)
    if args.root is None:
        raise ConfigError(f"--root is not set: give the folder that {source.title} is to be in")
    for name, value in (("timeout", args.timeout), ("tries", args.tries)):
        if not value > 0:
            raise ConfigError(f"--{name} is {value:g}: it must be more than 0")
    archives = _archives(source, args.task, args.splits)
    patience = Patience(timeout=args.timeout, tries=args.tries)
    cli.stop_on_sigterm()
    try:
        fetch(source, archives, args.root, console, args.address, args.checksum, args.keep, patience)
    except (FetchError, OSError) as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        return FAILED
    except KeyboardInterrupt:
        kept = sum(partial(args.root / WORK / archive.name).is_file() for archive in archives)
        speaker(console)("stopped; " + ("what has arrived is kept: " if kept else "") + "the same command goes on")
        raise
    speaker(console)(f"ready: --probes.tasks '[{args.task}]' --probes.root {args.root}")
    return 0


def fetch(
    source: Source,
    archives: Sequence[Archive],
    root: Path,
    console: Console,
    address: str | None = None,
    checksum: str | None = None,
    keep: bool = False,
    patience: Patience = PATIENCE,
) -> None:
    """Have these archives of a source unpacked in a folder; those that already are stay as they are.

    Args:
        source: the data set.
        archives: of it.
        root: the data set's folder.
        console: for what a person should know.
        address: to be used instead of an archive's own; of its folder if it ends in "/".
        checksum: to be used instead of an archive's own; "none": do not check.
        keep: the archives, once they are unpacked.
        patience: with the server.

    Raises:
        ConfigError: it cannot be done as asked, and nothing has been downloaded.
        FetchError: it went wrong on the way; what has arrived is kept.
        OSError: the disk is full, or the folder cannot be written to.
    """
    say, work = speaker(console), root / WORK
    wanted = [archive for archive in archives if not (root / archive.holds).exists()]
    for archive in archives:
        if archive not in wanted:
            say(f"{root / archive.holds} is there already: {archive.name} is not needed")
    if not wanted:
        return
    _check_address(address, wanted)
    _check_checksum(checksum, wanted)
    arrived = [archive for archive in wanted if _arrived(work, archive)]
    for archive in wanted:
        if archive not in arrived and (address or archive.address) is None:
            raise ConfigError(f"{source.title}: {source.by_hand.format(file=work / archive.name)}")
    _check_folder(root, source, wanted, work)
    coming = sum(max(0, (a.size or 0) - file_size(partial(work / a.name))) for a in wanted if a not in arrived)
    _check_room(root, coming + sum(a.unpacked for a in wanted))
    with _locked(work):
        say(f"{source.title}\n{source.page}\nlicence: {source.licence}")
        if source.note:
            say(source.note)
        for archive in wanted:
            _fetch_one(archive, root, work, console, address, checksum, patience)
            if not keep:
                (work / archive.name).unlink(missing_ok=True)


def _fetch_one(
    archive: Archive,
    root: Path,
    work: Path,
    console: Console,
    address: str | None,
    checksum: str | None,
    patience: Patience,
) -> None:
    """Download, check, unpack and place one archive, from wherever the last time got to."""
    say, file, ready = speaker(console), work / archive.name, work / f"{archive.name}.ready"
    expected = None if checksum == "none" else checksum or archive.checksum
    if not ready.is_dir():
        if not file.is_file():
            origin = address + archive.name if address and address.endswith("/") else address or archive.address
            assert origin is not None, "an archive without an address has arrived, or was refused"
            room = lambda size: _check_room(root, size + archive.unpacked)  # noqa: E731
            download(origin, file, console, expected, patience, room)
        try:
            if expected:
                verify(file, expected, console)
            else:
                say(f"{file.name}: not compared with a checksum, as there is none; unpacking finds most damage")
            unpack(file, ready, console)
            _base(ready, archive)
        except FetchError as error:
            shutil.rmtree(ready, ignore_errors=True)
            aside = file.with_name(f"{file.name}.wrong")
            file.replace(aside)
            raise FetchError(
                f"{error}. It is set aside as {aside}: the same command downloads it anew. If the source has changed "
                f"it and you trust it, move it back to {file} and add --checksum none"
            ) from None
    found = sum(
        os.path.splitext(name)[1].lower() in audio_files.SUFFIXES and not name.startswith(".")
        for _, _, names in os.walk(ready)
        for name in names
    )
    _place(ready, root, archive)
    count = f"{found:,} recordings" + (
        f"; the source says {archive.recordings:,}" if found != archive.recordings else ""
    )
    say(f"{root}: {count}")


def unpack(file: Path, into: Path, console: Console) -> None:
    """Unpack a .zip or .tar.gz into a folder that exists only once all of it is there.

    Only files and folders are unpacked, and only below that folder.

    Raises:
        FetchError: a member would lie elsewhere or is a link or a device, or the archive is damaged.
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
    # As a stream, because it is compressed: going back to a member would mean to begin again.
    with tarfile.open(fileobj=data, mode="r|*") as archive:
        for member in archive:
            if not member.isfile() and not member.isdir():
                raise FetchError(f"{member.name!r} in it is a link or a device, and may not be unpacked")
            yield member.name, archive.extractfile(member)


def _zip_members(data: IO[bytes]) -> Iterator[Member]:
    with zipfile.ZipFile(data) as archive:
        for member in archive.infolist():
            if stat.S_ISLNK(member.external_attr >> 16):
                raise FetchError(f"{member.filename!r} in it is a link, and may not be unpacked")
            yield member.filename, None if member.is_dir() else archive.open(member)


def _inside(name: str, file: Path) -> PurePosixPath:
    """A member's path, if it lies below the folder that it is unpacked in."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise FetchError(f"{file.name} is not safe to unpack: {name!r} in it would lie outside its folder")
    return path


def _place(ready: Path, root: Path, archive: Archive) -> None:
    """Move what was unpacked to where the loaders look for it, `archive.holds` last: with it, all of it is there."""
    base = _base(ready, archive)
    last = PurePosixPath(archive.holds).parts[0]
    for entry in sorted(base.iterdir(), key=lambda entry: (entry.name == last, entry.name)):
        if (root / entry.name).exists():
            raise FetchError(f"{root / entry.name} is in the way: move it, and give the same command again")
        entry.rename(root / entry.name)
    shutil.rmtree(ready)


def _base(ready: Path, archive: Archive) -> Path:
    """The data set's own folder in what was unpacked: archives have none to three around it.

    Raises:
        FetchError: there is none.
    """
    folders = [ready, *(folder for depth in (1, 2, 3) for folder in ready.glob("/".join("*" * depth)))]
    for folder in folders:
        if (folder / archive.holds).exists():
            return folder
    shown = ", ".join(sorted(entry.name for entry in ready.iterdir())[:5])
    raise FetchError(f"{archive.name} holds no {archive.holds}, but {shown}: it is not what was expected")


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    """Be the only one that fetches into a folder.

    The lock is the kernel's, on a file that says whose it is: it ends with its process, however that ends.
    """
    path = work / "lock"
    while True:
        work.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            lock.close()
            raise ConfigError(
                f"{work.parent}: {holder} is fetching into it; wait until it has ended, or give another --root"
            ) from None
        # Whoever had the lock may have removed the file after it was opened here.
        if path.exists() and path.stat().st_ino == os.fstat(lock.fileno()).st_ino:
            break
        lock.close()
    try:
        lock.seek(0)
        lock.truncate()
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.close()
        if not any(work.iterdir()):
            work.rmdir()


def _source(task: str) -> Source:
    """The source of a task's recordings.

    Raises:
        ConfigError: there is none.
    """
    if task == "factors":
        raise ConfigError("factors has no recordings: it is built in")
    name = PARTS.get(task, task)
    if name not in SOURCES:
        known = sorted([*SOURCES, *PARTS])
        raise ConfigError(
            f"there is no source for {task!r}{dotted_keys.suggestion(task, known)}\nthere is one for {', '.join(known)}"
        )
    return SOURCES[name]


def _archives(source: Source, task: str, splits: str | None) -> list[Archive]:
    """Those of the splits that are asked for.

    Raises:
        ConfigError: there is no such split.
    """
    if splits is None:
        return list(source.archives)
    known = [archive.split for archive in source.archives if archive.split]
    wanted = [split.strip() for split in splits.strip("[]").split(",")]
    if not known:
        raise ConfigError(f"--splits is {splits}, but {task} comes in one piece: leave it out")
    for split in wanted:
        if split not in known:
            raise ConfigError(f"--splits has {split!r}; {task} has {', '.join(known)}")
    return [archive for archive in source.archives if archive.split in wanted]


def _arrived(work: Path, archive: Archive) -> bool:
    return (work / archive.name).is_file() or (work / f"{archive.name}.ready").is_dir()


def _check_address(address: str | None, wanted: Sequence[Archive]) -> None:
    if address is None:
        return
    if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).netloc:
        raise ConfigError(f"--from is {address!r}: expected an address that begins with http:// or https://")
    if len(wanted) > 1 and not address.endswith("/"):
        names = ", ".join(archive.name for archive in wanted)
        raise ConfigError(f"--from is one file, but {names} are wanted: give the address of their folder, ending in /")


def _check_checksum(checksum: str | None, wanted: Sequence[Archive]) -> None:
    if checksum in (None, "none"):
        return
    kind, _, digits = checksum.partition(":")
    length = {"md5": 32, "sha256": 64}.get(kind)
    if len(digits) != length or not set(digits) <= set("0123456789abcdef"):
        raise ConfigError(
            f"--checksum is {checksum!r}: expected md5: and 32, or sha256: and 64 digits of 0-9a-f, or none"
        )
    if len(wanted) > 1:
        raise ConfigError(f"--checksum is of one archive, but {len(wanted)} are wanted: take one at a time")


def _check_folder(root: Path, source: Source, wanted: Sequence[Archive], work: Path) -> None:
    """Refuse, before a long download, a folder that holds something else: data sets have files of the same names."""
    if root.exists() and not root.is_dir():
        raise ConfigError(f"--root is {str(root)!r}: it is a file; expected a folder")
    begun = any((root / a.holds).exists() or (work / f"{a.name}.ready").is_dir() for a in source.archives)
    if begun:
        return
    others = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith(".")) if root.is_dir() else []
    if others:
        raise ConfigError(
            f"--root is {str(root)!r}, which holds {', '.join(others[:3])}{', ...' if others[3:] else ''} and not "
            f"{wanted[0].holds}: give {source.title} a folder of its own"
        )


def _check_room(root: Path, size: int) -> None:
    """Refuse what the disk has no room for."""
    there = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < size:
        raise ConfigError(
            f"{there}: {in_words(size)} are needed, for the archive and what is in it, and {in_words(free)} are free"
        )


def _list(console: Console) -> None:
    table = Table(
        "task", "data set", "download", "unpacked", "licence", title="What can be fetched", title_justify="left"
    )
    for task, source in SOURCES.items():
        sizes = [archive.size for archive in source.archives if archive.size]
        how = in_words(sum(sizes)) if sizes else "by hand" if source.by_hand else "?"
        parts = [part for part, whole in PARTS.items() if whole == task]
        unpacked = in_words(sum(archive.unpacked for archive in source.archives))
        table.add_row(", ".join([task, *parts]), source.title, how, unpacked, source.licence.partition(",")[0])
    console.print(table)
