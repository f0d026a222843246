"""The watch over the cards, in a process of its own with the real NVML binding and a stub of its library."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qubixd.hardware import GIB, Gpu
from qubixd.hardware.procfs import disagreements
from qubixd.health import programs
from qubixd.health_rules import Program
from tests.support.nvml import CARD, Child, Machine, build_stub

INFORMATION = """Model: \t\t {model}
IRQ:   \t\t 77
GPU UUID: \t {uuid}
Video BIOS: \t 95.02.3c.40.b0
Bus Type: \t PCIe
Bus Location: \t 0000:{bus:02x}:00.0
Device Minor: \t 0
GPU Excluded:\t No
"""
OURS, THEIRS = "a1" * 32, "b2" * 32


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("nvml")
    build_stub(directory)
    return directory


class Bench:
    """A machine with two cards, its kernel's list of them, its processes and its leases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machine = Machine(folder / "state", CARD, CARD)
        self.expected: list[str] = []
        self.jobs()
        for index in (0, 1):
            self.kernel(index + 1, f"GPU-{index}")

    def kernel(self, bus: int, uuid: str, model: str = str(CARD["model"])) -> None:
        folder = self.folder / "driver" / "gpus" / f"0000:{bus:02x}:00.0"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "information").write_text(INFORMATION.format(model=model, uuid=uuid, bus=bus))

    def process(self, pid: int, name: str, group: str) -> None:
        folder = self.folder / "proc" / str(pid)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "comm").write_text(f"{name}\n")
        (folder / "cgroup").write_text(f"0::{group}\n")

    def jobs(self, **tenants: list[str]) -> None:
        rented = [uuid for uuids in tenants.values() for uuid in uuids]
        new = self.folder / "jobs.new"
        told = {"rented": rented, "tenants": tenants, "expected": self.expected}
        new.write_text(json.dumps(told))
        new.replace(self.folder / "jobs")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def start(library: Path, bench: Bench) -> Iterator[Callable[[], Child]]:
    """Starts the watch; its first word is then still to be heard."""
    running: list[Child] = []

    def started() -> Child:
        running.append(Child(library, bench.machine.path, str(bench.folder)))
        return running[-1]

    yield started
    for child in running:
        child.close()


def hear(child: Child) -> dict[str, list[str]]:
    """UUID -> codes, after the next change."""
    told: dict[str, Any] = child.hear()
    return {uuid: [finding.code for finding in findings] for uuid, findings in told.items()}


