"""Download one large file: resume after an interruption, give up on a silent server, check the result.

Range requests follow RFC 9110, sections 13 and 14: a partial file is only appended to if the server confirms (by
`If-Range`) that it still has the same file, or if a checksum will be compared.
"""

import hashlib
import http.client
import json
import math
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

import doppel_ray

BLOCK = 2**20
WORTHWHILE = 2**20
"""Bytes that an attempt must receive to count as progress."""
SLOWEST = 2**10
"""Bytes per second below which a server counts as silent."""
LONGEST_PAUSE = 60.0
"""Longest pause between attempts, in seconds."""
TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP status codes worth a retry."""
REPORT_EVERY = 10.0
"""Seconds between lines of progress without a terminal."""


class FetchError(Exception):
    """A download or an archive failed; the message says how to mend it."""


class _CutError(Exception):
    """An attempt ended early; a retry may succeed."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server.

    Attributes:
        timeout: seconds that it may be silent.
        tries: attempts in a row with less than `WORTHWHILE`, after which to give up.
        pause: seconds before the second attempt; doubled before each further one.
    """

    timeout: float = 60.0
    tries: int = 6
    pause: float = 1.0


PATIENCE = Patience()

Say = Callable[[str], None]


def speaker(console: Console) -> Say:
    """Return a function that prints a line without wrapping or colouring it."""
    return lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)


def in_words(size: float) -> str:
    """Format a number of bytes: 645.8 MB."""
    if size < 1000:
        return f"{size:.0f} bytes"
    power = min(3, int(math.log10(size)) // 3)
    return f"{size / 1000**power:.1f} {('', 'kB', 'MB', 'GB')[power]}"


def partial(file: Path) -> Path:
    """Return the path of an unfinished download."""
    return file.with_name(f"{file.name}.part")


def download(
    address: str,
    file: Path,
    console: Console,
    checksum: str | None = None,
    patience: Patience = PATIENCE,
    check_room: Callable[[int], None] = lambda size: None,
) -> None:
    """Download to `file`, which appears when it is complete; a partial download is kept for the next call.

    Args:
        address: http or https.
        file: in a folder that exists.
        console: for progress and retries.
        checksum: "md5:..." or "sha256:..." of the whole file; here it only allows resuming a part from another server.
        patience: with the server.
        check_room: called with the bytes still missing before they are requested; its exceptions pass through.

    Raises:
        FetchError: the server lacks the file, cannot be reached, or is silent for too long.
    """
    say, part, fruitless = speaker(console), partial(file), 0
    while True:
        had = file_size(part)
        try:
            _attempt(address, file, console, checksum, patience.timeout, check_room)
            break
        except _CutError as cut:
            fruitless = 1 if file_size(part) - had >= WORTHWHILE else fruitless + 1
            if fruitless >= patience.tries:
                raise FetchError(
                    f"{address}: {cut}; gave up after {fruitless} attempts without progress. "
                    f"{in_words(file_size(part))} are kept in {part}; the same command resumes from there"
                ) from None
            wait = min(LONGEST_PAUSE, max(cut.wait, patience.pause * 2 ** (fruitless - 1)))
            say(f"{file.name}: {cut}; attempt {fruitless + 1} of {patience.tries} in {wait:g} s")
            time.sleep(wait)
    part.replace(file)
    _memory(file).unlink(missing_ok=True)


def verify(file: Path, checksum: str, console: Console) -> None:
    """Compare a file with its checksum, "md5:..." or "sha256:...".

    Raises:
        FetchError: they differ.
    """
    kind, _, expected = checksum.partition(":")
    digest = hashlib.new(kind, usedforsecurity=False)
    with file.open("rb") as data, meter(console, f"{file.name}: {kind}", file_size(file)) as report:
        while block := data.read(BLOCK):
            digest.update(block)
            report(data.tell())
    if digest.hexdigest() != expected:
        raise FetchError(f"{file.name}: its {kind} is {digest.hexdigest()}; expected {expected}")


@contextmanager
def meter(console: Console, what: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show progress in bytes: a bar on a terminal, otherwise a line every `REPORT_EVERY` seconds.

    Yields:
        A function to call with the bytes done so far, including the `done` at the start.
    """
    if console.is_terminal:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
        with Progress(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console) as bars:
            bar = bars.add_task(what, total=total, completed=done)
            yield lambda now: bars.update(bar, completed=now)
        return
    say, began, last = speaker(console), time.monotonic(), time.monotonic()

    def report(now: int) -> None:
        nonlocal last
        if time.monotonic() - last >= REPORT_EVERY:
            last = time.monotonic()
            of = f" of {in_words(total)}" if total else ""
            say(f"{what}: {in_words(now)}{of}, {in_words((now - done) / (last - began))}/s")

    yield report


