"""When a GPU leaves the offer and when it comes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qubixd.hardware import GIB, Gpu, GpuProcess, GpuSample, Vitals
from qubixd.health_rules import BROKEN_XIDS, RULES, Memory, Program, Round, judge, unfit

CARD = Gpu("GPU-0", "NVIDIA GeForce RTX 4090", 24 * GIB, "550", 12_040, "8.9", pci_bus_id="0000:01:00.0")
IDLE = GpuSample("GPU-0", 0.0, 0, 24 * GIB, 40, 20_000, ())
WELL = Round((CARD,), {"GPU-0": IDLE}, {"GPU-0": Vitals("GPU-0")}, tenants={})
OURS = "a" * 64
RENTED: dict[str, Any] = {"rented": frozenset({"GPU-0"}), "tenants": {OURS: frozenset({"GPU-0"})}}


def ails(vitals: Vitals) -> Round:
    return replace(WELL, vitals={"GPU-0": vitals})


def holds(*processes: GpuProcess, used: int | None = None, **round_: Any) -> Round:
    """A card with these processes; pid 1 is a program of the machine, pid 2 one in our job's container."""
    held = sum(one.bytes or 0 for one in processes) if used is None else used
    sample = replace(IDLE, processes=processes, memory_used=held)
    programs = {1: Program("miner", ""), 2: Program("python", OURS)}
    return replace(WELL, samples={"GPU-0": sample}, programs=programs, **round_)


def after(*rounds: Round, memory: Memory | None = None) -> Memory:
    known: Memory = memory or {}
    for one in rounds:
        known = judge(known, one)
    return known


def codes(memory: Memory) -> list[str]:
    return [finding.code for findings in unfit(memory).values() for finding in findings]


BAD = {
    "gpu.lost": ails(Vitals("GPU-0", lost="it has fallen off the bus")),
    "gpu.ecc": ails(Vitals("GPU-0", ecc_uncorrected=1)),
    "gpu.memory_failing": ails(Vitals("GPU-0", rows_pending=True)),
    "gpu.needs_repair": ails(Vitals("GPU-0", needs="a reset")),
    "gpu.xid": ails(Vitals("GPU-0", xids=(79,), needs="")),
    "gpu.slowdown": ails(Vitals("GPU-0", slowdown=frozenset({"thermal"}))),
    "gpu.foreign_process": holds(GpuProcess(1, GIB, computes=True)),
    "gpu.memory_held": holds(used=2 * GIB),
    "gpu.procfs_disagrees": replace(WELL, disagreements={"GPU-0": "the kernel knows no card there"}),
    "gpu.duplicate_uuid": replace(WELL, gpus=(CARD, CARD)),
}
MENDED = ails(Vitals("GPU-0", needs=""))


def test_a_card_that_is_well_is_fit() -> None:
    assert after(*[WELL] * 100) == {}


@pytest.mark.parametrize("code", RULES)
def test_each_rule_has_its_patience_both_ways(code: str) -> None:
    rule = RULES[code]
    almost = after(*[BAD[code]] * (rule.out - 1))
    out = judge(almost, BAD[code])
    assert (codes(almost), codes(out)) == ([], [code])
    nearly = after(*[MENDED] * (rule.back - 1), memory=out)
    assert (codes(nearly), codes(judge(nearly, MENDED))) == ([code], [])


@pytest.mark.parametrize("code", [code for code, rule in RULES.items() if rule.out > 1])
def test_one_good_round_begins_the_count_anew(code: str) -> None:
    almost = [BAD[code]] * (RULES[code].out - 1)
    assert codes(after(*almost, WELL, *almost)) == []


def test_a_relapse_begins_the_cure_anew() -> None:
    out = after(BAD["gpu.ecc"])
    cured = [WELL] * (RULES["gpu.ecc"].back - 1)
    assert codes(after(*cured, BAD["gpu.ecc"], *cured, memory=out)) == ["gpu.ecc"]


def test_a_card_that_is_lost_keeps_what_was_known_of_it() -> None:
    memory = after(BAD["gpu.ecc"], *[BAD["gpu.lost"]] * 100)
    assert codes(memory) == ["gpu.lost", "gpu.ecc"]