def test_the_first_round_is_judged_before_anything_is_offered(
    bench: Bench, start: Callable[[], Child]
) -> None:
    bench.machine.card(1, used=GIB // 8)
    bench.machine.card(0, needs=1)
    child = start()
    assert hear(child) == {"GPU-0": ["gpu.needs_repair"]}
    assert child.hear() == {"GPU-0": 0, "GPU-1": GIB // 8}


def test_a_card_goes_and_comes_back(bench: Bench, start: Callable[[], Child]) -> None:
    child = start()
    child.hear()
    bench.machine.card(0, lost=1)
    assert hear(child) == {"GPU-0": ["gpu.lost"]}
    bench.machine.card(0, lost=0)
    assert hear(child) == {}


def test_a_driver_that_hangs_costs_every_card_and_is_waited_for(
    bench: Bench, start: Callable[[], Child]
) -> None:
    child = start()
    child.hear()
    bench.machine.set(driver="silent")
    told = child.hear()
    assert told.keys() == {"GPU-0", "GPU-1"}
    assert "has not answered for 2 s" in told["GPU-0"][0].sentence
    bench.machine.set(driver="up")
    assert hear(child) == {}


def test_a_driver_that_hangs_does_not_keep_the_program_from_ending(
    bench: Bench, start: Callable[[], Child]
) -> None:
    child = start()
    child.hear()
    bench.machine.set(driver="silent")
    child.hear()  # the fixture closes the child and asks that it ends well


def test_an_error_of_the_driver(bench: Bench, start: Callable[[], Child]) -> None:
    child = start()
    child.hear()
    bench.machine.xid(1, 31)
    bench.machine.xid(1, 62)
    assert hear(child) == {"GPU-1": ["gpu.xid"]}


@pytest.mark.parametrize("group", [f"/system.slice/docker-{OURS}.scope", f"/docker/{OURS}/inner"])
def test_processes_are_told_apart_by_their_container(
    bench: Bench, start: Callable[[], Child], group: str
) -> None:
    bench.process(71, "python", group)
    bench.process(72, "miner", f"/docker/{THEIRS}")
    bench.jobs(**{OURS: ["GPU-0"]})
    bench.machine.card(0, used=2 * GIB, process_0=f"71 {2 * GIB} compute")
    child = start()
    child.hear()
    bench.machine.card(1, used=GIB, process_0=f"72 {GIB} compute")
    told = child.hear()
    assert told.keys() == {"GPU-1"}
    assert told["GPU-1"][0].sentence.startswith("process 72 (miner) belongs to no job of this card")
    bench.jobs(**{OURS: ["GPU-0"], THEIRS: ["GPU-1"]})  # found out although nothing else has changed
    assert hear(child) == {}


def test_memory_that_stays_after_a_job(bench: Bench, start: Callable[[], Child]) -> None:
    bench.jobs(**{OURS: ["GPU-0"]})
    bench.machine.card(0, used=20 * GIB)
    child = start()
    child.hear()
    bench.jobs()
    assert hear(child) == {"GPU-0": ["gpu.memory_held"]}
    bench.machine.card(0, used=0)
    assert hear(child) == {}


def test_the_kernel_lists_another_card(bench: Bench, start: Callable[[], Child]) -> None:
    bench.kernel(2, "GPU-other")
    child = start()
    assert hear(child) == {"GPU-1": ["gpu.procfs_disagrees"]}
    child.hear()


def test_two_cards_claim_one_uuid(bench: Bench, start: Callable[[], Child]) -> None:
    bench.machine.card(1, uuid="GPU-0")
    child = start()
    assert "gpu.duplicate_uuid" in hear(child)["GPU-0"]
    child.hear()


def test_without_cards_the_watch_is_over_at_once(bench: Bench, start: Callable[[], Child]) -> None:
    bench.machine.set(cards=0)
    assert start().hear() == {}


def test_cards_that_went_before_the_watch_began(bench: Bench, start: Callable[[], Child]) -> None:
    bench.expected = ["GPU-0", "GPU-1"]
    bench.jobs()
    bench.machine.set(driver="down")
    child = start()
    assert hear(child) == {"GPU-0": ["gpu.lost"], "GPU-1": ["gpu.lost"]}
    assert child.hear() == {}  # only now it says that it has begun
    bench.machine.restart_driver()
    assert hear(child) == {}


# What is read of /proc ---------------------------------------------------------------------------


def gpu(**changes: Any) -> Gpu:
    told: dict[str, Any] = {
        "uuid": "GPU-0",
        "model": str(CARD["model"]),
        "vram_bytes": 24 * GIB,
        "driver_version": "550",
        "cuda": 12_040,
        "compute_capability": "8.9",
        "pci_bus_id": "0000:01:00.0",
    }
    return Gpu(**told | changes)


def differs(bench: Bench, one: Gpu) -> str:
    return disagreements([one], bench.folder / "driver").get(one.uuid, "")


def test_kernel_and_nvml_agree(bench: Bench, tmp_path: Path) -> None:
    assert differs(bench, gpu()) == ""
    assert differs(bench, gpu(uuid="MIG-5", mig_parent="GPU-0", model=f"{CARD['model']} MIG 1g.5gb")) == ""
    assert differs(bench, gpu(vendor="amd", pci_bus_id="0000:09:00.0")) == ""
    assert disagreements([gpu()], tmp_path / "no driver") == {}


def test_kernel_and_nvml_disagree(bench: Bench) -> None:
    assert "knows no card at 0000:07:00.0" in differs(bench, gpu(pci_bus_id="0000:07:00.0"))
    assert "is GPU-0" in differs(bench, gpu(uuid="GPU-9"))
    assert "is GPU-0" in differs(bench, gpu(uuid="MIG-5", mig_parent="GPU-9"))
    assert "is a NVIDIA GeForce RTX 4090" in differs(bench, gpu(model="NVIDIA H100 PCIe"))


def test_what_the_kernel_does_not_know_yet_disagrees_with_nothing(bench: Bench) -> None:
    bench.kernel(1, "GPU-????????-????-????-????-????????????", model="GeForce RTX 4090")
    assert differs(bench, gpu()) == ""
    (bench.folder / "driver/gpus/0000:01:00.0/information").write_bytes(b"\xff\x00 no such form\n")
    assert "knows no card" in differs(bench, gpu())


def test_programs_and_their_containers(bench: Bench) -> None:
    bench.process(5, "Xorg", "/user.slice/user-1000.slice")
    bench.process(6, "python", f"/system.slice/docker-{OURS}.scope")
    found = programs([5, 6, 7, 6], bench.folder / "proc")
    assert found == {5: Program("Xorg", ""), 6: Program("python", OURS)}
    bench.process(6, "python", f"/kubepods/pod1/{THEIRS}/docker/{OURS}")
    assert programs([6], bench.folder / "proc")[6].container == OURS
