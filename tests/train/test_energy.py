"""The energy meter, on made-up counters; no RAPL or GPU is needed."""

import sys
import types
from pathlib import Path

import pytest

from doppel_ray.train.energy import EnergyMeter


def domain(powercap: Path, number: str, name: str, microjoules: int, span: int = 1_000_000_000) -> Path:
    folder = powercap / f"intel-rapl:{number}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{span}\n")
    return folder / "energy_uj"


def test_packages_and_memory_are_counted_once(tmp_path: Path) -> None:
    counted = [domain(tmp_path, "0", "package-0", 5), domain(tmp_path, "1", "package-1", 7)]
    counted.append(domain(tmp_path, "0:1", "dram", 0))
    others = [domain(tmp_path, "0:0", "core", 0), domain(tmp_path, "2", "psys", 0)]
    meter = EnergyMeter(tmp_path, gpus=False)
    for counter in (*counted, *others):
        counter.write_text("3000005")
    assert meter.take() == pytest.approx(3.0 + 2.999998 + 3.000005)
    assert meter.take() == 0.0, "since the last call"


def test_counter_wraps(tmp_path: Path) -> None:
    counter = domain(tmp_path, "0", "package-0", 9_000_000, span=10_000_000)
    meter = EnergyMeter(tmp_path, gpus=False)
    counter.write_text("500000")
    assert meter.take() == pytest.approx(1.5)


@pytest.mark.parametrize("text", [None, "", "much"])
def test_unreadable_counter(tmp_path: Path, text: str | None) -> None:
    counter = domain(tmp_path, "0", "package-0", 0)
    counter.unlink() if text is None else counter.write_text(text)
    assert EnergyMeter(tmp_path, gpus=False).take() is None
    assert EnergyMeter(tmp_path / "nowhere", gpus=False).take() is None


def test_counter_disappears(tmp_path: Path) -> None:
    counter = domain(tmp_path, "0", "package-0", 0)
    meter = EnergyMeter(tmp_path, gpus=False)
    counter.unlink()
    assert meter.take() == 0.0


def test_gpus_through_nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    millijoules = {0: 1000, 1: 0}
    nvml = types.ModuleType("pynvml")
    vars(nvml).update(
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: millijoules[handle],
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    meter = EnergyMeter(tmp_path)
    millijoules |= {0: 3000, 1: 500}
    assert meter.take() == pytest.approx(2.5)
