"""What the header of an audio file promises against the bytes that are there.

libsndfile shortens the length of a file that is cut off to what is there, and reports no error. These checks read a few
kilobytes of the file and find it. A FLAC file does not state its size in bytes: its end has to be decoded.
"""

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_HEAD = 4096
"""Bytes from the start of the file, or of an MP3's first frame, that are searched."""

_OGG_PAGE = 27 + 255 + 255 * 255
"""Bytes of the largest Ogg page (RFC 3533)."""

_MP3_TAGS = 256
"""Bytes by which an MP3 may be shorter than its table says: some encoders count a tag that was removed."""

_CHUNKS = 1000
"""Chunks of a file that are looked at for its data."""

_NOT_AUDIO = {
    b"version https://git-lfs": "a Git LFS pointer in place of the audio; fetch it with git lfs pull",
    b"<!doctype html": "a web page, not audio",
    b"<html": "a web page, not audio",
    b"\x00\x05\x16\x07": "macOS metadata (AppleDouble), not audio",
}
"""First bytes, in lower case -> what the file is."""


@dataclass(frozen=True)
class Header:
    """What a file's header promises.

    Attributes:
        fault: why the file cannot be used, or None.
        exact: the length in it is exact. That of an MP3 without a Xing or Info table is an estimate.
    """

    fault: str | None
    exact: bool = True


def check(path: Path) -> Header:
    """Check that a path is a regular file, and that it is as long as its header promises."""
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            return Header("a folder, not a file")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its writer
            return Header("not a regular file; copy its content to a file")
        if status.st_size == 0:
            return Header("an empty file")
        with path.open("rb") as file:
            return _checked(file, status.st_size)
    except FileNotFoundError:
        return Header("no such file")
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        return Header(getattr(error, "strerror", None) or str(error))


def _checked(file: BinaryIO, size: int) -> Header:
    head = file.read(_HEAD)
    for start, what in _NOT_AUDIO.items():
        if head.lower().startswith(start):
            return Header(what)
    if head.startswith(b"OggS"):
        return Header(None if _ogg_ends(file, size) else "cut short: the last page of its Ogg stream is missing")
    if head.startswith(b"ID3") or head[:1] == b"\xff":
        return _mp3(file, head, size)
    for begin, promised in _data(file, head, size):
        if begin + promised > size:
            return Header(f"cut short: {max(0, size - begin)} of the {promised} bytes of sound it promises")
    return Header(None)


def _data(file: BinaryIO, head: bytes, size: int) -> Iterator[tuple[int, int]]:
    """Yield the start and the promised bytes of the sound in a WAV, RF64, AIFF, AU or W64 file, if they are known."""
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        yield from _iff(file, size, ">" if head[:4] == b"RIFX" else "<", b"data")
    elif head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        yield from _iff(file, size, ">", b"SSND")
    elif head[:4] in (b".snd", b"dns.") and len(head) >= 12:
        begin, promised = struct.unpack(">4xII" if head[:1] == b"." else "<4xII", head[:12])
        if _known(promised):
            yield begin, promised
    elif head[:4] == b"riff" and head[24:28] == b"wave":
        yield from _w64(file, size)


def _iff(file: BinaryIO, size: int, order: str, wanted: bytes) -> Iterator[tuple[int, int]]:
    """Yield the start and the promised bytes of the chunk with the sound, from 32-bit chunks after a form type."""
    at, long = 12, None
    for _ in range(_CHUNKS):
        file.seek(at)
        header = file.read(24)
        if at >= size or len(header) < 8:
            return
        (promised,) = struct.unpack(f"{order}I", header[4:8])
        if header[:4] == b"ds64" and len(header) == 24:  # RF64: the true 64-bit sizes
            (long,) = struct.unpack("<Q", header[16:24])
        if header[:4] == wanted:
            if promised == 0xFFFFFFFF and long:
                yield at + 8, long
            elif _known(promised):
                yield at + 8, promised
            return
        at += 8 + promised + promised % 2


def _w64(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    at = 40
    for _ in range(_CHUNKS):
        file.seek(at)
        header = file.read(24)
        if at >= size or len(header) < 24:
            return
        (promised,) = struct.unpack("<Q", header[16:24])  # with these 24 bytes
        if header[:4] == b"data":
            yield at + 24, max(0, promised - 24)
            return
        at += max(24, promised + -promised % 8)


def _known(promised: int) -> bool:
    """Return whether a 32-bit size is meant: programs that write to a pipe put 0 or the largest number."""
    return promised != 0 and not 0x7FFFF000 <= promised <= 0x80000000 and promised < 0xFFFFF000


def _ogg_ends(file: BinaryIO, size: int) -> bool:
    """Return whether a file's last Ogg page is whole and marked as the end of its stream (RFC 3533)."""
    file.seek(max(0, size - _OGG_PAGE))
    tail = file.read()
    at = tail.rfind(b"OggS")
    if at < 0:
        return True  # more than a page of something else follows; decoding decides
    page = tail[at:]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    return len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]]) and bool(page[5] & 4)


def _mp3(file: BinaryIO, head: bytes, size: int) -> Header:
    """Compare an MP3 with the number of bytes in the table of its first frame (Xing, Info), if it has one."""
    begin = 0
    if head[:3] == b"ID3" and len(head) >= 10:
        begin = 10 + sum((head[6 + k] & 0x7F) << 7 * (3 - k) for k in range(4))
        file.seek(begin)
        head = file.read(_HEAD)
        if head.startswith(b"fLaC"):
            return Header(None)
    at = max(head.find(b"Xing"), head.find(b"Info"))
    if at < 0 or len(head) < at + 16:
        return Header(None, exact=False)
    flags, *fields = struct.unpack(">III", head[at + 4 : at + 16])
    promised = fields[flags & 1] if flags & 2 else 0
    there = size - begin
    if promised - there > _MP3_TAGS:
        return Header(f"cut short: {there} of the {promised} bytes that its header promises")
    return Header(None, exact=bool(flags & 1))
