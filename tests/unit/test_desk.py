"""The desk and hostile peers: each trick is refused under a stable code, and nothing changes."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from escrow_bridge.layout import EscrowView
from protocol import messages, signing
from protocol.lease_state import Lease, Phase
from protocol.messages import Accept, Exited, Funded, GetLogs, GetOutputs, Meter, PutInputs, Running, Stop
from protocol.signing import seal_for
from protocol.units import EscrowId, LeaseId, Qu, QubicId, Seconds, Tick
from qubixd.desk import MAX_PUT_BYTES
from qubixd.jobfiles import encode_secrets
from qubixd.talk import (
    FILES_PROTOCOL,
    LEASE_PROTOCOL,
    LOGS_PROTOCOL,
    REQUEST_TIMEOUT_S,
    receive_signed,
    send_signed,
)
from qubixd.wire import receive_frame, send_frame
from tests.support.stranger import EMPTY_TAR, Stranger, stranger
from tests.support.world import Person, World

Clock = trio.testing.MockClock
NOBODY = LeaseId(bytes(32))
NO_ESCROW = EscrowView(
    escrow_id=EscrowId(bytes(32)),
    caller=QubicId(bytes(32)),
    provider=QubicId(bytes(32)),
    deposit=Qu(0),
    paid=Qu(0),
    deadline_tick=Tick(0),
    close_tick=Tick(0),
    challenge_ticks=0,
    open_tick=Tick(0),
    as_of=Tick(0),
)


@dataclass
class Shop:
    """A provider, mallory who has hired it, and eve who has nothing to do with it."""

    world: World
    alice: Person
    mallory: Stranger
    eve: Stranger

    async def lease(self) -> Lease:
        return await self.alice.up.leases.get(self.mallory.lease_id)

    async def until(self, *phases: Phase) -> Lease:
        return await self.world.until(self.mallory.lease_id, self.alice, lambda one: one.phase in phases)

    async def running(self) -> EscrowView:
        view = await self.mallory.fund()
        assert await self.mallory.put() == ""
        await self.until(Phase.RUNNING)
        return view


@asynccontextmanager
async def shop(root: Path, *, hired: bool = True) -> AsyncIterator[Shop]:
    async with World(root) as world:
        alice = await world.start("alice", provider=True)
        async with stranger(world, alice) as mallory, stranger(world, alice, "eve") as eve:
            await trio.sleep(2)
            if hired:
                await mallory.hire()
            yield Shop(world, alice, mallory, eve)


# --- making a lease -------------------------------------------------------------------------------


async def test_only_questions_are_answered(tmp_path: Path, autojump_clock: Clock) -> None:
    async with shop(tmp_path, hired=False) as one:
        for message in (messages.Ack(), one.mallory.request(), GetLogs(NOBODY, 0, False)):
            expected = "" if isinstance(message, messages.QuoteRequest) else "wire.message_invalid"
            assert await one.mallory.refusal(message) == expected


async def test_terms_of_ones_own_making_are_refused(tmp_path: Path, autojump_clock: Clock) -> None:
    async with shop(tmp_path, hired=False) as one:
        honest = await one.mallory.say(one.mallory.request())
        cheaper = replace(honest.message, price_qu_per_hour=Qu(0), deposit=Qu(1))
        own = one.mallory.key.sign(cheaper)
        assert await one.mallory.refusal(Accept(own, ())) == "wire.signature_invalid"
        bent = bytearray(honest.raw)
        bent[-1] ^= 1
        assert await one.mallory.refusal(Accept(bytes(bent), ())) == "wire.signature_invalid"
        assert await one.mallory.refusal(Accept(b"junk", ())) == "wire.message_invalid"
        offered = one.alice.up.offers.own
        assert offered is not None
        assert await one.mallory.refusal(Accept(offered.raw, ())) == "wire.signature_invalid"
        assert await one.eve.refusal(Accept(honest.raw, ())) == "refused"
        await trio.sleep(61)
        assert await one.mallory.refusal(Accept(honest.raw, ())) == "quote.expired"
        assert one.alice.up.leases.active() == ()


async def test_a_quote_accepted_twice_is_one_lease(tmp_path: Path, autojump_clock: Clock) -> None:
    async with shop(tmp_path) as one:
        for _ in range(2):
            assert await one.mallory.refusal(Accept(one.mallory.signed.raw, ())) == ""
        assert await one.eve.refusal(Accept(one.mallory.signed.raw, ())) == "refused"
        assert len(one.alice.up.leases.active()) == 1


# --- during a lease -------------------------------------------------------------------------------


async def test_a_lease_is_nobody_elses_business(tmp_path: Path, autojump_clock: Clock) -> None:
    async with shop(tmp_path) as one:
        view = await one.running()
        lease_id = one.mallory.lease_id
        before = await one.lease()
        for message in (
            Funded(lease_id, EscrowId(bytes(32)), Tick(1)),
            one.mallory.voucher(view, 5_000),
            Stop(lease_id, "because"),
            Running(lease_id, 0),
            Meter(lease_id, Seconds(1)),
            Exited(lease_id, 0, "", "", Seconds(1), bytes(32), 0),
        ):
            assert await one.eve.refusal(message) == "lease.unknown", message
            assert await one.eve.refusal(replace(message, lease_id=NOBODY)) == "lease.unknown"
        one.eve.signed = one.mallory.signed
        assert await one.eve.put() == "lease.unknown"
        after = await one.lease()
        assert (after.promised, after.phase, after.exited) == (before.promised, Phase.RUNNING, False)


async def test_a_caller_cannot_speak_as_a_provider(tmp_path: Path, autojump_clock: Clock) -> None:
    async with shop(tmp_path) as one:
        await one.running()
        lease_id = one.mallory.lease_id
        for message in (
            Running(lease_id, 0),
            Meter(lease_id, Seconds(1)),
            Exited(lease_id, 0, "", "", Seconds(1), bytes(32), 0),
        ):
            assert await one.mallory.refusal(message) == "lease.unknown"


async def test_vouchers_that_are_worth_nothing_are_refused(tmp_path: Path, autojump_clock: Clock) -> None:
    async with shop(tmp_path) as one:
        mallory = one.mallory
        view = await one.running()
        assert await mallory.refusal(mallory.voucher(view, 2_000)) == ""
        wrong = {
            "above the deposit": mallory.voucher(view, mallory.terms.deposit + 1),
            "another escrow": mallory.voucher(replace(view, escrow_id=EscrowId(bytes(32))), 3_000),
            "bad signature": mallory.voucher(view, 3_000, signature=bytes(64)),
            "another amount's signature": replace(mallory.voucher(view, 3_000), cumulative=Qu(3_001)),
            "eve's signature": _by_eve(one, view),
        }
        for name, voucher in wrong.items():
            assert await mallory.refusal(voucher) == "voucher.invalid", name
            assert (await one.lease()).promised == 2_000, name
        assert await mallory.refusal(mallory.voucher(view, 1_000)) == "", "falling: true, but old"
        assert (await one.lease()).promised == 2_000
        assert (await one.lease()).vouchers == 1


def _by_eve(one: Shop, view: EscrowView) -> messages.Voucher:
    """Signed by somebody else's wallet."""
    one.eve.signed = one.mallory.signed
    return one.eve.voucher(view, 3_000)