def test_several_reasons_stand_beside_each_other() -> None:
    memory = after(ails(Vitals("GPU-0", ecc_uncorrected=2, rows_failed=True, needs="a reset")))
    assert codes(memory) == ["gpu.ecc", "gpu.memory_failing", "gpu.needs_repair"]
    assert "2 memory errors" in unfit(memory)["GPU-0"][0].sentence
    assert "exchanged" in unfit(memory)["GPU-0"][1].sentence


# Xid ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [13, 31, 32, 43, 45, 63, 68, 69, 74, 92, 94, 109, 154])
def test_errors_that_a_program_can_cause_or_that_are_counted_elsewhere(number: int) -> None:
    assert after(ails(Vitals("GPU-0", xids=(number,)))) == {}


@pytest.mark.parametrize("number", BROKEN_XIDS)
def test_errors_that_mean_a_broken_card(number: int) -> None:
    memory = after(ails(Vitals("GPU-0", xids=(31, number, 45))))
    assert f"Xid {number}: " in unfit(memory)["GPU-0"][0].sentence


def test_a_driver_that_cannot_say_what_a_card_needs_never_clears_an_error() -> None:
    assert codes(after(BAD["gpu.xid"], *[WELL] * 2_000)) == ["gpu.xid"]


# Who is on the card ------------------------------------------------------------------------------


def foreign(seen: Round) -> list[str]:
    return codes(after(*[seen] * 20))


def test_our_jobs_processes_belong_there() -> None:
    assert foreign(holds(GpuProcess(2, 20 * GIB, computes=True), **RENTED)) == []


def test_a_job_on_a_card_that_it_did_not_rent() -> None:
    ours = GpuProcess(2, GIB, computes=True)
    assert foreign(holds(ours, tenants={OURS: frozenset({"GPU-1"})})) == ["gpu.foreign_process"]


def test_a_stranger_that_computes_is_out_however_little_it_holds() -> None:
    assert foreign(holds(GpuProcess(1, 1, computes=True))) == ["gpu.foreign_process"]
    assert foreign(holds(GpuProcess(1, None, computes=True))) == ["gpu.foreign_process"]


def test_a_stranger_on_a_rented_card() -> None:
    both = (GpuProcess(1, 300 << 20, computes=True), GpuProcess(2, GIB, computes=True))
    memory = after(*[holds(*both, **RENTED)] * 20)
    assert "process 1 (miner)" in unfit(memory)["GPU-0"][0].sentence


def test_a_desktop_may_hold_a_little() -> None:
    assert foreign(holds(GpuProcess(1, 700 << 20, computes=False))) == []
    assert foreign(holds(GpuProcess(1, 800 << 20, computes=False))) == ["gpu.foreign_process"]


def test_a_process_that_has_ended_is_nobody() -> None:
    assert foreign(holds(GpuProcess(3, GIB, computes=True))) == []


def test_without_containers_nobody_is_foreign() -> None:
    assert foreign(holds(GpuProcess(1, GIB, computes=True), tenants=None)) == []


# Memory that stays -------------------------------------------------------------------------------


def test_memory_of_a_rented_card_is_its_jobs() -> None:
    assert foreign(holds(used=20 * GIB, rented=frozenset({"GPU-0"}))) == []


def test_memory_that_a_process_has_is_not_left_over() -> None:
    assert "gpu.memory_held" not in foreign(holds(GpuProcess(1, 20 * GIB, computes=True)))


def test_where_processes_do_not_tell_their_memory_nothing_is_left_over() -> None:
    seen = holds(GpuProcess(1, None, computes=False), used=20 * GIB)
    assert foreign(seen) == []


def test_the_driver_may_keep_a_little() -> None:
    assert foreign(holds(used=700 << 20)) == []


# The page ----------------------------------------------------------------------------------------


def rows() -> list[list[str]]:
    """The cells of every table line of the page."""
    page = Path(__file__).parents[2] / "docs" / "hardware.md"
    lines = (line for line in page.read_text().splitlines() if line.startswith("| "))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_has_every_rule_with_its_numbers() -> None:
    told = {row[0].strip("`"): (row[2], row[3]) for row in rows() if row[0].startswith("`gpu.")}
    assert told == {code: (str(rule.out), str(rule.back)) for code, rule in RULES.items()}


def test_the_page_has_every_error_that_counts() -> None:
    assert {int(row[0]): row[1] for row in rows() if row[0].isdigit()} == BROKEN_XIDS
