"""A sweep whose folder is copied to object storage: moto's server, on loopback, in this process."""

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from doppel_ray import mirror
from doppel_ray.storage import Place
from tests.integration.processes import eventually
from tests.integration.test_sweep import PATIENCE, Sweep, assert_whole
from tests.s3 import Server

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def sweep(tmp_path: Path, s3: Server) -> Iterator[Sweep]:
    made = Sweep(tmp_path / "here")
    made.folder.mkdir()
    yield made
    made.end()


def test_a_sweep_goes_on_from_its_copy_in_another_folder_as_if_it_had_never_stopped(
    sweep: Sweep, tmp_path: Path, s3: Server
) -> None:
    """Ended by SIGTERM in its second trial, and its folder deleted; beside it a sweep left in peace; four minutes."""
    peaceful = Sweep(tmp_path / "peaceful")
    peaceful.folder.mkdir()
    output, _ = peaceful.start_tiny().communicate(timeout=PATIENCE)
    assert peaceful.leaves_nothing_behind(), output

    storage = Place.parse(s3.url("sweeps/tiny"))
    process = sweep.start_tiny(run__storage=storage, train__keep="{best: 1, last: 1}")

    def second_trial_is_on() -> bool:
        return process.poll() is not None or "running" in [trial["status"] for trial in sweep.trials()[1:]]

    assert eventually(second_trial_is_on, PATIENCE)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, output
    assert f"{storage / 'mine'} has all of it" in output
    assert sweep.leaves_nothing_behind()
    shutil.rmtree(sweep.folder)

    elsewhere = Sweep(tmp_path / "there")
    elsewhere.folder.mkdir()
    elsewhere.go_on("--resume", storage / "mine")
    assert_whole(elsewhere)
    for moved, left in zip(elsewhere.metrics(), peaceful.metrics(), strict=True):
        assert moved == pytest.approx(left, rel=1e-4)
    about = json.loads((elsewhere.run / "run.json").read_text())
    assert about["experiment"]["run"]["dir"] == "runs"

    def local(folder: Path) -> set[str]:
        return set(mirror._stamps(folder))

    assert set((storage / "mine").entries()) == local(elsewhere.run) | {mirror.HOLDER}
    assert json.loads((storage / "mine").read("trials.json") or b"") == elsewhere.trials()
    secret = s3.secret.encode()
    assert not [file for file in elsewhere.run.rglob("*") if file.is_file() and secret in file.read_bytes()]
