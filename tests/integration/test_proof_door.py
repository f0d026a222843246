"""A caller proves a machine through its provider's daemon: in a real container, and in a plain process."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio

from ledger.store import inline, open_store
from protocol import lease_model as m
from protocol import lease_provider, messages
from protocol.errors import MessageInvalid, PeerRefused
from protocol.lease_state import Lease, Phase
from protocol.messages import Wish
from protocol.signing import NodeKey
from protocol.units import EscrowId, LeaseId, Tick
from qubixd.jobfiles import JobFiles
from qubixd.leases import Leases
from qubixd.proof import door as door_module
from qubixd.proof.build import Programs
from qubixd.proof.door import PREFIX, ProofDoor, place, sweep
from qubixd.proof.run import PROOF_PROTOCOL, Prover, prove_lease
from qubixd.proof.verify import NO_ANSWER, WRONG
from qubixd.talk import receive_signed, send_signed
from qubixd.wire import Stream, Wire
from tests.support import proof_programs as programs
from tests.support.lease_plan import make_terms
from tests.support.memory_wire import MemoryNet
from tests.support.runners import LIMIT_SECONDS, MIB, Bench, both_runners
from tests.support.world_jobs import now_ms
from tests.unit.test_leases import Hands

ALICE, BOB, EVE = (NodeKey(bytes([number]) * 32) for number in (1, 2, 3))


@dataclass
class House:
    """A provider with one job that waits at its gate, and its caller."""

    bench: Bench
    leases: Leases
    lease: Lease
    workspace: Path
    wire: Wire
    stranger: Wire
    prover: Prover
    door: ProofDoor

    async def until_clean(self) -> None:
        """Return when nothing of a proof is left: the provider tidies up after its answer."""
        with trio.fail_after(LIMIT_SECONDS):
            while self.door.busy or any(name.startswith(PREFIX) for name in os.listdir(self.workspace)):
                await trio.sleep(0.02)

    async def ask(self, message: object, key: NodeKey = BOB) -> Stream:
        wire = self.wire if key is BOB else self.stranger
        stream = await wire.open(ALICE.public, PROOF_PROTOCOL)
        await send_signed(stream, key.sign(message))
        return stream


async def provisioned(leases: Leases) -> Lease:
    """A lease whose job waits for its proof."""
    wish = Wish("", 0, 0, 1_000, 256, 64)
    terms = make_terms(provider=ALICE.public, caller=BOB.public, wish=wish, proof=True)
    lease, effects = lease_provider.new(LeaseId(os.urandom(32)), terms, peer_addresses=(), now=now_ms())
    await leases.add(lease, effects, m.ReceiveAccepted(now_ms()))
    for event in (
        m.ReceiveInputs(now_ms()),
        m.RunPulled(now_ms()),
        m.ChainOpened(EscrowId(bytes(32)), Tick(10), Tick(10_000), now_ms()),
    ):
        lease = await leases.feed(lease.lease_id, event)
    assert lease.phase is Phase.PROVISIONING
    return lease


@asynccontextmanager
async def provider(root: Path, bench: Bench) -> AsyncIterator[House]:
    net, files = MemoryNet(seed=1), JobFiles(root / "files", inline)
    async with (
        open_store(root / "ledger.sqlite", inline) as store,
        net.wire(ALICE.public) as alice,
        net.wire(BOB.public) as bob,
        net.wire(EVE.public) as eve,
        trio.open_nursery() as nursery,
    ):
        leases = Leases(store, now_ms)
        await nursery.start(leases.run, Hands())
        lease = await provisioned(leases)
        workspace = files.path(lease.lease_id, "workspace")
        workspace.mkdir(parents=True)
        workspace.chmod(0o777)
        door = ProofDoor(ALICE, leases, files, bench.runner, inline)
        door.open(alice)
        made = Programs(programs.cache())
        prover = Prover(bob, BOB, made, lambda lease: (), inline)
        yield House(bench, leases, lease, workspace, bob, eve, prover, door)
        nursery.cancel_scope.cancel()


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker), "process"])
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    Programs(programs.cache()).prepare(programs.ARCH)  # a first compile takes longer than any step here
    programs.cheater()
    async with both_runners(request, tmp_path) as bench, provider(tmp_path, bench) as made:
        spec = bench.spec("sleep 600", lease_id=made.lease.lease_id, workspace=made.workspace)
        spec = replace(spec, memory_bytes=256 * MIB, env={"QUBIX_CHEAT": "skip 4"})
        with trio.fail_after(LIMIT_SECONDS):
            await bench.runner.start(spec)
            yield made


async def test_a_machine_is_proved_before_its_job_begins_and_nothing_is_left(house: House) -> None:
    proof = await house.prover(house.lease)
    assert proof.ok, proof.sentence
    assert proof.rate > 0 and proof.compute_ms > 0
    await house.until_clean()
    status = await house.bench.runner.status(house.lease.lease_id)
    assert status.released_at is None, "the job still waits at its gate"


async def test_the_program_is_gone_before_its_caller_hears_of_it(house: House) -> None:
    """Else the job, which the caller lets go as soon as it is content, could find it."""
    program = b"#!/bin/sh\necho here\nread line\necho $line\n"
    wanted = messages.OpenProof(house.lease.lease_id, hashlib.sha256(program).digest(), len(program))
    async with await house.ask(wanted) as stream:
        await receive_signed(stream, ALICE.public)
        await stream.send_all(program)
        await receive_signed(stream, ALICE.public)
        assert await stream.receive_some(100) == b"here\n"
        assert not any(name.startswith(PREFIX) for name in os.listdir(house.workspace))
        await stream.send_all(b"and it still runs\n")
        assert await stream.receive_some(100) == b"and it still runs\n"


async def test_a_machine_is_proved_again_while_its_job_runs(house: House) -> None:
    await house.bench.runner.release(house.lease.lease_id, {})
    assert (await house.prover.light(house.lease)).ok
    await house.until_clean()


async def test_a_program_that_cannot_run_is_no_answer(house: House) -> None:
    plan = programs.small()
    proof = await prove_lease(house.wire, BOB, house.lease, (), b"\x7fELF and no more", plan)
    assert proof.code == NO_ANSWER
    await house.until_clean()


async def test_a_program_that_says_something_else_is_found_out(house: House) -> None:
    """The provider runs what it is sent, so a caller's own script shows what comes of a wrong answer."""
    script = b"#!/bin/sh\nexec head -c 100000 /dev/zero\n"
    proof = await prove_lease(house.wire, BOB, house.lease, (), script, programs.small())
    assert not proof.ok and proof.code == "proof.malformed"
    await house.until_clean()


