"""Compile the rendering of one chunk of sounds, and keep the machine code on disk for all processes of a user.

The compiler is TorchInductor, and there is one shape to compile. The first process that needs a program locks its
file, compiles and saves it; others wait, and later ones load it in about a second.

A program runs on one thread, and lets other Python threads run meanwhile: `Synth.render` gives each thread chunks of
its own. The compiler's own threads would meet at a barrier after each of some sixty loops, which costs most of the time
as soon as another process wants a core.
"""

import contextlib
import fcntl
import functools
import gc
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import torch
from torch import Tensor

from doppel_ray.core.errors import ConfigError
from doppel_ray.core.files import cache_folder
from doppel_ray.core.process import ensure_user_name
from doppel_ray.synth import maths

log = logging.getLogger(__name__)

Program = Callable[..., Tensor]

OPTIONS: dict[str, Any] = {
    "assert_indirect_indexing": False,  # lookup tables are ours
    "cpp.threads": 1,
    "cpp.enable_floating_point_contract_flag": "fast",  # multiply and add in one instruction
    "cpp.vec_isa_ok": True,
    "cpp_cache_precompile_headers": False,  # there is one file to compile
    "compile_threads": 1,
}


PROGRAM_BYTES = 2**20
"""Room that the cache must have, in bytes."""

spent = 0.0
"""Seconds that this process has spent compiling."""


def has_compiler() -> bool:
    """Return whether there is a C++ compiler, which programs for CPUs need."""
    return any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "clang++", "c++"))


def program(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], identity: str, wanted: bool | Literal["auto"]
) -> Program | None:
    """Return `function` compiled for inputs like `inputs`, or None to run it uncompiled.

    If it cannot be compiled, `wanted` "auto" (which `DOPPEL_RAY_COMPILE=0` turns to False) logs a warning, and True
    raises `ConfigError`. `identity` names what the function depends on besides this package's source.
    """
    if wanted is False or (wanted == "auto" and os.environ.get("DOPPEL_RAY_COMPILE") == "0"):
        return None
    try:
        ensure_user_name()
        if not inputs[0].is_cuda and not has_compiler():
            raise RuntimeError("there is no C++ compiler (g++ or clang++) on this machine")
        return _cached(function, inputs, identity)
    except Exception as error:
        reason = f"the synthesizer cannot be compiled: {str(error).strip().splitlines()[0]}"
        if wanted is True:
            raise ConfigError(f"compile is True, but {reason}") from error
        _warn_once(f"{reason}. Rendering runs uncompiled, about 20 times slower")
        return None


@functools.cache
def _warn_once(message: str) -> None:
    log.warning(message)


def _cached(function: Callable[..., Tensor], inputs: Sequence[Tensor], identity: str) -> Program:
    shapes = [(tuple(x.shape), str(x.dtype), x.device.type) for x in inputs]
    sources = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("[!_]*.py"))]
    device = torch.cuda.get_device_name(inputs[0].device) if inputs[0].is_cuda else _processor()
    # Users who share a cache never run each other's programs.
    described = repr((identity, shapes, torch.__version__, device, OPTIONS, os.getuid())).encode()
    key = hashlib.sha256(b"\0".join([described, *sources])).hexdigest()[:24]

    folder = _usable(cache_folder())
    saved = folder / key
    with _locked(folder / f"{key}.lock"), _settings(inputs[0].device):
        if saved.is_dir():
            try:
                return _load(saved)
            except Exception as error:  # a damaged cache is no reason to fail
                log.warning("compiling again, since %s could not be loaded: %s", saved, error)
                shutil.rmtree(saved, ignore_errors=True)
        started = time.monotonic()
        log.info("compiling the synthesizer; it is kept in %s for the next time", saved)
        with _uncollected():
            result = _compile(function, inputs, saved)
        global spent
        spent += time.monotonic() - started
        log.info("compiled in %.0f s", time.monotonic() - started)
        return result


def _usable(folder: Path) -> Path:
    """Return the cache folder, or a temporary one of this user if it cannot be written to or its disk is full.

    Raises:
        OSError: the temporary folder cannot be used either.
    """
    try:
        return _checked(folder)
    except OSError as error:
        other = Path(tempfile.gettempdir(), f"doppel_ray-{os.getuid()}")
        _warn_once(f"the cache {folder} cannot be used ({error.strerror}); programs are kept in {other} instead")
    _checked(other)
    if other.stat().st_uid != os.getuid():  # its owner could put a program there
        raise PermissionError(f"{other} belongs to another user")
    return other


