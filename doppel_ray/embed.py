"""Embed audio files: `python -m doppel_ray.embed --checkpoint DIR FILES... --out embeddings.parquet`.

Takes files of any format, rate, number of channels and length, and folders of them. Files are decoded in threads ahead
of the encoder; memory holds a batch of windows of each, or up to a minute if recordings are read whole
(`encoder.reading`). The embeddings are those of the probes and of `doppel_ray.hear`.
"""

import csv
import itertools
import json
import math
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from doppel_ray.core import cli, provenance
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.files import new_output
from doppel_ray.data import audio_files, audio_folders
from doppel_ray.data.audio_files import UnreadableAudioError
from doppel_ray.data.audio_folders import Found, printable
from doppel_ray.data.windows import centred
from doppel_ray.hear import HOP, describe, load_model
from doppel_ray.models.clips import WaveformEncoder, embed_windows

T = TypeVar("T")

NOT_UTF8 = "its name is not UTF-8, so no table can hold it; rename it"

ROWS = 1024
"""Rows written at a time."""


@dataclass(frozen=True)
class Piece:
    """Consecutive windows of one file, or the reason why it cannot be read.

    Attributes:
        windows: (n, samples) float32.
        seconds: duration of the whole file.
        fault: why the file cannot be read, if it cannot; the piece is then its last.
    """

    windows: Tensor
    seconds: float = 0.0
    fault: str | None = None


@dataclass(frozen=True)
class FileEmbeddings:
    """A file's embeddings.

    Attributes:
        path: the file.
        seconds: its duration.
        embeddings: (windows, size) float32, of all its windows in order; empty if there is a fault.
        fault: why the file cannot be read, if it cannot.
    """

    path: Path
    seconds: float
    embeddings: np.ndarray
    fault: str | None


def find(paths: Sequence[Path]) -> Found:
    """Find the given files, and the audio files in and below the given folders, without duplicates.

    Raises:
        ConfigError: a path does not exist, or a folder holds no audio.
    """
    found: dict[Path, None] = {}
    skipped: Counter[str] = Counter()
    for path in paths:
        if os.path.isdir(path):
            inside = audio_folders.find(path)
            if not inside.paths:
                expected = f"holds no audio: expected files that end in {', '.join(sorted(audio_folders.SUFFIXES))}"
                raise ConfigError("; ".join(filter(None, [f"{printable(path)} {expected}", inside.note])))
            found.update(dict.fromkeys(inside.paths))
            skipped += inside.skipped
        elif os.path.exists(path):
            found[path] = None
        else:
            raise ConfigError(f"{printable(path)}: no such file or folder")
    return Found(list(found), skipped)


def embed_files(
    paths: Iterable[Path], model: WaveformEncoder, hop: float | None = None, threads: int = 2
) -> Iterator[FileEmbeddings]:
    """Yield the embeddings of files, in their order.

    Args:
        paths: the files.
        model: on its device.
        hop: milliseconds between the windows, centred on the timestamps; None: the windows that cover a file.
        threads: files decoded at once.
    """
    order = list(paths)
    seconds: dict[int, float] = {}
    faults: dict[int, str] = {}

    def windows() -> Iterator[tuple[int, Tensor]]:
        for place, piece in ahead((_numbered(k, pieces(path, model, hop)) for k, path in enumerate(order)), threads):
            if piece.fault is not None:
                faults[place] = piece.fault
            seconds[place] = piece.seconds
            yield from ((place, window) for window in piece.windows)

    def result(place: int, vectors: np.ndarray) -> FileEmbeddings:
        fault = faults.get(place)
        return FileEmbeddings(order[place], seconds[place], vectors if fault is None else vectors[:0], fault)

    none, done = np.empty((0, model.scene_embedding_size), dtype=np.float32), 0
    embedded = embed_windows(windows(), lambda part: model.embed(part).cpu(), model.reading.at_once)
    for place, vectors in embedded:
        yield from (result(k, none) for k in range(done, place))  # files without windows
        yield result(place, vectors.numpy())
        done = place + 1
    yield from (result(k, none) for k in range(done, len(order)))


