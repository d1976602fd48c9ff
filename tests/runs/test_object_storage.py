"""Object storage on moto's server: S3 paths, and the copy of a run's folder."""

import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from doppel_ray.cluster import preflight
from doppel_ray.config.experiment import Experiment, read_experiment
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.object_storage import S3Path
from doppel_ray.report.__main__ import main as report
from doppel_ray.runs import folder as run_folder
from doppel_ray.runs import lease
from doppel_ray.runs.fetch import fetch
from doppel_ray.runs.lease import Lease
from doppel_ray.runs.mirror import Mirror
from tests.made_runs import make_run, row
from tests.s3 import Server

CHECKPOINT = "trials/000/checkpoints/epoch_0001/model.safetensors"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder, small, with one checkpoint."""
    folder = make_run(tmp_path / "runs" / "mine", {"000": ({"pairs.delta": 0.1}, "interrupted", [row(1, 0.6)])})
    (folder / CHECKPOINT).write_bytes(bytes(100))
    return folder


def files(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def copied(folder: Path, place: S3Path) -> list[str]:
    """Bring a copy up to date; return the lines logged."""
    lines: list[str] = []
    Mirror(folder, place, lines.append).finish()
    return lines


# --- S3 paths -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("gs://bucket/runs", "expected s3://BUCKET/PREFIX"),
        ("s3:///runs", "expected s3://BUCKET/PREFIX"),
        ("s3://key:hush@bucket/runs", "credentials do not belong in a URL"),
        (
            "s3://bucket/runs?access_key=redirect_ray_output&secret_key=redirect_ray_output",
            "credentials do not belong in a URL",
        ),
        ("s3://bucket/runs?zone=1", "unknown option zone; expected endpoint_override, region, scheme"),
    ],
)
def test_bad_url_is_refused_without_its_secret(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"run\.storage") as refused:
        read_experiment(None, {"run.storage": url})
    assert said in str(refused.value)
    assert "hush" not in str(refused.value), "the secret is not repeated"


def test_check_leaves_nothing_behind(s3: Server) -> None:
    place = S3Path.parse(s3.url("sweeps/tiny"))
    place.check()
    assert place.entries() == {}
    assert S3Path.parse(str(place)) == place
    assert str(S3Path.parse("s3://bucket/mine").parent) == "s3://bucket"
    assert (place / "mine").parent == place
    assert place.read("nothing") is None


def test_endpoint_from_the_environment(s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{s3.address}")
    S3Path.parse("s3://bucket/sweeps").check()


def test_unusable_storage_is_refused_with_a_remedy(s3: Server) -> None:
    wrong = s3.url("sweeps", bucket="another")
    with pytest.raises(ConfigError, match=r"s3://another/sweeps.*the bucket does not exist: create it, or"):
        preflight.check_storage(read_experiment(None, {"run.storage": wrong}), None)
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:1.* the server does not answer: check endpoint_override"):
        S3Path.parse("s3://bucket/runs?endpoint_override=127.0.0.1:1&scheme=http").check()


def test_silent_server_times_out(s3: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(ConfigError, match="no answer within 1 s"):
            S3Path.parse(f"s3://bucket/runs?endpoint_override=127.0.0.1:{port}&scheme=http").check(limit=1.0)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("InvalidAccessKeyId", "the server does not know the access key: set AWS_PROFILE"),
        ("SignatureDoesNotMatch", "the secret key is wrong: set AWS_PROFILE"),
        ("AccessDenied", "access is denied: .* PutObject"),
        ("ExpiredToken", "have expired"),
        ("PermanentRedirect", r"add \?region="),
    ],
)
def test_refusal_of_a_server_has_a_remedy(code: str, said: str) -> None:
    """A server that answers nothing but this refusal."""
    body = f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()
    head = b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    client.recv(65536)
                    client.sendall(head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)

        threading.Thread(target=refuse, daemon=True).start()
        place = S3Path.parse(f"s3://bucket/runs?endpoint_override=127.0.0.1:{server.getsockname()[1]}&scheme=http")
        with pytest.raises(ConfigError, match=f"s3://bucket/runs.* cannot be used: .*{said}"):
            place.check()
        server.shutdown(socket.SHUT_RDWR)


# --- a run's folder ---------------------------------------------------------------------------------------------------


def test_unwritable_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"run\.dir: .*file/runs cannot be written to: Not a directory"):
        preflight.check_folder(read_experiment(None, {"run.dir": str(tmp_path / "file" / "runs")}), None)


def test_checkpoints_larger_than_the_disk_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ResNet-18 has 11 million weights: a checkpoint takes 0.13 GB, that of a trial of 200 epochs 27."""
    usage = preflight.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda folder: usage._replace(free=10**9))
    wanted = {"run.dir": str(tmp_path), "encoder.kind": "resnet18", "search.pairs.delta": "{grid: [0.1, 0.2, 0.3]}"}
    with pytest.raises(ConfigError, match=r"trial need about 27\.\d+ GB \(200 .* has 1\.00 GB left; .*--train\.keep"):
        preflight.check_folder(read_experiment(None, wanted), None)
    preflight.check_folder(read_experiment(None, wanted | {"train.keep": "{best: 2, last: 2}"}), None)
    assert "each of 3 trials need about 0.55 GB (4 of" in caplog.text
    caplog.clear()
    preflight.check_folder(read_experiment(None, wanted | {"train.keep": "1"}), None)
    assert not caplog.text


