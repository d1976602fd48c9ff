"""What many tests share: recordings, real and made up."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

# One thread for each process: several tests run at once, and threads of small operations mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from doppel_ray.cluster import ray_env

os.environ.update(ray_env.variables())  # before Ray is imported

import hypothesis
import pytest

from tests.recordings import write_esc50
from tests.s3 import Server, serving

# The arithmetic under test is quick, but the machine may be busy: no deadline. The same examples every time.
hypothesis.settings.register_profile("doppel_ray", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("doppel_ray")

# A shell may start the tests with SIGINT ignored (`pytest &`), which they and their processes would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).parent.parent

# Compiling a synthesizer takes a minute or more for each shape of sound; tests of the compiled path ask for it by name.
os.environ.setdefault("DOPPEL_RAY_COMPILE", "0")


@pytest.fixture(scope="session")
def esc10() -> Path:
    """ESC-10 in ESC-50's layout: real recordings, which are not part of the repository."""
    folder = Path(os.environ.get("DOPPEL_RAY_ESC10", REPOSITORY.parent / "shared" / "data" / "esc10"))
    if not (folder / "meta" / "esc50.csv").is_file():
        pytest.skip(f"no recordings at {folder}; set DOPPEL_RAY_ESC10 to a folder in ESC-50's layout")
    return folder


@pytest.fixture
def esc50_folder(tmp_path: Path) -> Path:
    """A folder in ESC-50's layout: 2 folds of 3 classes of 4 short tones."""
    return write_esc50(tmp_path / "recordings")


@pytest.fixture
def s3() -> Iterator[Server]:
    """An S3 server on loopback with one bucket, and credentials in the environment."""
    with serving() as server:
        yield server
