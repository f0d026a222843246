"""NVIDIA's cards through the real binding, against a stub of NVML's library: what is found, sampled and told
of their health, and how a session outlives cards and drivers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qubixd.hardware import GIB, Gpu, GpuProcess, GpuSample, Pcie, Vitals
from qubixd.hardware.nvidia import REOPEN_EVERY, RETRY_EVERY, SLOW_EVERY
from tests.support.nvml import CARD, DATA_CENTER_CARD, Child, Machine, build_stub

SLICED = {"mig": 1, "slices": 7} | {
    f"slice_{place}_{key}": value
    for place in (0, 2)
    for key, value in {
        "uuid": f"MIG-{place}",
        "model": "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "total": 4_864 << 20,
        "used": place << 20,
        "instance": 7 + place,
    }.items()
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("nvml")
    build_stub(directory)
    return directory


class Bench:
    """A machine and a session on it, opened."""

    def __init__(self, library: Path, state: Path, *cards: dict[str, Any]) -> None:
        self.machine = Machine(state, *cards)
        self.child = Child(library, state)
        self.child.ask("open")

    def gpus(self) -> tuple[Gpu, ...]:
        found: tuple[Gpu, ...] = self.child.ask("gpus")
        return found

    def round(self, count: int = 1) -> tuple[dict[str, GpuSample], dict[str, Vitals]]:
        """The last of so many rounds, by UUID."""
        samples, vitals = self.child.ask(f"round {count}")
        return {one.uuid: one for one in samples}, {one.uuid: one for one in vitals}


@pytest.fixture
def bench(library: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Parametrised by its cards; two plain ones else."""
    cards = getattr(request, "param", (CARD, CARD))
    made = Bench(library, tmp_path / "state", *cards)
    yield made
    made.child.close()


