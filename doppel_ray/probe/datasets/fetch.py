"""`python -m doppel_ray.probe fetch TASK --root DIR`: download a task's recordings from their own source.

Downloads the archives listed in `archives`, checks them, unpacks them in `DIR/.fetch`, and then moves the files to
`DIR`. A file put into `DIR/.fetch` by hand under an archive's name is used instead of a download.
"""

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from doppel_ray.core import cli, dotted_keys
from doppel_ray.core.errors import ConfigError
from doppel_ray.data import audio_folders
from doppel_ray.probe.datasets.archives import DATASETS, PARTS, Archive, Dataset
from doppel_ray.probe.datasets.download import (
    PATIENCE,
    FetchError,
    Patience,
    download,
    file_size,
    in_words,
    partial,
    speaker,
    verify,
)
from doppel_ray.probe.datasets.unpack import unpack

WORK = ".fetch"
"""Subfolder of unfinished downloads."""
FAILED = 1


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.Parser("probe fetch", "Download the recordings of a probe task. Without TASK: list the tasks.")
    parser.usage = "%(prog)s [TASK --root DIR] [--option value ...]"
    parser.add_argument("task", nargs="?", metavar="TASK", help="a name from the list")
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder for this data set alone; created if missing")
    parser.add_argument("--splits", metavar="LIST", help="nsynth only: some of train,valid,test [default: all]")
    parser.add_argument(
        "--from",
        dest="address",
        metavar="URL",
        help="a mirror: the address of the archive, or, ending in /, of its folder",
    )
    parser.add_argument(
        "--checksum",
        metavar="KIND:HEX",
        help="md5:... or sha256:... to check instead of the published one; none: do not check",
    )
    parser.add_argument("--keep", action="store_true", help=f"keep the archives in DIR/{WORK} after unpacking")
    parser.add_argument(
        "--timeout",
        type=float,
        default=Patience.timeout,
        metavar="SECONDS",
        help="to wait for a silent server [default: %(default)g]",
    )
    parser.add_argument(
        "--tries",
        type=int,
        default=Patience.tries,
        metavar="N",
        help="attempts in a row without progress [default: %(default)s]",
    )
    args = parser.parse(argv)
    console = Console(markup=False, emoji=False)
    if args.task is None:
        _list(console)
        return 0
    dataset = _dataset(args.task)
    if args.root is None:
        raise ConfigError(f"--root is not set: give a folder for {dataset.title}")
    for name, value in (("timeout", args.timeout), ("tries", args.tries)):
        if not value > 0:
            raise ConfigError(f"--{name} is {value:g}: it must be more than 0")
    archives = _archives(dataset, args.task, args.splits)
    patience = Patience(timeout=args.timeout, tries=args.tries)
    cli.stop_on_sigterm()
    try:
        fetch(dataset, archives, args.root, console, args.address, args.checksum, args.keep, patience)
    except (FetchError, OSError) as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        return FAILED
    except KeyboardInterrupt:
        kept = sum(partial(args.root / WORK / archive.name).is_file() for archive in archives)
        speaker(console)("stopped; " + ("partial downloads are kept; " if kept else "") + "the same command resumes")
        raise
    speaker(console)(f"ready: --probes.tasks '[{args.task}]' --probes.root {cli.quoted(args.root)}")
    return 0