def test_fetch_of_a_copy_restores_every_file_but_local_ones(run: Path, s3: Server, tmp_path: Path) -> None:
    place = S3Path.parse(s3.url("sweeps")) / "mine"
    for name in ("lock", "tune/state.json", "trials.partial"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("of one process")
    assert copied(run, place) == [f"{place} has a complete copy"]
    folder = fetch(place, tmp_path / "there", print)
    assert folder == tmp_path / "there" / "mine"
    assert files(folder) == files(run) - {"lock", "tune/state.json", "trials.partial"}
    for file in files(folder):
        assert (folder / file).read_bytes() == (run / file).read_bytes()
    run_folder.relocate(folder, place)
    now = run_folder.recorded_experiment(folder).run
    assert (now.dir, now.storage) == (tmp_path / "there", s3.url("sweeps"))


def test_fetch_ignores_names_outside_the_folder(run: Path, s3: Server, tmp_path: Path) -> None:
    place = S3Path.parse(s3.url("sweeps")) / "mine"
    copied(run, place)
    s3.put("sweeps/mine/trials/../../../evil", b"written by someone else")
    folder = fetch(place, tmp_path / "there", print)
    assert files(folder) == files(run)
    assert not list(tmp_path.rglob("evil"))


def test_push_copies_changes_and_deletions_only(run: Path, s3: Server) -> None:
    place = S3Path.parse(s3.url("sweeps")) / "mine"
    made = Mirror(run, place, print)
    made.push()
    before = place.entries()
    place.write("trials.json", b"marked")  # to see whether it is written again
    (run / CHECKPOINT).unlink()
    with (run / "trials" / "000" / "rows.jsonl").open("a") as file:
        file.write(json.dumps(row(2, 0.7)) + "\n")
    made.finish()
    assert set(place.entries()) == set(before) - {CHECKPOINT}
    assert place.read("trials/000/rows.jsonl") == (run / "trials" / "000" / "rows.jsonl").read_bytes()
    assert place.read("trials.json") == b"marked"


def test_copy_writes_checkpoints_before_files_that_name_them(
    run: Path, s3: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = S3Path.parse(s3.url("sweeps")) / "mine"
    written: list[str] = []
    write = S3Path.write

    def watched(self: S3Path, name: str, content: bytes) -> None:
        written.append(name)
        write(self, name, content)

    monkeypatch.setattr(S3Path, "write", watched)
    copied(run, place)
    assert written.index(CHECKPOINT) < min(written.index(name) for name in ("trials/000/rows.jsonl", "run.json"))


def test_failed_copy_is_logged_once_and_retried(run: Path, s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    place, said = S3Path.parse(s3.url("sweeps")) / "mine", list[str]()
    made = Mirror(run, place, said.append)

    def broken(self: S3Path, name: str, content: bytes) -> None:
        raise OSError("AWS Error NETWORK_CONNECTION during PutObject operation")

    with monkeypatch.context() as patch:
        patch.setattr(S3Path, "write", broken)
        assert not made._copy()
        assert not made._copy()
    assert len(said) == 1
    assert "does not answer" in said[0]
    assert made.finish()
    assert said[1:] == [f"{place} is up to date again", f"{place} has a complete copy"]
    assert CHECKPOINT in place.entries()


def test_lease_of_a_living_and_of_a_dead_process(run: Path, s3: Server, tmp_path: Path) -> None:
    place = S3Path.parse(s3.url("sweeps")) / "mine"
    copied(run, place)
    other = Lease("another-host", 7, "/runs/mine", Lease.here(run).seen)
    other.write(place)
    with pytest.raises(ConfigError, match="in use by process 7 on another-host"):
        fetch(place, tmp_path / "there", print)
    replace(other, seen=other.seen - 2 * lease.LEASE_SECONDS).write(place)
    with pytest.raises(
        ConfigError, match=r"continued by .* is out of date. Resume from the newer one with --resume 's3://"
    ):
        Mirror(run, place, print)
    folder = fetch(place, tmp_path / "there", print)
    copied(folder, place)
    with pytest.raises(ConfigError, match="is out of date"):
        Mirror(run, place, print)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    replace(Lease.here(tmp_path), process=dead.pid).write(place)
    lease.check_free(place, folder, fetched=True)


def test_fetch_refuses_missing_runs_and_existing_folders(run: Path, s3: Server, tmp_path: Path) -> None:
    place = S3Path.parse(s3.url("sweeps"))
    with pytest.raises(ConfigError, match=r"s3://bucket/sweeps/none.* holds no run"):
        fetch(place / "none", tmp_path / "there", print)
    copied(run, place / "mine")
    with pytest.raises(ConfigError, match=r"runs/mine exists: resume it with --resume .*runs/mine"):
        fetch(place / "mine", run.parent, print)
    wanted = {"run.dir": str(tmp_path / "new"), "run.name": "mine", "run.storage": str(place)}
    with pytest.raises(ConfigError, match=r"s3://bucket/sweeps/mine.* already holds a run"):
        run_folder.create(read_experiment(None, wanted), None, {})
    assert not (tmp_path / "new").exists()


def test_report_of_a_copy_without_weights(
    run: Path, s3: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = S3Path.parse(s3.url("sweeps")) / "mine"
    (run / CHECKPOINT).with_name("checkpoint.json").write_text("{}")
    copied(run, place)
    with pytest.raises(ConfigError, match="--out PATH"):
        report([str(place)])
    assert report([str(place), "--out", str(tmp_path / "report")]) == 0
    assert (tmp_path / "report" / "report.html").is_file()
    assert "mine/trials/000/checkpoints/epoch_0001" in capsys.readouterr().out.replace("\n", "")


def test_no_file_has_the_secret(run: Path, s3: Server) -> None:
    place = S3Path.parse(s3.url("sweeps"))
    copied(run, place / "mine")
    told = json.dumps(Experiment.model_validate({"run": {"storage": str(place)}}).plain())
    for content in (told.encode(), *((place / "mine").read(name) or b"" for name in (place / "mine").entries())):
        assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in content