async def test_a_voucher_before_the_escrow_is_seen_is_refused(tmp_path: Path, autojump_clock: Clock) -> None:
    async with shop(tmp_path) as one:
        assert await one.mallory.refusal(one.mallory.voucher(NO_ESCROW, 1)) == "voucher.invalid"


WRONG_ESCROWS = {
    "too little": {"deposit": Qu(1_000)},
    "too soon over": {"deadline_ticks": 200},
    "hardly any challenge": {"challenge_ticks": 32},
    "for somebody else's terms": {"terms": LeaseId(bytes(range(32)))},
}


@pytest.mark.parametrize("change", WRONG_ESCROWS.values(), ids=WRONG_ESCROWS)
async def test_an_escrow_that_is_not_the_terms_is_refused_and_comes_back(
    tmp_path: Path, autojump_clock: Clock, change: dict[str, Any]
) -> None:
    async with shop(tmp_path) as one:
        assert await one.mallory.put() == ""
        view = await one.mallory.fund(**change)
        lease = await one.until(Phase.FAILED)
        assert lease.reason == "lease.escrow_wrong" and lease.paid == 0
        assert one.alice.engine.starts == []
        await one.world.chain.advance(view.deadline_tick - one.world.chain.engine.tick_info().tick + 17)
        for person in one.world.people.values():
            assert one.world.balance(person) == one.world.funds
        one.world.check_conservation()