def fetch(
    dataset: Dataset,
    archives: Sequence[Archive],
    root: Path,
    console: Console,
    address: str | None = None,
    checksum: str | None = None,
    keep: bool = False,
    patience: Patience = PATIENCE,
) -> None:
    """Download and unpack archives into a folder; those already unpacked are left alone.

    Args:
        dataset: the data set.
        archives: of the data set.
        root: the data set's folder.
        console: for messages and progress.
        address: of a mirror's archive; of its folder if it ends in "/".
        checksum: to check instead of the published one; "none": do not check.
        keep: keep the archives after unpacking.
        patience: with the server.

    Raises:
        ConfigError: an argument is not allowed; nothing has been downloaded.
        FetchError: a download or an archive failed; partial downloads are kept.
        OSError: the disk is full, or the folder cannot be written to.
    """
    say, work = speaker(console), root / WORK
    wanted = [archive for archive in archives if not (root / archive.holds).exists()]
    for archive in archives:
        if archive not in wanted:
            say(f"{root / archive.holds} exists: {archive.name} is not needed")
    if not wanted:
        return
    _check_address(address, wanted)
    _check_checksum(checksum, wanted)
    arrived = [archive for archive in wanted if _arrived(work, archive)]
    for archive in wanted:
        if archive not in arrived and (address or archive.address) is None:
            raise ConfigError(f"{dataset.title}: {dataset.by_hand.format(file=work / archive.name)}")
    _check_folder(root, dataset, wanted, work)
    coming = sum(max(0, (a.size or 0) - file_size(partial(work / a.name))) for a in wanted if a not in arrived)
    _check_room(root, coming + sum(a.unpacked for a in wanted))
    with _locked(work):
        say(f"{dataset.title}\n{dataset.page}\nlicence: {dataset.licence}")
        if dataset.note:
            say(dataset.note)
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
    """Download, check, unpack and place one archive; resume where an earlier call stopped."""
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
                say(f"{file.name}: no checksum is published; unpacking detects most damage")
            unpack(file, ready, console)
            _base(ready, archive)
        except FetchError as error:
            shutil.rmtree(ready, ignore_errors=True)
            aside = file.with_name(f"{file.name}.wrong")
            file.replace(aside)
            raise FetchError(
                f"{error}. It is set aside as {aside}; the same command downloads it again. If the source has changed "
                f"it and you trust it, move it back to {file} and add --checksum none"
            ) from None
    found = len(audio_folders.find(ready).paths)
    _place(ready, root, archive)
    count = f"{found:,} recordings" + (
        f"; the source says {archive.recordings:,}" if found != archive.recordings else ""
    )
    say(f"{root}: {count}")


def _place(ready: Path, root: Path, archive: Archive) -> None:
    """Move unpacked files to where the loaders look for them; `archive.holds` comes last and marks completion."""
    base = _base(ready, archive)
    last = PurePosixPath(archive.holds).parts[0]
    for entry in sorted(base.iterdir(), key=lambda entry: (entry.name == last, entry.name)):
        if (root / entry.name).exists():
            raise FetchError(f"{root / entry.name} is in the way: move it and run the same command again")
        entry.rename(root / entry.name)
    shutil.rmtree(ready)


def _base(ready: Path, archive: Archive) -> Path:
    """Return the data set's folder among the unpacked ones, at a depth of up to three.

    Raises:
        FetchError: there is none.
    """
    folders = [ready, *(folder for depth in (1, 2, 3) for folder in ready.glob("/".join("*" * depth)))]
    for folder in folders:
        if (folder / archive.holds).exists():
            return folder
    shown = ", ".join(sorted(entry.name for entry in ready.iterdir())[:5])
    raise FetchError(f"{archive.name} holds {shown}; expected {archive.holds}")


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    """Hold the folder's lock: a kernel lock, released when the process ends, on a file that names the process.

    Raises:
        ConfigError: another process holds it.
    """
    path = work / "lock"
    while True:
        work.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            lock.close()
            raise ConfigError(
                f"{work.parent}: {holder} is fetching into it; wait until it ends, or give another --root"
            ) from None
        except OSError as error:
            lock.close()
            raise ConfigError(
                f"--root: the file system of {work.parent} has no file locks ({error.strerror}); "
                "give a --root on another disk"
            ) from None
        # The previous holder may have removed the file after it was opened here.
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