def _numbered(number: int, items: Iterator[T]) -> Iterator[tuple[int, T]]:
    return zip(itertools.repeat(number), items, strict=False)


def pieces(path: Path, model: WaveformEncoder, hop: float | None) -> Iterator[Piece]:
    """Yield a file in pieces of up to a batch of windows, each decoded on demand."""
    rate = model.sample_rate
    if not _is_utf8(path):
        yield Piece(torch.empty(0, model.samples), fault=NOT_UTF8)
        return
    try:
        with audio_files.opened(path, rate) as clip:
            starts = None if hop is None else centred(clip.samples, model.centre, hop * rate / 1000)
            for windows in model.reading.cut(clip, starts):
                yield Piece(windows, clip.samples / rate)
    except UnreadableAudioError as error:
        yield Piece(torch.empty(0, model.samples), fault=error.reason)


def ahead(streams: Iterable[Iterator[T]], threads: int) -> Iterator[T]:
    """Yield the items of streams, one stream after another, while threads prepare the next ones.

    Twice as many streams as threads are open, with one item each: that bounds memory.
    """
    streams = iter(streams)
    waiting: deque[tuple[Iterator[T], Future[T | None]]] = deque()
    pool = ThreadPoolExecutor(threads)

    def open_next() -> None:
        for stream in streams:
            waiting.append((stream, pool.submit(next, stream, None)))
            return

    try:
        for _ in range(2 * threads):
            open_next()
        while waiting:
            stream, coming = waiting.popleft()
            open_next()
            while (item := coming.result()) is not None:
                coming = pool.submit(next, stream, None)
                yield item
    finally:
        pool.shutdown(cancel_futures=True)


# --- output ---

Write = Callable[[Path, np.ndarray, np.ndarray], None]
"""Writes the rows of one file: its path, positions (rows,) float64, embeddings (rows, size) float32."""


@contextmanager
def parquet_rows(out: Path, position: str, size: int, metadata: dict[str, Any]) -> Iterator[Write]:
    """Write columns `path`, `position` and `embedding` (a list of fixed size); metadata is JSON in `doppel_ray`."""
    import pyarrow as pa
    import pyarrow.parquet

    schema = pa.schema(
        {"path": pa.string(), position: pa.float64(), "embedding": pa.list_(pa.float32(), size)},
        metadata={"doppel_ray": json.dumps(metadata)},
    )
    paths: list[str] = []
    positions: list[np.ndarray] = []
    embeddings: list[np.ndarray] = []

    with pyarrow.parquet.ParquetWriter(out, schema) as file:

        def flush() -> None:
            if paths:
                vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(embeddings).ravel()), size)
                columns = [pa.array(paths), pa.array(np.concatenate(positions)), vectors]
                file.write_table(pa.Table.from_arrays(columns, schema=schema))
            for waiting in (paths, positions, embeddings):
                waiting.clear()

        def write(path: Path, where: np.ndarray, vectors: np.ndarray) -> None:
            paths.extend([str(path)] * len(where))
            positions.append(where)
            embeddings.append(vectors)
            if len(paths) >= ROWS:
                flush()

        yield write
        flush()


@contextmanager
def csv_rows(out: Path, position: str, size: int, metadata: dict[str, Any]) -> Iterator[Write]:
    """Write columns `path`, `position`, and one for each dimension; CSV cannot hold metadata."""
    with out.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", position, *(f"embedding_{k}" for k in range(size))])

        def write(path: Path, where: np.ndarray, vectors: np.ndarray) -> None:
            rows.writerows([path, t, *map("{:.9g}".format, v)] for t, v in zip(where.tolist(), vectors, strict=True))

        yield write


WRITERS = {".parquet": parquet_rows, ".csv": csv_rows}
"""Suffix of --out -> writer."""


