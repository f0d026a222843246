"""AMD's cards through a stub of their binding, in a process of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qubixd.hardware import GIB, Gpu, GpuProcess, GpuSample, Pcie, Vitals
from qubixd.hardware.amd import RETRY_EVERY, SLOW_EVERY
from tests.support.nvml import ROOT, Child

MI300X: dict[str, Any] = {
    "device_uuid": "3bff74a1-0000-1000-80d6-111111111111",
    "device_bdf": "0000:C1:00.0",
    "asic_info": {"market_name": "AMD Instinct MI300X", "target_graphics_version": "gfx942"},
    "driver_info": {"driver_name": "amdgpu", "driver_version": "6.12.12"},
    "pcie_info": {
        "pcie_static": {"max_pcie_width": 16, "max_pcie_speed": 32, "pcie_interface_version": 5},
        "pcie_metric": {"pcie_width": 16, "pcie_speed": 16},
    },
    "vram_usage": {"vram_total": 196_288, "vram_used": 283},
    "activity": {"gfx_activity": 42, "umc_activity": 1, "mm_activity": "N/A"},
    "power_info": {"socket_power": 141, "current_socket_power": 141, "average_socket_power": "N/A"},
    "temp_HOTSPOT": 51,
    "process_list": [
        {"name": "python", "pid": 900, "mem": GIB, "memory_usage": {"vram_mem": GIB, "cpu_mem": 5}},
        {"name": "amd-smi", "pid": 901, "mem": 0, "memory_usage": {"vram_mem": 0, "cpu_mem": 5}},
    ],
    "total_ecc_count": {"correctable_count": 7, "uncorrectable_count": 0, "deferred_count": 0},
    "bad_page_info": [],
    "violation_status": {"active_hbm_thrm": 0, "active_socket_thrm": 0, "active_vr_thrm": "N/A"},
}
UUID = str(MI300X["device_uuid"])
OLD: dict[str, Any] = {
    "device_uuid": "00ff1586-0000-1000-8000-000000000000",
    "asic_info": {"market_name": "Navi 23 [Radeon RX 6600]"},
    "vram_usage": {"vram_total": 8_192, "vram_used": 100},
    "power_info": {"average_socket_power": 100},
    "temp_EDGE": 40,
}


class Bench:
    """A machine whose amdsmi answers as `cards` say."""

    def __init__(self, folder: Path) -> None:
        shutil.copy(ROOT / "tests/support/amdsmi_stub/amdsmi.py", folder)
        self.state = folder / "state"
        self.set(MI300X, OLD)
        self.child = Child(folder, self.state)

    def set(self, *cards: dict[str, Any], up: bool = True) -> None:
        new = self.state.with_suffix(".new")
        new.write_text(json.dumps({"up": up, "cards": cards}))
        new.replace(self.state)

    def round(self, count: int = 1) -> tuple[dict[str, GpuSample], dict[str, Vitals]]:
        samples, vitals = self.child.ask(f"round {count}")
        return {one.uuid: one for one in samples}, {one.uuid: one for one in vitals}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    made.child.ask("open")
    yield made
    made.child.close()


def test_what_a_card_is(bench: Bench) -> None:
    told, old = bench.child.ask("detect")
    assert told == Gpu(
        uuid=UUID,
        model="AMD Instinct MI300X",
        vram_bytes=196_288 << 20,
        driver_version="6.12.12",
        cuda=0,
        compute_capability="gfx942",
        vendor="amd",
        pci_bus_id="0000:c1:00.0",
        pcie=Pcie(generation_now=4, generation_most=5, width_now=16, width_most=16),
        mig_parent="",
    )
    assert (old.driver_version, old.pcie, old.pci_bus_id, old.compute_capability) == ("", None, "", "")


def test_a_sample(bench: Bench) -> None:
    samples, vitals = bench.round()
    process = GpuProcess(900, GIB, computes=True)
    assert samples[UUID] == GpuSample(UUID, 0.42, 283 << 20, 196_288 << 20, 51, 141_000, (process,))
    assert vitals[UUID] == Vitals(UUID)


def test_what_an_old_card_does_not_tell(bench: Bench) -> None:
    uuid = str(OLD["device_uuid"])
    samples, vitals = bench.round()
    assert samples[uuid] == GpuSample(uuid, None, 100 << 20, 8_192 << 20, 40, 100_000, None)
    assert vitals[uuid] == Vitals(uuid)


@pytest.mark.parametrize(
    ("told", "vitals"),
    [
        ({"total_ecc_count": {"uncorrectable_count": 2}}, Vitals(UUID, ecc_uncorrected=2)),
        ({"bad_page_info": [{"status": 0}, {"status": 1}]}, Vitals(UUID, rows_pending=True)),
        ({"bad_page_info": [{"status": 2}]}, Vitals(UUID, rows_failed=True)),
        ({"bad_page_info": "No bad pages found."}, Vitals(UUID)),
        ({"violation_status": {"active_hbm_thrm": 1}}, Vitals(UUID, slowdown=frozenset({"thermal"}))),
        ({"violation_status": {"active_ppt_pwr": 1}}, Vitals(UUID)),
    ],
)
def test_what_ails_a_card(bench: Bench, told: dict[str, Any], vitals: Vitals) -> None:
    bench.set(MI300X | told, OLD)
    assert bench.round(SLOW_EVERY + 1)[1][UUID] == vitals


def test_a_card_that_no_longer_answers_and_comes_back(bench: Bench) -> None:
    bench.set({key: value for key, value in MI300X.items() if key != "vram_usage"}, OLD)
    samples, vitals = bench.round()
    assert UUID not in samples and "not supported" in vitals[UUID].lost
    bench.set(MI300X, OLD, up=False)
    assert "the driver is not loaded" in bench.round(RETRY_EVERY)[1][UUID].lost
    bench.set(MI300X, OLD)
    samples, vitals = bench.round(RETRY_EVERY)
    assert UUID in samples and vitals[UUID].lost == ""


def test_a_card_that_tells_no_numbers_is_left_out(bench: Bench) -> None:
    bench.set(MI300X | {"vram_usage": {"vram_total": "N/A", "vram_used": "N/A"}}, OLD, {})
    assert "N/A" in bench.round()[1][UUID].lost
    assert [gpu.uuid for gpu in bench.child.ask("detect")] == [OLD["device_uuid"]]


def test_a_binding_that_cannot_be_imported_means_no_card(tmp_path: Path) -> None:
    (tmp_path / "amdsmi.py").write_text("raise RuntimeError('libamd_smi.so is missing')\n")
    child = Child(tmp_path, tmp_path / "no state")
    assert child.ask("detect") == ()
    child.close()