async def test_an_escrow_that_does_not_exist_is_refused(tmp_path: Path, autojump_clock: Clock) -> None:
    async with shop(tmp_path) as one:
        tick = one.world.chain.engine.tick_info().tick
        await one.mallory.say(Funded(one.mallory.lease_id, EscrowId(bytes(32)), tick))
        lease = await one.until(Phase.FAILED)
        assert (lease.reason, lease.settled) == ("lease.escrow_wrong", False)
        assert one.alice.up.leases.active() == ()


# --- files ----------------------------------------------------------------------------------------


async def test_inputs_that_are_not_the_jobs_are_refused(tmp_path: Path, autojump_clock: Clock) -> None:
    async with shop(tmp_path) as one:
        mallory = one.mallory
        await mallory.fund()
        other = messages.encode(replace(messages.decode(mallory.order), script="rm -rf /"))
        wrong = {
            "another order": await mallory.put(order=other),
            "junk for an order": await mallory.put(order=b"junk"),
            "other secrets": await mallory.put(
                secrets=seal_for(mallory.provider.peer, encode_secrets({"TOKEN": "other"}))
            ),
            "secrets in clear": await mallory.put(secrets=mallory.secrets),
            "no secrets": await mallory.put(secrets=b""),
            "another lease": await mallory.put(lease_id=NOBODY),
            "other files": await mallory.put(archive=b"x" * len(EMPTY_TAR)),
            "half the files": await mallory.put(archive=EMPTY_TAR[:100]),
        }
        assert wrong.pop("another lease") == "lease.unknown"
        assert wrong.pop("half the files") in ("broken", "net.stream_broken")
        assert set(wrong.values()) == {"wire.message_invalid"}, wrong
        lease = await one.lease()
        assert not lease.has_inputs and one.alice.engine.starts == []
        assert await mallory.put() == ""
        await one.until(Phase.RUNNING)


async def test_inputs_that_come_twice_or_at_once_do_no_harm(tmp_path: Path, autojump_clock: Clock) -> None:
    async with shop(tmp_path) as one:
        await one.mallory.fund()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(one.mallory.put)
        await one.until(Phase.RUNNING)
        assert await one.mallory.put() == ""
        assert one.alice.engine.starts == [one.mallory.lease_id]
        assert (await one.lease()).phase is Phase.RUNNING
        folder = one.alice.up.files.folder(one.mallory.lease_id)
        assert [path.name for path in folder.iterdir() if path.name.endswith(".part")] == []


async def test_more_input_than_the_disk_that_was_rented(tmp_path: Path, autojump_clock: Clock) -> None:
    async with shop(tmp_path, hired=False) as one:
        huge = replace(messages.decode(one.mallory.order), inputs_bytes=2**40)
        order = messages.encode(huge)
        await one.mallory.hire(order_sha256=hashlib.sha256(order).digest())
        assert await one.mallory.put(order=order) == "wire.message_invalid"


async def test_an_oversized_put_is_not_even_read(tmp_path: Path, autojump_clock: Clock) -> None:
    async with shop(tmp_path) as one:
        stream = await one.mallory.wire.open(one.alice.peer, FILES_PROTOCOL)
        async with stream:
            await stream.send_all((MAX_PUT_BYTES + 1).to_bytes(4, "big"))
            with trio.fail_after(1), pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()