async def test_a_provider_that_runs_a_program_of_its_own_is_found_out(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way, with a daemon that swaps the program for one that leaves out a quarter of the rows."""
    cheat = programs.cheater().read_bytes()
    monkeypatch.setattr(door_module, "place", lambda workspace, name, program: place(workspace, name, cheat))
    assert (await house.prover(house.lease)).code == WRONG
    await house.until_clean()


async def test_only_the_caller_proves_and_only_its_own_program(house: House) -> None:
    program = b"#!/bin/sh\nexit 0\n"
    wanted = messages.OpenProof(house.lease.lease_id, hashlib.sha256(program).digest(), len(program))
    async with await house.ask(wanted, EVE) as stream:
        with pytest.raises(PeerRefused) as refused:
            await receive_signed(stream, ALICE.public)
    assert refused.value.refusal_code == "lease.unknown"
    async with await house.ask(wanted) as stream:
        await receive_signed(stream, ALICE.public)
        await stream.send_all(b"#!/bin/sh\nexit 1\n")
        with pytest.raises(PeerRefused) as refused:
            await receive_signed(stream, ALICE.public)
    assert refused.value.refusal_code == MessageInvalid.code
    await house.until_clean()


async def test_one_proof_of_a_lease_at_a_time(house: House) -> None:
    wanted = messages.OpenProof(house.lease.lease_id, bytes(32), 1)
    async with await house.ask(wanted) as first, await house.ask(wanted) as second:
        await receive_signed(first, ALICE.public)
        with pytest.raises(PeerRefused, match="already"):
            await receive_signed(second, ALICE.public)


async def test_a_caller_that_goes_away_leaves_nothing_running(house: House) -> None:
    program = b"#!/bin/sh\necho begun\nexec sleep 600\n"
    wanted = messages.OpenProof(house.lease.lease_id, hashlib.sha256(program).digest(), len(program))
    async with await house.ask(wanted) as stream:
        await receive_signed(stream, ALICE.public)
        await stream.send_all(program)
        await receive_signed(stream, ALICE.public)
        assert (await stream.receive_some(100)).startswith(b"begun")
    await house.until_clean()
    assert (await house.prover(house.lease)).ok


async def test_a_caller_does_not_compute_for_nothing(house: House) -> None:
    house.door.spent[house.lease.lease_id] = 240
    proof = await house.prover(house.lease)
    assert proof.code == NO_ANSWER and "240 s" in proof.sentence
    house.door.spent[house.lease.lease_id] = 120
    assert (await house.prover(house.lease)).ok
    await house.until_clean()
    assert house.door.spent[house.lease.lease_id] > 120


async def test_a_lease_that_is_over_has_no_machine(house: House) -> None:
    await house.leases.feed(house.lease.lease_id, m.RunFailed("runner.start_failed", "no", now_ms()))
    proof = await house.prover(house.lease)
    assert proof.code == NO_ANSWER


# --- the workspace, which a hostile job may be changing ---------------------------------------------


def test_a_program_goes_through_no_link(tmp_path: Path) -> None:
    workspace, elsewhere = tmp_path / "workspace", tmp_path / "elsewhere"
    workspace.mkdir()
    elsewhere.write_bytes(b"precious")
    (workspace / f"{PREFIX}1").symlink_to(elsewhere)
    with pytest.raises(Exception, match="cannot be written"):
        place(workspace, f"{PREFIX}1", b"program")
    link = tmp_path / "link"
    link.symlink_to(workspace)
    with pytest.raises(Exception, match="cannot be written"):
        place(link, f"{PREFIX}2", b"program")
    assert elsewhere.read_bytes() == b"precious"


def test_sweeping_takes_programs_and_nothing_else(tmp_path: Path) -> None:
    place(tmp_path, f"{PREFIX}1", b"program")
    (tmp_path / f"{PREFIX}2").symlink_to("/etc/passwd")
    (tmp_path / f"{PREFIX}3").mkdir()
    (tmp_path / "result").write_bytes(b"x")
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [f"{PREFIX}3", "result"]
    sweep(tmp_path / "gone")


def test_what_is_written_is_what_was_sent(tmp_path: Path) -> None:
    place(tmp_path, "program", b"bytes")
    assert (tmp_path / "program").read_bytes() == b"bytes"
    assert (tmp_path / "program").stat().st_mode & 0o777 == 0o755