def _dataset(task: str) -> Dataset:
    """Return the data set of a task's recordings.

    Raises:
        ConfigError: there is none.
    """
    if task == "factors":
        raise ConfigError("factors has no recordings: it is built in")
    name = PARTS.get(task, task)
    if name not in DATASETS:
        known = sorted([*DATASETS, *PARTS])
        raise ConfigError(
            f"no download for task {task!r}{dotted_keys.suggestion(task, known)}; expected one of {', '.join(known)}"
        )
    return DATASETS[name]


def _archives(dataset: Dataset, task: str, splits: str | None) -> list[Archive]:
    """Return the archives of the given splits.

    Raises:
        ConfigError: there is no such split.
    """
    if splits is None:
        return list(dataset.archives)
    known = [archive.split for archive in dataset.archives if archive.split]
    wanted = [split.strip() for split in splits.strip("[]").split(",")]
    if not known:
        raise ConfigError(f"--splits is {splits}, but {task} has a single archive: leave --splits out")
    for split in wanted:
        if split not in known:
            raise ConfigError(f"--splits has {split!r}; {task} has {', '.join(known)}")
    return [archive for archive in dataset.archives if archive.split in wanted]


def _arrived(work: Path, archive: Archive) -> bool:
    return (work / archive.name).is_file() or (work / f"{archive.name}.ready").is_dir()


def _check_address(address: str | None, wanted: Sequence[Archive]) -> None:
    if address is None:
        return
    if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).netloc:
        raise ConfigError(f"--from is {address!r}; expected an address that starts with http:// or https://")
    if len(wanted) > 1 and not address.endswith("/"):
        names = ", ".join(archive.name for archive in wanted)
        raise ConfigError(f"--from is one file, but {names} are needed: give the address of their folder, ending in /")


def _check_checksum(checksum: str | None, wanted: Sequence[Archive]) -> None:
    if checksum in (None, "none"):
        return
    kind, _, digits = checksum.partition(":")
    length = {"md5": 32, "sha256": 64}.get(kind)
    if len(digits) != length or not set(digits) <= set("0123456789abcdef"):
        raise ConfigError(
            f"--checksum is {checksum!r}; expected md5: and 32, or sha256: and 64 digits of 0-9a-f, or none"
        )
    if len(wanted) > 1:
        raise ConfigError(f"--checksum is for one archive, but {len(wanted)} are needed: fetch one at a time")


def _check_folder(root: Path, dataset: Dataset, wanted: Sequence[Archive], work: Path) -> None:
    """Refuse a folder that holds something else, before a long download: data sets share file names."""
    if root.exists() and not root.is_dir():
        raise ConfigError(f"--root is {str(root)!r}, a file; expected a folder")
    begun = any((root / a.holds).exists() or (work / f"{a.name}.ready").is_dir() for a in dataset.archives)
    if begun:
        return
    others = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith(".")) if root.is_dir() else []
    if others:
        raise ConfigError(
            f"--root is {str(root)!r}, which holds {', '.join(others[:3])}{', ...' if others[3:] else ''} and not "
            f"{wanted[0].holds}: give {dataset.title} a folder of its own"
        )


def _check_room(root: Path, size: int) -> None:
    """Refuse a download that the disk has no room for."""
    there = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < size:
        raise ConfigError(
            f"{there}: {in_words(size)} are needed for the archive and its files, and {in_words(free)} are free"
        )


def _list(console: Console) -> None:
    table = Table("task", "data set", "download", "unpacked", "licence", title="Data sets", title_justify="left")
    for task, dataset in DATASETS.items():
        sizes = [archive.size for archive in dataset.archives if archive.size]
        how = in_words(sum(sizes)) if sizes else "by hand" if dataset.by_hand else "?"
        parts = [part for part, whole in PARTS.items() if whole == task]
        unpacked = in_words(sum(archive.unpacked for archive in dataset.archives))
        table.add_row(", ".join([task, *parts]), dataset.title, how, unpacked, dataset.licence.partition(",")[0])
    console.print(table)