def of(*cards: dict[str, Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("bench", [cards], indirect=True)


# What is there -----------------------------------------------------------------------------------


def test_a_card_and_its_link(bench: Bench) -> None:
    first = Gpu(
        uuid="GPU-0",
        model="NVIDIA GeForce RTX 4090",
        vram_bytes=24 * GIB,
        driver_version="550.54.14",
        cuda=12_040,
        compute_capability="8.9",
        vendor="nvidia",
        pci_bus_id="0000:01:00.0",
        pcie=Pcie(generation_now=1, generation_most=4, width_now=8, width_most=16),
        mig_parent="",
    )
    assert bench.gpus()[0] == first
    assert [gpu.pci_bus_id for gpu in bench.gpus()] == ["0000:01:00.0", "0000:02:00.0"]
    assert bench.child.ask("detect") == bench.gpus()


def test_two_cards_that_claim_one_uuid_are_both_told(bench: Bench) -> None:
    bench.machine.card(1, uuid="GPU-0")
    assert [gpu.uuid for gpu in bench.child.ask("detect")] == ["GPU-0", "GPU-0"]


def test_a_card_lost_before_the_start_is_left_out(bench: Bench) -> None:
    bench.machine.card(0, lost=1)
    assert [gpu.uuid for gpu in bench.child.ask("detect")] == ["GPU-1"]


@of(DATA_CENTER_CARD | SLICED, DATA_CENTER_CARD)
def test_a_card_that_is_cut_is_told_as_its_slices(bench: Bench) -> None:
    first, second, whole = bench.gpus()
    assert (first.uuid, second.uuid, whole.uuid) == ("MIG-0", "MIG-2", "GPU-1")
    assert (first.mig_parent, whole.mig_parent) == ("GPU-0", "")
    assert (first.vram_bytes, whole.vram_bytes) == (4_864 << 20, 40 * GIB)
    assert first.model.endswith("MIG 1g.5gb") and first.pci_bus_id == "0000:01:00.0"
    assert first.compute_capability == "8.0"


# Samples -----------------------------------------------------------------------------------------


def test_a_sample(bench: Bench) -> None:
    bench.machine.card(0, use=37, used=2 * GIB, celsius=61, milliwatts=215_500, process_0=f"77 {GIB} compute")
    samples, _ = bench.round()
    assert samples["GPU-0"] == GpuSample(
        "GPU-0", 0.37, 2 * GIB, 24 * GIB, 61, 215_500, (GpuProcess(77, GIB, computes=True),)
    )
    assert samples["GPU-1"].processes == () and samples["GPU-1"].use_ratio == 0.0


def test_a_driver_of_old_counts_what_it_keeps_for_itself_as_used(bench: Bench) -> None:
    bench.machine.set(old=1)
    assert bench.round()[0]["GPU-0"].memory_used == CARD["reserved"]


def test_what_draws_and_computes_counts_as_drawing(bench: Bench) -> None:
    bench.machine.card(0, process_0="5 100 both", process_1="6 200 compute", process_2="7 300 graphics")
    held = bench.round()[0]["GPU-0"].processes
    assert held == (GpuProcess(5, 100, False), GpuProcess(6, 200, True), GpuProcess(7, 300, False))


def test_what_a_card_does_not_support_is_none(bench: Bench) -> None:
    bench.machine.forget(0, "use", "celsius", "milliwatts", "pcie_now")
    sample = bench.round()[0]["GPU-0"]
    assert (sample.use_ratio, sample.temperature_c, sample.power_mw) == (None, None, None)
    assert bench.child.ask("detect")[0].pcie is None


@of(DATA_CENTER_CARD | SLICED)
def test_a_slice_has_its_own_memory_and_its_cards_heat(bench: Bench) -> None:
    bench.machine.card(0, slice_2_process_0="9 500 compute", celsius=55)
    samples, _ = bench.round()
    assert samples.keys() == {"MIG-0", "MIG-2"}
    assert (samples["MIG-2"].memory_used, samples["MIG-2"].temperature_c) == (2 << 20, 55)
    assert samples["MIG-2"].processes == (GpuProcess(9, 500, True),) and samples["MIG-0"].processes == ()
    assert samples["MIG-0"].use_ratio is None


# Health ------------------------------------------------------------------------------------------


def test_a_card_that_is_well_tells_nothing(bench: Bench) -> None:
    assert bench.round()[1] == {uuid: Vitals(uuid) for uuid in ("GPU-0", "GPU-1")}


@of(DATA_CENTER_CARD, DATA_CENTER_CARD)
@pytest.mark.parametrize(
    ("told", "vitals"),
    [
        ({"ecc": 3}, Vitals("GPU-0", ecc_uncorrected=3, needs="")),
        ({"rows_pending": 1}, Vitals("GPU-0", rows_pending=True, needs="")),
        ({"rows_failed": 1}, Vitals("GPU-0", rows_failed=True, needs="")),
        ({"reasons": 0x40 | 0x04}, Vitals("GPU-0", slowdown=frozenset({"thermal"}), needs="")),
        ({"reasons": 0x80}, Vitals("GPU-0", slowdown=frozenset({"power_brake"}), needs="")),
        ({"reasons": 0x08 | 0x20}, Vitals("GPU-0", needs="")),
        ({"needs": 1}, Vitals("GPU-0", needs="a reset")),
        ({"needs": 3}, Vitals("GPU-0", needs="")),
        ({"needs": 99}, Vitals("GPU-0", needs="recovery action 99")),
    ],
)
def test_what_ails_a_card(bench: Bench, told: dict[str, int], vitals: Vitals) -> None:
    bench.machine.card(0, **told)
    seen = bench.round(SLOW_EVERY)[1]
    assert seen == {"GPU-0": vitals, "GPU-1": Vitals("GPU-1", needs="")}


def test_before_ampere_whole_pages_are_retired(bench: Bench) -> None:
    bench.machine.card(1, pages_pending=1)
    assert bench.round(SLOW_EVERY)[1]["GPU-1"].rows_pending


def test_the_drivers_errors_are_told_once_and_of_their_card(bench: Bench) -> None:
    bench.machine.xid(1, 79)
    bench.machine.xid(1, 48)
    first, second = bench.round()[1], bench.round()[1]
    assert (first["GPU-0"].xids, first["GPU-1"].xids) == ((), (79, 48))
    assert second["GPU-1"].xids == ()


@of(DATA_CENTER_CARD | SLICED)
def test_an_error_concerns_its_slice_or_the_whole_card(bench: Bench) -> None:
    bench.machine.xid(0, 94, instance=9)
    bench.machine.xid(0, 79)
    told = bench.round()[1]
    assert (told["MIG-0"].xids, told["MIG-2"].xids) == ((79,), (94, 79))


def test_a_card_that_reports_no_errors_is_not_listened_to(bench: Bench) -> None:
    bench.machine.card(0, events=0)
    for word in ("close", "open"):
        bench.child.ask(word)
    bench.machine.xid(0, 79)
    assert bench.round()[1]["GPU-0"].xids == ()


# A long life -------------------------------------------------------------------------------------


def test_one_card_falls_off_the_bus_and_the_other_goes_on(bench: Bench) -> None:
    bench.machine.card(0, lost=1)
    samples, vitals = bench.round()
    assert samples.keys() == {"GPU-1"}
    assert vitals["GPU-0"].lost == "it has fallen off the bus" and vitals["GPU-1"].lost == ""
    samples, vitals = bench.round(REOPEN_EVERY)
    assert samples.keys() == {"GPU-1"} and "does not list it" in vitals["GPU-0"].lost
    bench.machine.card(0, lost=0)
    samples, vitals = bench.round(REOPEN_EVERY)
    assert samples.keys() == {"GPU-0", "GPU-1"} and vitals["GPU-0"] == Vitals("GPU-0")


def test_a_driver_that_is_restarted_is_let_go_and_found_again(bench: Bench) -> None:
    bench.round()
    bench.machine.set(driver="down")
    samples, vitals = bench.round(2)
    assert samples == {} and {one.lost for one in vitals.values()} == {"NVIDIA's driver is not loaded"}
    assert bench.child.ask("opened") == 0  # nobody could unload it else
    bench.machine.restart_driver()
    assert bench.round(RETRY_EVERY)[0].keys() == {"GPU-0", "GPU-1"}
    bench.machine.xid(0, 62)
    assert bench.round()[1]["GPU-0"].xids == (62,)


def test_a_driver_restarted_between_two_rounds(bench: Bench) -> None:
    bench.round()
    bench.machine.restart_driver()
    assert "has gone" in bench.round()[1]["GPU-0"].lost
    assert bench.round(RETRY_EVERY)[0].keys() == {"GPU-0", "GPU-1"}
    assert bench.child.ask("opened") == 1


def test_a_driver_that_was_replaced_says_what_to_do(bench: Bench) -> None:
    bench.machine.set(driver="mismatch")
    assert "start this program anew" in bench.round()[1]["GPU-0"].lost


def test_a_session_that_is_closed_has_no_card(bench: Bench) -> None:
    bench.child.ask("close")
    samples, vitals = bench.round()
    assert samples == {} and {one.lost for one in vitals.values()} == {"NVML is closed"}


def test_cards_that_appear_later_are_sampled_too(bench: Bench) -> None:
    bench.machine.card(0, lost=1)
    bench.machine.set(cards=3)
    bench.machine.card(2, uuid="GPU-2", bus=3, **CARD)
    assert bench.round(REOPEN_EVERY + 1)[0].keys() == {"GPU-1", "GPU-2"}


def test_without_a_driver_there_is_nothing(library: Path, tmp_path: Path) -> None:
    child = Child(library, tmp_path / "no state")
    for word in ("open", "sample", "vitals", "gpus"):
        assert not child.ask(word)
    child.close()