def _checked(folder: Path) -> Path:
    """Make a folder for this user alone, and write the size of a program to it.

    Raises:
        OSError: it cannot be made, or takes no more.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(PROGRAM_BYTES))
    return folder


def _compile(function: Callable[..., Tensor], inputs: Sequence[Tensor], saved: Path) -> Program:
    from torch._inductor import standalone_compile
    from torch._inductor.lowering import lowerings, register_lowering
    from torch.fx.experimental.proxy_tensor import make_fx

    # Tracing replaces a missing CUDA by a stub, and autograd crashes (torch 2.11) if it looks for devices for the first
    # time after that. So it looks now.
    torch.zeros((), requires_grad=True).backward()

    materialize = torch.ops.doppel_ray.materialize.default
    if materialize not in lowerings:

        def keep(signal: Any) -> Any:
            signal.realize()
            return signal

        register_lowering(materialize, type_promotion_kind=None)(keep)

    with maths.tracing():
        graph = make_fx(function)(*inputs)
    # A program is renamed to its final place when it is complete, so that no process loads half of one.
    scratch = Path(tempfile.mkdtemp(prefix="compiling-", dir=saved.parent))
    try:
        with mock.patch.dict(os.environ, {"TORCHINDUCTOR_CACHE_DIR": str(scratch / "work")}):
            artifact = standalone_compile(
                graph, list(inputs), dynamic_shapes="from_example_inputs", options={"config_patches": OPTIONS}
            )
            artifact.save(path=str(scratch / "program"), format="unpacked")
        _load(scratch / "program")(*inputs)  # builds what loading needs, once
        try:
            (scratch / "program").rename(saved)
        except OSError:
            if not saved.is_dir():  # else another process has saved the same program
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return _load(saved)


def _load(saved: Path) -> Program:
    from torch._inductor import CompiledArtifact

    artifact = CompiledArtifact.load(path=str(saved), format="unpacked")

    def program(*inputs: Tensor) -> Tensor:
        result = artifact(*inputs)
        return result if isinstance(result, Tensor) else result[0]

    return program


@contextlib.contextmanager
def _settings(device: torch.device) -> Iterator[None]:
    """Apply the compiler's options, and two patches for which it has none.

    The vector instructions are those that torch has detected: the compiler would build five small libraries and start a
    process for each to detect them, which takes 20 seconds. And the call into a program releases Python's lock.
    """
    from torch._inductor import codecache, config, cpu_vec_isa

    unlocked = "{{ Py_BEGIN_ALLOW_THREADS kernel({}); Py_END_ALLOW_THREADS }} Py_RETURN_NONE;"
    kinds = {"AVX512": cpu_vec_isa.VecAVX512, "AVX2": cpu_vec_isa.VecAVX2}
    with config.patch(OPTIONS), contextlib.ExitStack() as stack:
        kind = kinds.get(torch.backends.cpu.get_cpu_capability())
        if device.type == "cpu" and kind is not None:
            trusted = type(kind.__name__, (kind,), {"__bool__": lambda self: True, "__hash__": kind.__hash__})
            stack.enter_context(mock.patch.object(cpu_vec_isa, "valid_vec_isa_list", return_value=[trusted()]))
        bindings = codecache.CppPythonBindingsCodeCache
        stack.enter_context(mock.patch.object(bindings, "call_entry_function", unlocked))
        yield


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Pause garbage collection, which takes a tenth of the compiler's time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w", encoding="utf-8") as file:
        with contextlib.suppress(OSError):  # without locks two processes may compile
            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file gives the lock back, as does the end of the process


def _processor() -> str:
    """Return the processor's model and its vector instructions, for which a program is built.

    Machines of one model may differ in them, for example virtual ones; `ATEN_CPU_CAPABILITY` limits them.
    """
    model = ""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line for line in file if line.startswith(("model name", "Model"))), "").strip()
    return f"{model} {torch.backends.cpu.get_cpu_capability()}"