@pytest.mark.parametrize("protocol", [LEASE_PROTOCOL, FILES_PROTOCOL, LOGS_PROTOCOL])
async def test_a_peer_that_says_nothing_is_let_go(
    tmp_path: Path, autojump_clock: Clock, protocol: str
) -> None:
    async with shop(tmp_path, hired=False) as one:
        for start in (b"", b"\0\0", b"\0\0\1\0half"):
            stream = await one.mallory.wire.open(one.alice.peer, protocol)
            async with stream:
                if start:
                    await stream.send_all(start)
                with trio.fail_after(REQUEST_TIMEOUT_S + 1), pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
        assert one.alice.up.parts.wire.counters.handler_errors == 0, "a peer's trouble, not a bug"


async def test_a_sender_that_stops_in_the_middle_is_let_go(tmp_path: Path, autojump_clock: Clock) -> None:
    async with shop(tmp_path) as one:
        mallory = one.mallory
        stream = await mallory.wire.open(one.alice.peer, FILES_PROTOCOL)
        async with stream:
            put = PutInputs(mallory.lease_id, mallory.order, mallory.sealed)
            await send_signed(stream, mallory.key.sign(put))
            await receive_signed(stream, one.alice.peer)
            await stream.send_all(EMPTY_TAR[:100])
            with trio.fail_after(600), pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        folder = one.alice.up.files.folder(mallory.lease_id)
        assert list(folder.glob("*.part")) + list(folder.glob(".*.part")) == []


@pytest.mark.parametrize("protocol", [LEASE_PROTOCOL, FILES_PROTOCOL, LOGS_PROTOCOL])
async def test_words_of_somebody_else_are_not_listened_to(
    tmp_path: Path, autojump_clock: Clock, protocol: str
) -> None:
    """The envelope is good, but its signer is not the peer the wire knows."""
    async with shop(tmp_path) as one:
        message = {
            LEASE_PROTOCOL: Stop(one.mallory.lease_id, "bye"),
            FILES_PROTOCOL: GetOutputs(one.mallory.lease_id, 0),
            LOGS_PROTOCOL: GetLogs(one.mallory.lease_id, 0, False),
        }[protocol]
        stream = await one.eve.wire.open(one.alice.peer, protocol)
        async with stream:
            await send_frame(stream, one.mallory.key.sign(message))
            with trio.fail_after(1), pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        assert (await one.lease()).phase is Phase.FUNDING


async def test_outputs_and_logs_are_the_callers_alone(tmp_path: Path, autojump_clock: Clock) -> None:
    async with shop(tmp_path) as one:
        await one.running()
        for who, message, protocol, code in (
            (one.eve, GetOutputs(one.mallory.lease_id, 0), FILES_PROTOCOL, "lease.unknown"),
            (one.eve, GetLogs(one.mallory.lease_id, 0, False), LOGS_PROTOCOL, "lease.unknown"),
            (one.mallory, GetOutputs(one.mallory.lease_id, 0), FILES_PROTOCOL, "runner.job_missing"),
            (one.mallory, GetLogs(one.mallory.lease_id, 0, False), FILES_PROTOCOL, "wire.message_invalid"),
            (one.mallory, GetOutputs(one.mallory.lease_id, 0), LOGS_PROTOCOL, "wire.message_invalid"),
            (one.mallory, GetLogs(one.mallory.lease_id, 0, False), LOGS_PROTOCOL, ""),
        ):
            assert await _code(who, one.alice, protocol, message) == code


async def _code(who: Stranger, alice: Person, protocol: str, message: object) -> str:
    stream = await who.wire.open(alice.peer, protocol)
    async with stream:
        await send_frame(stream, who.key.sign(message))
        await stream.send_eof()
        raw = await receive_frame(stream, messages.MAX_MESSAGE_BYTES)
    assert raw is not None
    answer = signing.verify(raw).message
    return answer.code if isinstance(answer, messages.Refusal) else ""
