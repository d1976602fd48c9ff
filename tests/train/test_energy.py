"""The energy meter, on made-up counters; this needs neither RAPL nor a GPU."""

import sys
import types
from pathlib import Path

import pytest

from doppel_ray.train.energy import Meter


def domain(powercap: Path, number: str, name: str, microjoules: int, span: int = 1_000_000_000) -> Path:
    folder = powercap / f"intel-rapl:{number}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{span}\n")
    return folder / "energy_uj"


def test_packages_and_their_memory_are_counted_and_their_parts_are_not_counted_twice(tmp_path: Path) -> None:
    counted = [domain(tmp_path, "0", "package-0", 5), domain(tmp_path, "1", "package-1", 7)]
    counted.append(domain(tmp_path, "0:1", "dram", 0))
    others = [domain(tmp_path, "0:0", "core", 0), domain(tmp_path, "2", "psys", 0)]
    meter = Meter(tmp_path, gpus=False)
    for counter in (*counted, *others):
        counter.write_text("3000005")
    assert meter.take() == pytest.approx(3.0 + 2.999998 + 3.000005)
    assert meter.take() == 0.0, "since the last time"


def test_a_counter_that_begins_again_goes_on(tmp_path: Path) -> None:
    counter = domain(tmp_path, "0", "package-0", 9_000_000, span=10_000_000)
    meter = Meter(tmp_path, gpus=False)
    counter.write_text("500000")
    assert meter.take() == pytest.approx(1.5)


@pytest.mark.parametrize("text", [None, "", "much"])
def test_what_cannot_be_read_is_not_counted(tmp_path: Path, text: str | None) -> None:
    counter = domain(tmp_path, "0", "package-0", 0)
    counter.unlink() if text is None else counter.write_text(text)
    assert Meter(tmp_path, gpus=False).take() is None
    assert Meter(tmp_path / "nowhere", gpus=False).take() is None


def test_a_counter_that_goes_away_ends_nothing(tmp_path: Path) -> None:
    counter = domain(tmp_path, "0", "package-0", 0)
    meter = Meter(tmp_path, gpus=False)
    counter.unlink()
    assert meter.take() == 0.0


def test_gpus_are_counted_where_nvml_can_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    millijoules = {0: 1000, 1: 0}
    nvml = types.ModuleType("pynvml")
    vars(nvml).update(
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: millijoules[handle],
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    meter = Meter(tmp_path)
    millijoules |= {0: 3000, 1: 500}
    assert meter.take() == pytest.approx(2.5)