# --- the command line ---


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse(argv)
    cli.stop_on_sigterm()
    if args.out.suffix not in WRITERS:
        raise ConfigError(f"--out {args.out} ends in {args.out.suffix!r}; expected {' or '.join(WRITERS)}")
    if args.threads < 1 or not 0.0 < args.hop < math.inf:
        raise ConfigError(f"--threads is {args.threads} and --hop is {args.hop}: both must be more than 0")
    model = load_model(args.checkpoint).to(cli.device(args.device))
    found = find(args.files)
    paths = found.paths
    if found.note:
        print(found.note, file=sys.stderr)
    if args.unreadable == "refuse" and (unreadable := _scan(paths)):
        raise ConfigError(_unreadable(unreadable, len(paths)) + "\n--unreadable skip leaves them out")
    metadata = {
        "checkpoint": str(args.checkpoint.absolute()),
        **describe(args.checkpoint, model),
        "hop_milliseconds": args.hop if args.timestamps else None,
        "origin": provenance.gather(),
    }
    began, seconds, unreadable = time.monotonic(), 0.0, {}
    position = "milliseconds" if args.timestamps else "seconds"
    with (
        new_output(args.out, args.overwrite) as partial,
        WRITERS[args.out.suffix](partial, position, model.scene_embedding_size, metadata) as write,
    ):
        files = embed_files(paths, model, args.hop if args.timestamps else None, args.threads)
        for sound in cli.with_progress(files, len(paths), "embedding", "files"):
            if sound.fault is not None:
                unreadable[sound.path] = sound.fault
                if args.unreadable == "refuse" or len(unreadable) == len(paths):
                    raise ConfigError(_unreadable(unreadable, len(paths)) + "\nnothing was written")
                continue
            seconds += sound.seconds
            if args.timestamps:
                write(sound.path, args.hop * np.arange(len(sound.embeddings)), sound.embeddings)
            else:
                write(sound.path, np.array([sound.seconds]), sound.embeddings.mean(axis=0, keepdims=True))
    if unreadable:
        print(_unreadable(unreadable, len(paths)), file=sys.stderr)
    took = time.monotonic() - began
    print(f"{len(paths) - len(unreadable)} of {len(paths)} files, {seconds:.0f} s of sound, in {took:.1f} s")
    print(args.out)
    return 1 if unreadable else 0


def _unreadable(unreadable: dict[Path, str], total: int) -> str:
    named = "".join(f"\n  {printable(path)}: {reason}" for path, reason in unreadable.items())
    return f"{len(unreadable)} of {total} files cannot be read:{named}"


def _scan(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the files that cannot be read, with the reason."""
    named = {path: NOT_UTF8 for path in paths if not _is_utf8(path)}
    return audio_files.scan(path for path in paths if path not in named) | named


def _is_utf8(path: Path) -> bool:
    """Return whether a path can be written to a table; Python keeps other bytes of a name as lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in str(path))


def _parser() -> cli.Parser:
    parser = cli.Parser("embed", "Embed audio files of any format, rate and length.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILES", help="files, and folders of files")
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="DIR", help="a checkpoint, or an exported safetensors folder"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=f"file to write; its suffix is {' or '.join(WRITERS)}"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --out")
    parser.add_argument(
        "--timestamps", action="store_true", help="a row for every timestamp instead of the mean over each file"
    )
    parser.add_argument("--hop", type=float, default=HOP, help=f"milliseconds between timestamps (default: {HOP:g})")
    parser.add_argument(
        "--unreadable",
        choices=("skip", "refuse"),
        default="skip",
        help="what to do about files that cannot be read: list them at the end and exit with 1 (skip), or write "
        "nothing and exit with 2 (default: skip)",
    )
    parser.add_argument("--threads", type=int, default=2, help="files decoded at once (default: 2)")
    parser.add_argument("--device", help="such as cpu or cuda:1 (default: the GPU if there is one)")
    return parser


if __name__ == "__main__":
    cli.run(main)
