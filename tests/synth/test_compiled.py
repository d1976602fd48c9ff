"""Compiled rendering equals eager rendering; programs are kept, and a missing compiler is logged."""

import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from doppel_ray.core.errors import ConfigError
from doppel_ray.synth import Synth, compiled
from tests.conftest import REPOSITORY

RATES = {"sample_rate": 8000, "duration": 0.25, "control_rate": 480}


@pytest.mark.slow
def test_compiled_equals_eager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute, nearly all of it compiling, once."""
    if not compiled.has_compiler():
        pytest.skip("there is no C++ compiler here")
    monkeypatch.setenv("DOPPEL_RAY_CACHE", str(tmp_path))
    eager = Synth.create("voice", **RATES, compile=False).pairs(0, range(40), 0.25)
    synth = Synth.create("voice", **RATES, compile=True)
    whole = synth.pairs(0, range(40), 0.25)
    assert (whole - eager).abs().max() < 1e-2

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        parts = torch.cat([synth.pairs(0, part, 0.25) for part in (range(7), range(7, 40))], dim=1)
    finally:
        torch.set_num_threads(threads)
    assert (whole - parts).abs().max() < 1e-4

    torch.ones(2, requires_grad=True).sum().backward()  # a process that has compiled can train: this crashed

    monkeypatch.setattr(compiled, "_compile", None)  # the next one finds it on disk
    assert torch.equal(Synth.create("voice", **RATES, compile=True).pairs(0, range(40), 0.25), whole)


def test_render_without_a_compiler(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("DOPPEL_RAY_COMPILE", raising=False)
    monkeypatch.setattr(compiled, "has_compiler", lambda: False)
    compiled._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert Synth.create("voice", **RATES).pairs(0, range(2), 0.1).shape == (2, 2, 2000)
    assert len(caplog.records) == 1
    assert "no C++ compiler" in caplog.text
    with pytest.raises(ConfigError, match="compile is True"):
        Synth.create("voice", **RATES, compile=True).pairs(0, range(2), 0.1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: the GPU path is not tested here")
def test_render_on_gpu() -> None:
    synth = Synth.create("voice", **RATES, compile=False)
    theta, indices = synth.sample(0, range(8)), torch.arange(8)
    cpu = synth.render(theta, indices=indices)
    gpu = synth.render(theta.cuda(), indices=indices).cpu()
    assert torch.equal(synth.sample(0, indices.cuda()).cpu(), theta)
    assert (cpu - gpu).abs().max() < 1e-2


KEY = """
from doppel_ray.synth import compiled
print(compiled._processor())
"""


@pytest.mark.slow
def test_processor_names_vector_instructions() -> None:
    """A cache shared with a machine of the same model name, but without AVX-512, holds a program for each."""
    names = {
        subprocess.run(
            [sys.executable, "-c", KEY],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "ATEN_CPU_CAPABILITY": capability},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for capability in ("default", "avx2")
    }
    assert len(names) == 2


@pytest.mark.parametrize("fault", ["a file", "below a file"])
def test_cache_that_cannot_be_used(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs go to a temporary folder of the user's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    cache = tmp_path / "cache"
    cache.write_text("")
    cache = cache / "below" if fault == "below a file" else cache
    used = compiled._usable(cache)
    assert used == tmp_path / "temporary" / f"doppel_ray-{os.getuid()}"
    assert used.stat().st_mode & 0o777 == 0o700
    assert compiled._usable(tmp_path / "good") == tmp_path / "good"


def test_temporary_cache_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner could leave a program there that this user would run."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    with pytest.raises(PermissionError, match="belongs to another user"):
        compiled._usable(Path("/dev/null"))
