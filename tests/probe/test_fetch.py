"""Fetch recordings from a local server: real archives of made-up recordings."""

import contextlib
import hashlib
import io
import json
import os
import signal
import socket
import tarfile
import threading
import time
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from doppel_ray.core.errors import ConfigError
from doppel_ray.data.recordings import catalogue
from doppel_ray.probe import __main__ as probe
from doppel_ray.probe.datasets import archives, download, fetch
from tests.recordings import write_esc50, write_nsynth, write_speech_commands


@dataclass
class Request:
    """What was asked for and how many bytes of the file were sent."""

    path: str
    range: str | None
    if_range: str | None
    sent: int = 0


@dataclass
class Mirror:
    """A server and its moods.

    Attributes:
        address: of its folder.
        files: by name.
        cuts: bytes after which each of the next answers ends, the first one first.
        errors: status of each of the next answers.
        ranges: whether it knows them.
        stalls: whether it sends half, and then nothing.
        trickles: whether, where it stalls, a byte comes now and then.
        tag: ETag.
        length: whether it tells the length.
        requests: so far.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)
    ranges: bool = True
    stalls: bool = False
    trickles: bool = False
    tag: str | None = '"1"'
    length: bool = True
    requests: list[Request] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


def handler(mirror: Mirror) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            asked = Request(self.path, self.headers.get("Range"), self.headers.get("If-Range"))
            mirror.requests.append(asked)
            body = mirror.files.get(self.path.rpartition("/")[2])
            status = mirror.errors.pop(0) if mirror.errors else 200 if body is not None else 404
            if status != 200 or body is None:
                self.send_error(status)
                return
            first = 0
            if asked.range and mirror.ranges and asked.if_range in (None, mirror.tag):
                first = int(asked.range.removeprefix("bytes=").removesuffix("-"))
                if first >= len(body):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(body)}")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            else:
                self.send_response(200)
            if mirror.length:
                self.send_header("Content-Length", str(len(body) - first))
            if mirror.tag:
                self.send_header("ETag", mirror.tag)
            self.end_headers()
            part = body[first:]
            if mirror.cuts:
                part = part[: mirror.cuts.pop(0)]
            if mirror.stalls:
                part = part[: len(part) // 2]
            self.wfile.write(part)
            self.wfile.flush()
            asked.sent = len(part)
            with contextlib.suppress(ConnectionError):
                while mirror.stalls and not mirror.over.wait(0.1 if mirror.trickles else 30):
                    self.wfile.write(b"." if mirror.trickles else b"")

    return Handler


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is heard, also where the shell that started these tests in the background has shut it out."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    mirror = Mirror()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(mirror))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    mirror.address = f"http://127.0.0.1:{server.server_port}/"
    yield mirror
    mirror.over.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy in between, no pauses, and lines that a test can find words in."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(download, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(fetch.cli, "stop_on_sigterm", lambda: None)


def packed(folder: Path, name: str, inside: str = "") -> bytes:
    """A folder as a .zip or .tar.gz, its files below `inside`."""
    packed, files = io.BytesIO(), [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if name.endswith(".zip"):
        with zipfile.ZipFile(packed, "w") as archive:
            for path in files:
                archive.write(path, inside + path.relative_to(folder).as_posix())
    else:
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for path in files:
                archive.add(path, inside + path.relative_to(folder).as_posix())
    return packed.getvalue()


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """ESC-50.zip of 24 tones, packed as GitHub packs."""
    return packed(write_esc50(tmp_path_factory.mktemp("made")), "ESC-50.zip", "ESC-50-33c8ce9/")


@pytest.fixture
def esc50(tones: bytes, mirror: Mirror) -> bytes:
    """The same, on the mirror."""
    mirror.files["ESC-50.zip"] = tones
    return tones


def run(mirror: Mirror, task: str, root: Path, *options: str, checksum: str = "none") -> int:
    arguments = ["fetch", task, "--root", str(root), "--from", mirror.address, "--timeout", "0.5"]
    return probe.main([*arguments, "--checksum", checksum, *options])


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_fetched_data_set_is_readable_and_complete(
    esc50: bytes, mirror: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data" / "esc50"
    assert run(mirror, "esc10", root, checksum=sha256(esc50)) == 0
    found = catalogue.esc50(root, "esc10")
    assert (len(found), found.absent()) == (16, [])
    assert sorted(entry.name for entry in root.iterdir()) == ["audio", "meta"]
    said = capsys.readouterr().out
    assert said.index("licence: CC BY-NC 3.0") < said.index("downloading from 127.0.0.1")
    assert "24 recordings; the source says 2,000" in said
    assert f"--probes.tasks '[esc10]' --probes.root {root}" in said


def test_speech_commands_are_fetched(mirror: Mirror, tmp_path: Path) -> None:
    name = "speech_commands_v0.02.tar.gz"
    mirror.files[name] = packed(write_speech_commands(tmp_path / "made", catalogue.DIGITS), name, "./")
    assert run(mirror, "sc09", tmp_path / "sc") == 0
    found = catalogue.speech_commands(tmp_path / "sc", "sc09")
    assert (len(found), set(found.folds)) == (30, {"train", "valid", "test"})


def test_nsynth_by_split(mirror: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, root = write_nsynth(tmp_path / "made"), tmp_path / "nsynth"
    for split in ("valid", "test"):
        name = f"nsynth-{split}.jsonwav.tar.gz"
        mirror.files[name] = packed(made / f"nsynth-{split}", name, f"nsynth-{split}/")
    assert run(mirror, "nsynth", root, "--splits", "test") == 0
    assert run(mirror, "nsynth", root, "--splits", "valid,test") == 0
    assert set(catalogue.nsynth(root).folds) == {"valid", "test"}
    assert [request.path for request in mirror.requests] == [
        f"/nsynth-{split}.jsonwav.tar.gz" for split in ("test", "valid")
    ]
    assert "nsynth-test/examples.json exists" in capsys.readouterr().out


def test_hear_task_in_nested_folder_of_archive(mirror: Mirror, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "task_metadata.json").write_text(json.dumps({"task_name": "esc50"}))
    name = archives.DATASETS["hear_esc50"].archives[0].name
    mirror.files[name] = packed(made, name, "hear-2021.0.3/tasks/esc50-v2.0.0-full/")
    assert run(mirror, "hear_esc50", tmp_path / "hear") == 0
    assert (tmp_path / "hear" / "task_metadata.json").is_file()


def test_existing_data_set_is_not_downloaded_again(mirror: Mirror, esc50: bytes, tmp_path: Path) -> None:
    assert run(mirror, "esc50", tmp_path / "esc50") == 0
    assert run(mirror, "esc50", tmp_path / "esc50") == 0
    assert len(mirror.requests) == 1


@pytest.mark.parametrize("checksum", [True, False], ids=["checksum", "etag"])
def test_cut_download_resumes(checksum: bool, mirror: Mirror, esc50: bytes, tmp_path: Path) -> None:
    mirror.cuts = [1000, 2000]
    assert run(mirror, "esc50", tmp_path / "esc50", checksum=sha256(esc50) if checksum else "none") == 0
    assert [request.range for request in mirror.requests] == [None, "bytes=1000-", "bytes=3000-"]
    assert sum(request.sent for request in mirror.requests) == len(esc50)
    assert len(catalogue.esc50(tmp_path / "esc50")) == 24


def test_second_call_resumes_first_download(
    mirror: Mirror, esc50: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror.cuts = [1000, 500]
    assert run(mirror, "esc50", tmp_path / "esc50", "--tries", "2") == 1
    said = capsys.readouterr()
    assert "the connection ended after 1.0 kB" in said.out
    assert "gave up after 2 attempts" in said.err
    assert "1.5 kB are kept" in said.err
    assert run(mirror, "esc50", tmp_path / "esc50") == 0
    assert sum(request.sent for request in mirror.requests) == len(esc50)


def test_server_without_ranges_starts_over(mirror: Mirror, esc50: bytes, tmp_path: Path) -> None:
    mirror.cuts, mirror.ranges = [1000], False
    assert run(mirror, "esc50", tmp_path / "esc50", checksum=sha256(esc50)) == 0
    assert sum(request.sent for request in mirror.requests) == 1000 + len(esc50)


def test_changed_file_starts_over(mirror: Mirror, esc50: bytes, tmp_path: Path) -> None:
    mirror.cuts = [1000]
    assert run(mirror, "esc50", tmp_path / "esc50", "--tries", "1") == 1
    mirror.tag = '"2"'
    assert run(mirror, "esc50", tmp_path / "esc50", checksum=sha256(esc50)) == 0
    assert mirror.requests[1].if_range == '"1"'
    assert mirror.requests[1].sent == len(esc50)


def test_part_of_unknown_version_starts_over(mirror: Mirror, esc50: bytes, tmp_path: Path) -> None:
    mirror.cuts, mirror.tag = [1000], None
    assert run(mirror, "esc50", tmp_path / "esc50") == 0
    assert [request.range for request in mirror.requests] == [None, None]


def test_complete_part_is_used(mirror: Mirror, esc50: bytes, tmp_path: Path) -> None:
    work = tmp_path / "esc50" / fetch.WORK
    work.mkdir(parents=True)
    (work / "ESC-50.zip.part").write_bytes(esc50)
    assert run(mirror, "esc50", tmp_path / "esc50", checksum=sha256(esc50)) == 0
    assert sum(request.sent for request in mirror.requests) == 0


def test_download_without_content_length(mirror: Mirror, esc50: bytes, tmp_path: Path) -> None:
    mirror.length = False
    assert run(mirror, "esc50", tmp_path / "esc50", checksum=sha256(esc50)) == 0


def test_wrong_checksum_sets_archive_aside(
    mirror: Mirror, esc50: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "esc50"
    assert run(mirror, "esc50", root, checksum=sha256(b"another")) == 1
    said = capsys.readouterr().err
    assert f"its sha256 is {sha256(esc50)[7:]}; expected {sha256(b'another')[7:]}" in said
    assert "set aside" in said
    assert [path.name for path in root.iterdir()] == [fetch.WORK]
    assert [path.name for path in (root / fetch.WORK).iterdir()] == ["ESC-50.zip.wrong"]
    assert run(mirror, "esc50", root, checksum=sha256(esc50)) == 0


def test_published_checksum_is_verified(
    mirror: Mirror, esc50: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe.main(["fetch", "esc50", "--root", str(tmp_path / "esc50"), "--from", mirror.address]) == 1
    assert "expected 661183a6" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../../outside.wav", "/outside.wav", "a\\..\\..\\outside.wav"])
@pytest.mark.parametrize("task", ["esc50", "urbansound8k"])
def test_archive_with_path_outside_folder_is_refused(
    task: str, name: str, mirror: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = io.BytesIO()
    if task == "esc50":
        with zipfile.ZipFile(packed, "w") as zipped:
            zipped.writestr("meta/esc50.csv", "filename")
            zipped.writestr(name, "evil")
    else:
        with tarfile.open(fileobj=packed, mode="w:gz") as tarred:
            tarred.addfile(tarfile.TarInfo("metadata/UrbanSound8K.csv"))
            tarred.addfile(tarfile.TarInfo(name))
    mirror.files[archives.DATASETS[task].archives[0].name] = packed.getvalue()
    assert run(mirror, task, tmp_path / "root") == 1
    assert "would be outside its folder" in capsys.readouterr().err
    assert list(tmp_path.rglob("outside.wav")) == []
    assert [path.name for path in (tmp_path / "root").iterdir()] == [fetch.WORK]


def test_archive_with_link_is_refused(mirror: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed, link = io.BytesIO(), tarfile.TarInfo("UrbanSound8K/audio")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    with tarfile.open(fileobj=packed, mode="w:gz") as tarred:
        tarred.addfile(link)
    mirror.files["UrbanSound8K.tar.gz"] = packed.getvalue()
    assert run(mirror, "urbansound8k", tmp_path / "root") == 1
    assert "is a link or a device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"<html>", "ESC-50.zip is damaged"), (None, "ESC-50.zip holds other.txt; expected meta/esc50.csv")],
    ids=["no archive", "another archive"],
)
def test_archive_of_something_else_is_set_aside(
    data: bytes | None, words: str, mirror: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as zipped:
        zipped.writestr("other.txt", "")
    mirror.files["ESC-50.zip"] = data or other.getvalue()
    assert run(mirror, "esc50", tmp_path / "esc50") == 1
    assert words in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "esc50" / fetch.WORK).iterdir()] == ["ESC-50.zip.wrong"]


def test_missing_file_fails_at_once(mirror: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(mirror, "esc50", tmp_path / "esc50") == 1
    said = capsys.readouterr().err
    assert f"{mirror.address}ESC-50.zip: the server responds with 404 Not Found" in said
    assert "--from URL" in said
    assert len(mirror.requests) == 1


def test_server_error_is_retried(mirror: Mirror, esc50: bytes, tmp_path: Path) -> None:
    mirror.errors = [500, 503]
    assert run(mirror, "esc50", tmp_path / "esc50") == 0
    assert len(mirror.requests) == 3


def test_unreachable_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = Mirror(address=f"http://127.0.0.1:{taken.getsockname()[1]}/")
        assert run(nowhere, "esc50", tmp_path / "esc50", "--tries", "2") == 1
    assert "Connection refused; gave up after 2 attempts" in capsys.readouterr().err


@pytest.mark.parametrize("trickles", [False, True], ids=["nothing", "a byte now and then"])
def test_silent_server(
    trickles: bool, mirror: Mirror, esc50: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror.stalls, mirror.trickles, mirror.ranges, began = True, trickles, False, time.monotonic()
    assert run(mirror, "esc50", tmp_path / "esc50", "--tries", "2") == 1
    assert time.monotonic() - began < 10
    said = capsys.readouterr()
    assert ("in the last 0.5 s; attempt 2" if trickles else "no response for 0.5 s; attempt 2 of 2") in said.out
    assert "gave up after 2 attempts" in said.err


def test_archive_downloaded_by_hand(mirror: Mirror, tmp_path: Path) -> None:
    root = tmp_path / "hear"
    file = root / fetch.WORK / "hear_esc50_16k.tar.gz"
    with pytest.raises(ConfigError) as told:
        probe.main(["fetch", "hear_esc50_16k", "--root", str(root)])
    assert f"copy it to {file}" in str(told.value)
    assert "gs://hear2021-archive/tasks/" in str(told.value)
    assert not root.exists()
    made = tmp_path / "made"
    made.mkdir()
    (made / "task_metadata.json").write_text("{}")
    file.parent.mkdir(parents=True)
    file.write_bytes(packed(made, file.name, "tasks/esc50-v2.0.0-full/"))
    assert probe.main(["fetch", "hear_esc50_16k", "--root", str(root)]) == 0
    assert [path.name for path in root.iterdir()] == ["task_metadata.json"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["esc5"], ["no download for task 'esc5'; did you mean esc50?"]),
        (["factors"], ["built in"]),
        (["nsynth", "--splits", "trian"], ["'trian'", "train, valid, test"]),
        (["esc50", "--splits", "test"], ["esc50 has a single archive"]),
        (["esc50", "--from", "mirror/ESC-50.zip"], ["--from", "http:// or https://"]),
        (["nsynth", "--from", "http://127.0.0.1/nsynth.tar.gz"], ["ending in /"]),
        (["esc50", "--checksum", "sha1:12"], ["--checksum", "sha256: and 64"]),
        (["esc50", "--timeout", "0"], ["--timeout is 0"]),
        (["esc50", "--mirror", "x"], ["--mirror: unknown option"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_bad_arguments_are_refused_and_leave_nothing(arguments: list[str], parts: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        probe.main(["fetch", *arguments, "--root", str(tmp_path / "root")])
    for part in parts:
        assert part in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_folder_of_something_else_is_refused(mirror: Mirror, esc50: bytes, tmp_path: Path) -> None:
    (tmp_path / "esc50" / "audio").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"holds audio and not meta/esc50\.csv: give ESC-50 .* a folder of its own"):
        run(mirror, "esc50", tmp_path / "esc50")
    assert mirror.requests == []


@pytest.mark.parametrize("free", [1000, 890_000_000], ids=["nothing", "not enough for both"])
def test_full_disk_is_refused_before_download(
    free: int, mirror: Mirror, esc50: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: usage(free, 0, free))
    with pytest.raises(ConfigError, match=r"1\.5 GB are needed for the archive and its files, and .* are free"):
        run(mirror, "esc50", tmp_path / "esc50")
    assert mirror.requests == []
    assert not (tmp_path / "esc50").exists()


def test_lock_of_running_and_of_dead_process(mirror: Mirror, esc50: bytes, tmp_path: Path) -> None:
    root = tmp_path / "esc50"
    with fetch._locked(root / fetch.WORK), pytest.raises(ConfigError, match=f"process {os.getpid()} on .* is fetching"):
        run(mirror, "esc50", root)
    (root / fetch.WORK).mkdir(parents=True)
    (root / fetch.WORK / "lock").write_text("process 1 on a machine that lost its power")
    assert run(mirror, "esc50", root) == 0
    assert not (root / fetch.WORK).exists()


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_keeps_partial_download(
    mirror: Mirror, esc50: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`command.run` makes exit code 130 of it."""
    root, part = tmp_path / "esc50", tmp_path / "esc50" / fetch.WORK / "ESC-50.zip.part"

    def interrupt() -> None:
        deadline = time.monotonic() + 10
        while not part.is_file() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    mirror.stalls = True
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run(mirror, "esc50", root, "--timeout", "20")
    assert "partial downloads are kept; the same command resumes" in capsys.readouterr().out
    mirror.stalls = False
    assert run(mirror, "esc50", root, checksum=sha256(esc50)) == 0
    assert sum(request.sent for request in mirror.requests) == len(esc50)


def test_progress_bars_on_terminal(mirror: Mirror, esc50: bytes, tmp_path: Path) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=150)
    source, address = archives.ESC50, f"{mirror.address}ESC-50.zip"
    fetch.fetch(source, source.archives, tmp_path / "esc50", console, address, checksum=sha256(esc50))
    for what in ("ESC-50.zip ", "ESC-50.zip: sha256", "ESC-50.zip: unpacking"):
        assert what in screen.getvalue()


def test_list_without_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main(["fetch"]) == 0
    said = capsys.readouterr().out
    assert [task for task in [*archives.DATASETS, *archives.PARTS] if task not in said] == []


def test_archives_are_well_formed() -> None:
    for source in archives.DATASETS.values():
        for archive in source.archives:
            assert archive.name.endswith((".zip", ".tar.gz"))
            fetch._check_checksum(archive.checksum, [archive])
            assert archive.address is None or archive.address.startswith("https://")
            assert archive.address or "{file}" in source.by_hand
