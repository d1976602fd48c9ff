"""The energy of a machine, from counters that processors and GPUs keep themselves.

Processors: Linux's powercap tree, which Intel's and AMD's RAPL fill (`intel-rapl:0/energy_uj`, microjoules, beginning
again at 0 after `max_energy_range_uj`); most systems let only root read it. GPUs: NVML's total energy, if `pynvml` is
installed. Both count the whole machine, whatever runs on it: side by side, each trial's energy holds the others' too.
"""

import importlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
EVERY = 10.0
"""Seconds between readings: a processor's counter may begin again within minutes, and must not do so twice unseen."""


Source = tuple[Callable[[], int], float, int | None]
"""What reads a counter, the joules of one count, and after how many it begins again (None: it does not)."""


class Meter:
    """Counts the joules of this machine.

    Args:
        powercap: Linux's powercap tree.
        gpus: whether to read NVIDIA GPUs too.
    """

    def __init__(self, powercap: Path = POWERCAP, gpus: bool = True) -> None:
        self.counters = [_Counter(*found) for found in (*_processors(powercap), *(_gpus() if gpus else ()))]
        self.joules = 0.0
        self.read = time.monotonic()

    def update(self) -> None:
        """Read the counters, if it has been a while: to be called more often than they begin again."""
        if self.counters and time.monotonic() - self.read >= EVERY:
            self._read()

    def take(self) -> float | None:
        """Joules since the last call, or since the start; None if nothing can be read here."""
        self._read()
        joules, self.joules = self.joules, 0.0
        return joules if self.counters else None

    def _read(self) -> None:
        self.read = time.monotonic()
        self.joules += sum(counter.since() for counter in self.counters)


class _Counter:
    """One counter.

    Args:
        value: reads it.
        unit: joules of one count.
        span: counts after which it begins again; None: it does not.
    """

    def __init__(self, value: Callable[[], int], unit: float, span: int | None) -> None:
        self.value, self.unit, self.span = value, unit, span
        self.last = value()

    def since(self) -> float:
        """Joules since it was last read; none if it has gone, or was set back."""
        try:
            now = self.value()
        except Exception:  # a device may go away; whatever NVML or the kernel says then, training goes on
            return 0.0
        counts, self.last = now - self.last, now
        if counts < 0:
            counts += self.span or -counts
        return counts * self.unit


def _processors(powercap: Path) -> list[Source]:
    """A counter for each package, and each one's memory, which its package leaves out; others are parts of these."""
    found: list[Source] = []
    for domain in sorted(powercap.glob("intel-rapl:*")):
        try:
            name = (domain / "name").read_text().strip()
            if not name.startswith(("package", "dram")):
                continue
            value, span = partial(_whole, domain / "energy_uj"), _whole(domain / "max_energy_range_uj")
            value()
        except (OSError, ValueError):
            continue
        found.append((value, 1e-6, span))
    return found


def _whole(file: Path) -> int:
    return int(file.read_text())


def _gpus() -> list[Source]:
    """A counter of millijoules for each NVIDIA GPU, where NVML can be asked."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
        values = [partial(nvml.nvmlDeviceGetTotalEnergyConsumption, handle) for handle in handles]
        for value in values:
            value()
    except Exception:  # not installed, no driver, or GPUs that do not count: NVML has an error class for each
        return []
    return [(value, 1e-3, None) for value in values]
