"""When a GPU is not fit to be rented, and when it is again. Pure: each round of looks is judged with what is
remembered of the rounds before. docs/hardware.md has the rules for people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from qubixd.hardware import Gpu, GpuProcess, GpuSample, Vitals


@dataclass(frozen=True)
class Rule:
    """Rounds (seconds) in a row that put a card out, and that bring it back."""

    out: int
    back: int


RULES: Final[Mapping[str, Rule]] = {
    # A job sold onto a lost card costs more than half a minute without an offer, if it was only chance; and
    # a card that comes and goes is worse than none.
    "gpu.lost": Rule(1, 30),
    # What the driver itself has counted needs no second look; it goes with a reset only.
    "gpu.ecc": Rule(1, 30),
    "gpu.memory_failing": Rule(1, 30),
    "gpu.needs_repair": Rule(1, 30),
    # Ten minutes, in which the driver says that the card needs nothing; see `_next`.
    "gpu.xid": Rule(1, 600),
    # Heat comes with the load and goes with it: a job just ended must not look like a cure.
    "gpu.slowdown": Rule(10, 60),
    # Longer than a job's last process may take to go after its container.
    "gpu.foreign_process": Rule(5, 10),
    # Longer than a driver takes to free the memory of a big program.
    "gpu.memory_held": Rule(10, 5),
    # Facts of the machine, not of a moment.
    "gpu.procfs_disagrees": Rule(1, 5),
    "gpu.duplicate_uuid": Rule(1, 5),
}

SPARE_SHARE: Final = 1 / 32
"""Of a card's memory that a desktop or the driver may hold: 256 MiB of 8 GiB. Less than the 7 % by which a
card may fall short of its name (`all_in.LEAST_LEFT`)."""

BROKEN_XIDS: Final[Mapping[int, str]] = {
    46: "the card stopped working",
    48: "memory gave data that could not be corrected",
    54: "its power cable is not connected",
    62: "one of its controllers halted",
    64: "bad memory could not be replaced",
    79: "it fell off the bus",
    95: "a memory error may have reached any program",
    110: "a security check failed",
    119: "its system processor (GSP) does not answer",
    120: "its system processor (GSP) failed",
    140: "memory gave data that could not be recovered",
    143: "it could not be initialised",
    156: "a part of it was retired",
    158: "it ran into a fatal time-out",
}
"""Those for which NVIDIA's catalogue (https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html)
asks for a reset, a reboot or hands on the card, and which no program can cause. Left out on purpose: what
jobs cause (13, 31, 32, 43, 45, 68, 69 and the other engines' exceptions; 109, which a kernel that runs too
long causes, although the catalogue asks for a reset); 94, after which only the program is to be restarted;
63 and 92, counted by themselves; those of links between cards (74, 136, 144 to 150, 155); and 154, which only
says that `Vitals.needs` has changed. Whatever truly needs a reset shows in `needs` as well."""


@dataclass(frozen=True)
class Finding:
    """Why a card is not offered."""

    code: str
    sentence: str


@dataclass(frozen=True)
class Program:
    """Who a process is: its name, and the id of the container that it runs in, or ""."""

    name: str
    container: str


@dataclass(frozen=True)
class Round:
    """One look at everything. What a card that does not answer would have said is missing."""

    gpus: tuple[Gpu, ...]
    samples: Mapping[str, GpuSample]
    vitals: Mapping[str, Vitals]
    """By UUID, as are all others."""
    rented: frozenset[str] = frozenset()
    tenants: Mapping[str, frozenset[str]] | None = None
    """Container id -> GPUs of the job in it. None if jobs have no containers: no process is foreign then."""
    programs: Mapping[int, Program] = field(default_factory=dict)
    """Processes that still live; the others are on their way out."""
    disagreements: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Mark:
    """What is remembered of one rule and one card."""

    sentence: str
    out: bool
    against: int
    """Rounds in a row that spoke against `out`."""


Memory = Mapping[tuple[str, str], Mark]
"""(UUID, code) -> what is remembered."""


def judge(memory: Memory, seen: Round) -> Memory:
    """The memory after one more round. A card that does not answer is judged by that alone; what was known
    of it before stays."""
    after: dict[tuple[str, str], Mark] = {}
    for uuid, vitals in seen.vitals.items():
        signs = dict(_signs(uuid, vitals, seen))
        for code, rule in RULES.items():
            before = memory.get((uuid, code))
            blind = bool(vitals.lost) and code not in signs
            mark = before if blind else _next(rule, code, before, signs.get(code, ""), vitals)
            if mark is not None:
                after[uuid, code] = mark
    return after


def unfit(memory: Memory) -> dict[str, tuple[Finding, ...]]:
    """UUID of each card that is out -> why, in the order of the rules."""
    found: dict[str, tuple[Finding, ...]] = {}
    for (uuid, code), mark in memory.items():
        if mark.out:
            found[uuid] = (*found.get(uuid, ()), Finding(code, mark.sentence))
    return found


def _next(rule: Rule, code: str, before: Mark | None, sign: str, vitals: Vitals) -> Mark | None:
    if before is None or not before.out:
        count = (before.against if before else 0) + 1
        return Mark(sign, count >= rule.out, 0 if count >= rule.out else count) if sign else None
    if sign:
        return Mark(sign, True, 0)
    if code == "gpu.xid" and vitals.needs != "":
        # An error is told once; that it is mended only the driver can say. One of old (before 560) cannot:
        # the card then stays out until this program is started anew, as it is after a reset.
        return before
    count = before.against + 1
    return None if count >= rule.back else Mark(before.sentence, True, count)


# The signs of one card in one round --------------------------------------------------------------


def _signs(uuid: str, vitals: Vitals, seen: Round) -> Iterator[tuple[str, str]]:
    """(code, sentence) of every rule that speaks against the card at this moment."""
    if vitals.lost:
        yield "gpu.lost", f"the card does not answer: {vitals.lost}"
    else:
        yield from _ailments(vitals)
        sample = seen.samples.get(uuid)
        if sample is not None:
            yield from _occupied(sample, seen)
    if uuid in seen.disagreements:
        yield "gpu.procfs_disagrees", f"NVML and the kernel disagree: {seen.disagreements[uuid]}"
    if Counter(gpu.uuid for gpu in seen.gpus)[uuid] > 1:
        yield "gpu.duplicate_uuid", "two cards of this machine claim the same UUID"


def _ailments(vitals: Vitals) -> Iterator[tuple[str, str]]:
    if vitals.ecc_uncorrected:
        count = vitals.ecc_uncorrected
        sentence = f"{count} memory errors could not be corrected since the driver was loaded; reset the card"
        yield "gpu.ecc", sentence
    if vitals.rows_failed:
        yield "gpu.memory_failing", "bad memory could not be replaced; the card should be exchanged"
    elif vitals.rows_pending:
        yield "gpu.memory_failing", "bad memory will be replaced at the next reset; reset the card"
    if vitals.needs:
        yield "gpu.needs_repair", f"the driver says that the card needs {vitals.needs}"
    broken = [number for number in vitals.xids if number in BROKEN_XIDS]
    if broken:
        yield "gpu.xid", f"Xid {broken[-1]}: {BROKEN_XIDS[broken[-1]]}; reset the card and start qubixd anew"
    if "power_brake" in vitals.slowdown:
        yield "gpu.slowdown", "the hardware has cut the card's clocks: its power supply asks for it"
    elif vitals.slowdown:
        yield "gpu.slowdown", "the hardware has cut the card's clocks: it is too hot"


def _occupied(sample: GpuSample, seen: Round) -> Iterator[tuple[str, str]]:
    spare = sample.memory_total * SPARE_SHARE
    strangers = _strangers(sample, seen)
    computing = [one for one in strangers if one.computes]
    held = sum(one.bytes or 0 for one in strangers)
    if computing or held > spare:
        first = (computing or strangers)[0]
        who = f"process {first.pid} ({seen.programs[first.pid].name})"
        does = "computes on the card" if first.computes else f"draws; such programs hold {held >> 20} MiB"
        yield "gpu.foreign_process", f"{who} belongs to no job of this card and {does}"
    processes = sample.processes
    if processes is None or sample.uuid in seen.rented or any(one.bytes is None for one in processes):
        return
    left = sample.memory_used - sum(one.bytes or 0 for one in processes)
    if left > spare:
        yield "gpu.memory_held", f"{left >> 20} MiB are in use although no job and no process has them"


def _strangers(sample: GpuSample, seen: Round) -> list[GpuProcess]:
    """Processes that no job may have on this card. One that draws and holds little is a desktop's."""
    if seen.tenants is None:
        return []
    return [
        one
        for one in sample.processes or ()
        if one.pid in seen.programs
        and sample.uuid not in seen.tenants.get(seen.programs[one.pid].container, ())
    ]
