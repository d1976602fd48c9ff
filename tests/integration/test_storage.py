"""A sweep whose folder is copied to object storage: moto's server, on loopback, in this process."""

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from doppel_ray import hear
from doppel_ray.core.object_storage import S3Path
from doppel_ray.runs import reader
from doppel_ray.runs.lease import LEASE_FILE
from tests.integration.processes import eventually
from tests.integration.test_sweep import PATIENCE, Sweep
from tests.s3 import Server

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]


EPOCHS = 6
ONE_TRIAL = {
    "search.pairs.delta": "{grid: [0.05]}",
    "train.epochs": EPOCHS,
    "train.pairs_per_epoch": 512,
    "train.precision": "fp32",
    # Training is chaotic: see tests/integration/test_trial.py.
    "optim": "{kind: sgd, lr: 3e-4, reference_batch: null}",
    # Rows come with their checkpoints, so that there is training left to do after the first.
    "probes.every": "last",
    "tune.metric": "loss",
    "tune.mode": "min",
}


@pytest.fixture
def new_sweep(tmp_path: Path) -> Iterator[Callable[[str], Sweep]]:
    """Makes sweeps in folders of their own."""
    made: list[Sweep] = []

    def make(name: str) -> Sweep:
        (tmp_path / name).mkdir()
        made.append(Sweep(tmp_path / name))
        return made[-1]

    yield make
    for sweep in made:
        sweep.end()


def test_resume_from_the_copy(new_sweep: Callable[[str], Sweep], s3: Server) -> None:
    """Ended by SIGTERM after its first row, its folder deleted; and one left in peace; two minutes."""
    peaceful, first, second = map(new_sweep, ("peaceful", "first", "second"))
    output, _ = peaceful.start_tiny(**ONE_TRIAL).communicate(timeout=PATIENCE)
    assert peaceful.leaves_nothing_behind(), output

    storage = S3Path.parse(s3.url("sweeps/tiny"))
    process = first.start_tiny(**ONE_TRIAL, run__storage=storage, train__keep="{best: 2, last: 1}")
    assert eventually(lambda: process.poll() is not None or any(first.rows().values()), PATIENCE)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, output
    assert f"{storage / 'mine'} has a complete copy" in output
    assert first.leaves_nothing_behind()
    (done,) = first.rows().values()
    assert len(done) < EPOCHS, "it had something left to do"
    shutil.rmtree(first.folder)

    second.run_to_end("--resume", storage / "mine")
    run = reader.read(second.run)
    (trial,) = run.trials
    assert trial.status == "finished"
    assert [row["epoch"] for row in trial.rows] == [*range(1, EPOCHS + 1)], "every epoch once"
    (left,) = reader.read(peaceful.run).trials
    losses = [row["loss"] for row in trial.rows]
    assert losses == pytest.approx([row["loss"] for row in left.rows], abs=1e-4)

    kept = {row["epoch"] for row in trial.rows if trial.checkpoint(row)}
    assert kept == {1 + losses.index(loss) for loss in sorted(losses)[:2]} | {EPOCHS}
    hear.load_model(trial.checkpoint(trial.best(run.metric, run.mode) or {}) or "")
    there, here = storage / "mine", {str(f.relative_to(second.run)) for f in second.run.rglob("*") if f.is_file()}
    missing = here - there.entries().keys()
    assert all(name.startswith("tune/") or Path(name).name.startswith(("lock", "worker.lock", ".")) for name in missing)
    assert there.entries().keys() - here == {LEASE_FILE}, "what was not kept here is not kept there"
    assert json.loads(there.read("trials.json") or b"") == second.trials()
    secret = s3.secret.encode()
    assert not [file for file in second.run.rglob("*") if file.is_file() and secret in file.read_bytes()]
