"""Machines are asked again at random while their jobs run, and what follows from each answer."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from ledger.store import inline, open_store
from protocol import lease_model as m
from protocol.errors import PeerUnreachable
from protocol.lease_state import Lease, Phase
from protocol.units import LeaseId, UnixMs
from qubixd.leases import Leases
from qubixd.proof.rechallenge import LOOK_S, MEAN_S, PATIENCE, Rechallenges
from qubixd.proof.verify import NO_ANSWER, TOO_FEW, TOO_SLOW, WRONG, Proof
from tests.support.lease_plan import make_terms
from tests.support.lease_play import running_caller, running_provider
from tests.support.world_jobs import now_ms
from tests.unit.test_leases import Hands

Clock = trio.testing.MockClock
TERMS = make_terms(proof=True, max_seconds=10_000_000)


class Machine:
    """Answers the light proofs with what it is given, then with the last of it for ever."""

    def __init__(self, *codes: str) -> None:
        self.codes, self.asked = list(codes), 0

    async def __call__(self, lease: Lease) -> Proof:
        await trio.sleep(1)
        self.asked += 1
        code = self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]
        if code == "gone":
            raise PeerUnreachable("nobody there")
        return Proof(not code, code, f"because {code}")


@asynccontextmanager
async def asking(
    root: Path, machine: Machine, lease: Lease, chance: Callable[[], float] = lambda: 0.0
) -> AsyncIterator[tuple[Leases, Rechallenges]]:
    async with open_store(root / "ledger.sqlite", inline) as store, trio.open_nursery() as nursery:
        leases = Leases(store, now_ms)
        await nursery.start(leases.run, Hands())
        await leases.add(lease, (), m.ReceiveAccepted(now_ms()))
        again = Rechallenges(leases, machine, now_ms, chance)
        await nursery.start(again.run)
        yield leases, again
        nursery.cancel_scope.cancel()


def running(**changes: object) -> Lease:
    lease = replace(running_caller(), lease_id=LeaseId(os.urandom(32)), proved=True, timer_at=UnixMs(0))
    return replace(lease, terms=TERMS, **changes)  # type: ignore[arg-type]  # fields of a lease by name


async def outcome(root: Path, machine: Machine, seconds: float) -> Lease:
    lease = running()
    async with asking(root, machine, lease) as (leases, _):
        await trio.sleep(seconds)
        return await leases.get(lease.lease_id)


async def test_right_answers_change_nothing(tmp_path: Path, autojump_clock: Clock) -> None:
    machine = Machine("")
    lease = await outcome(tmp_path, machine, 10 * LOOK_S)
    assert lease.phase is Phase.RUNNING and machine.asked >= 5


@pytest.mark.parametrize("code", [WRONG, TOO_FEW])
async def test_a_wrong_answer_ends_the_lease_at_once(
    tmp_path: Path, autojump_clock: Clock, code: str
) -> None:
    machine = Machine("", code, "")
    lease = await outcome(tmp_path, machine, 4 * LOOK_S)
    assert lease.reason == code and lease.sentence == f"because {code}"
    assert machine.asked == 2, "a lease that ends is not asked again"


@pytest.mark.parametrize("code", [NO_ANSWER, TOO_SLOW, "gone"])
async def test_no_answer_is_counted_only_in_a_row(tmp_path: Path, autojump_clock: Clock, code: str) -> None:
    machine = Machine(*([code] * (PATIENCE - 1)), "", *([code] * (PATIENCE - 1)), "")
    assert (await outcome(tmp_path, machine, 12 * LOOK_S)).phase is Phase.RUNNING
    ended = await outcome(tmp_path / "again", _folder(tmp_path / "again", Machine(code)), 12 * LOOK_S)
    assert ended.reason == (NO_ANSWER if code == "gone" else code)


def _folder(path: Path, machine: Machine) -> Machine:
    path.mkdir()
    return machine


@pytest.mark.parametrize(
    "lease",
    [
        running(frozen=True),
        running(phase=Phase.PAUSED),
        replace(running(), terms=make_terms(proof=False)),
        replace(running_provider(), terms=TERMS, timer_at=UnixMs(0)),
    ],
    ids=["frozen", "paused", "without proof", "provider"],
)
async def test_who_is_not_asked(tmp_path: Path, autojump_clock: Clock, lease: Lease) -> None:
    machine = Machine(WRONG)
    async with asking(tmp_path, machine, lease):
        await trio.sleep(3 * LOOK_S)
    assert machine.asked == 0


async def test_chance_decides_at_every_look(tmp_path: Path, autojump_clock: Clock) -> None:
    """One look in so many, by a draw that nobody can foresee."""
    draws: Iterator[float] = iter([0.5, LOOK_S / MEAN_S, LOOK_S / MEAN_S - 1e-9, *[1.0] * 100])
    machine = Machine("")
    async with asking(tmp_path, machine, running(), lambda: next(draws)):
        await trio.sleep(2 * LOOK_S + 5)
        assert machine.asked == 0
        await trio.sleep(LOOK_S)
        assert machine.asked == 1


async def test_a_lease_is_not_asked_twice_at_once(tmp_path: Path, autojump_clock: Clock) -> None:
    class Slow(Machine):
        async def __call__(self, lease: Lease) -> Proof:
            self.asked += 1
            await trio.sleep(10 * LOOK_S)
            return Proof(True)

    machine = Slow("")
    async with asking(tmp_path, machine, running()):
        await trio.sleep(5 * LOOK_S)
    assert machine.asked == 1