def _attempt(
    address: str,
    file: Path,
    console: Console,
    checksum: str | None,
    timeout: float,
    check_room: Callable[[int], None],
) -> None:
    """Append to the partial file until it is complete.

    Raises:
        _CutError: it is incomplete, and a retry may help.
        FetchError: a retry cannot help.
    """
    part, memory = partial(file), _remembered(file)
    validator = memory.get("validator") if memory.get("address") == address else None
    had = file_size(part) if validator or checksum else 0
    after = f" after the first {in_words(had)}" if had else ""
    speaker(console)(f"{file.name}: downloading from {urlsplit(address).netloc}{after}")
    # Ranges and checksums count bytes of the file itself, not of a compressed form.
    headers = {"User-Agent": f"doppel_ray/{doppel_ray.__version__}", "Accept-Encoding": "identity"}
    if had:
        headers["Range"] = f"bytes={had}-"
        if validator:
            headers["If-Range"] = validator
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=timeout) as response:
            if response.status == 206:
                first, total = _content_range(response.headers.get("Content-Range"))
                if first != had:
                    part.unlink()
                    raise _CutError(f"the server sent bytes from {first}, not from {had}: starting over")
            else:
                if had:
                    speaker(console)(f"{file.name}: the server cannot resume: starting over")
                had, length = 0, response.headers.get("Content-Length")
                total = int(length) if length and length.isdecimal() else None
                _memory(file).write_text(json.dumps({"address": address, "validator": _validator(response.headers)}))
            if total is not None:
                check_room(total - had)
            _receive(response, part, console, file.name, had, total, timeout)
    except urllib.error.HTTPError as error:
        _refused(error, address, part, had)
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise FetchError(
                f"{address}: its certificate cannot be verified ({error.reason.verify_message}); "
                "SSL_CERT_FILE names the file of the authorities to trust"
            ) from None
        raise _CutError(_in_words(error.reason, timeout)) from None
    except (ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException) as error:
        raise _CutError(_in_words(error, timeout)) from None


def _receive(
    response: Any, part: Path, console: Console, name: str, had: int, total: int | None, timeout: float
) -> None:
    """Append the body of a response to the first `had` bytes of the partial file."""
    now, mark, since = had, had, time.monotonic()
    with part.open("r+b" if had else "wb") as out, meter(console, name, total, had) as report:
        out.seek(had)
        # read1 returns what has arrived; read would wait for a full block, with a trickling server for ever.
        while block := response.read1(BLOCK):
            out.write(block)
            now += len(block)
            report(now)
            if time.monotonic() - since >= timeout:
                if now - mark < SLOWEST * timeout:
                    raise _CutError(f"{in_words(now - mark)} in the last {timeout:g} s")
                mark, since = now, time.monotonic()
    if total is not None and now != total:
        raise _CutError(f"the connection ended after {in_words(now)} of {in_words(total)}")


def _refused(error: urllib.error.HTTPError, address: str, part: Path, had: int) -> None:
    """Raise the error of a response; return if it means that the file is already complete."""
    status = f"the server responds with {error.code} {error.reason}"
    if error.code == 416:
        if had and error.headers.get("Content-Range") == f"bytes */{had}":
            return
        part.unlink(missing_ok=True)
        raise _CutError(f"{status}: starting over") from None
    if error.code in TRY_AGAIN:
        after = error.headers.get("Retry-After", "")
        raise _CutError(status, wait=float(after) if after.isdecimal() else 0.0) from None
    raise FetchError(
        f"{address}: {status}; if the file has moved, give its new address, or a mirror's, with --from URL"
    ) from None


def _in_words(error: object, timeout: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no response for {timeout:g} s"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection ended too early"
    return str(error) or type(error).__name__


def _content_range(header: str | None) -> tuple[int, int | None]:
    """Return first byte and total bytes of "bytes 100-199/200" or "bytes 100-199/*"."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", header or "")
    if not found:
        raise _CutError(f"the server sent a part with an unusable Content-Range: {header}")
    return int(found[1]), None if found[2] == "*" else int(found[2])


def _validator(headers: Any) -> str | None:
    """Return what identifies a version of a file; weak ETags are not valid for ranges."""
    tag: str | None = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _memory(file: Path) -> Path:
    """Return the path of the note on which version of a file the part is of."""
    return file.with_name(f"{file.name}.part.json")


def _remembered(file: Path) -> dict[str, Any]:
    try:
        memory = json.loads(_memory(file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return memory if isinstance(memory, dict) else {}


def file_size(file: Path) -> int:
    """Return the bytes of a file; 0 if it does not exist."""
    return file.stat().st_size if file.is_file() else 0
