"""The energy of a machine, from counters of its processors and GPUs.

Processors: Linux's powercap tree, which Intel's and AMD's RAPL fill (`intel-rapl:0/energy_uj`, microjoules, wrapping to
0 after `max_energy_range_uj`); most systems let only root read it. GPUs: NVML's total energy, if `pynvml` is installed.
Both count the whole machine: the energy of a trial includes that of whatever runs beside it.
"""

import importlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
READ_SECONDS = 10.0
"""Seconds between readings: a processor's counter may wrap within minutes, and a second wrap would be missed."""


class EnergyMeter:
    """Counts the joules of this machine.

    Args:
        powercap: Linux's powercap tree.
        gpus: whether to read NVIDIA GPUs too.
    """

    def __init__(self, powercap: Path = POWERCAP, gpus: bool = True) -> None:
        self.counters = [*_processors(powercap), *(_gpus() if gpus else ())]
        self.joules = 0.0
        self.last_read = time.monotonic()

    def update(self) -> None:
        """Read the counters if `READ_SECONDS` have passed; call this more often than they wrap."""
        if self.counters and time.monotonic() - self.last_read >= READ_SECONDS:
            self._read()

    def take(self) -> float | None:
        """Return the joules since the last call, or since the start; None if there is no counter."""
        self._read()
        joules, self.joules = self.joules, 0.0
        return joules if self.counters else None

    def _read(self) -> None:
        self.last_read = time.monotonic()
        self.joules += sum(counter.since() for counter in self.counters)


class _Counter:
    """One counter.

    Args:
        read: returns its count.
        unit: joules of one count.
        span: count at which it wraps to 0; None: it does not.
    """

    def __init__(self, read: Callable[[], int], unit: float, span: int | None = None) -> None:
        self.read, self.unit, self.span = read, unit, span
        self.last = read()

    def since(self) -> float:
        """Return the joules since the last reading; 0 if the counter is gone or was set back."""
        try:
            now = self.read()
        except Exception:  # a device may disappear; whatever NVML or the kernel raises then, training continues
            return 0.0
        counts, self.last = now - self.last, now
        if counts < 0:
            counts += self.span or -counts
        return counts * self.unit


def _processors(powercap: Path) -> list[_Counter]:
    """Return a counter for each package and for its memory, which the package leaves out; other domains are parts."""
    found: list[_Counter] = []
    for domain in sorted(powercap.glob("intel-rapl:*")):
        try:
            if (domain / "name").read_text(encoding="utf-8").strip().startswith(("package", "dram")):
                span = _read_int(domain / "max_energy_range_uj")
                found.append(_Counter(partial(_read_int, domain / "energy_uj"), 1e-6, span))
        except (OSError, ValueError):
            continue
    return found


def _read_int(file: Path) -> int:
    return int(file.read_text(encoding="utf-8"))


def _gpus() -> list[_Counter]:
    """Return a counter of millijoules for each NVIDIA GPU that NVML can read."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
        return [_Counter(partial(nvml.nvmlDeviceGetTotalEnergyConsumption, handle), 1e-3) for handle in handles]
    except Exception:  # not installed, no driver, or GPUs that do not count: NVML has an error class for each
        return []
