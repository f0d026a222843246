"""Callers who try to get work for nothing, or to keep a provider busy for nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import trio
import trio.testing

from escrow_bridge.layout import EscrowView, escrow_id
from ledger import journal
from protocol.errors import PeerRefused, StreamBroken
from protocol.lease_state import Phase
from protocol.messages import Accept, Funded, GetLogs, PutInputs, Stop
from protocol.units import Tick
from qubixd.desk import MAX_READERS, MAX_UNFUNDED, MAX_UNFUNDED_PER_CALLER
from qubixd.talk import FILES_PROTOCOL, LOGS_PROTOCOL, receive_signed, send_signed
from qubixd.wire import Stream
from tests.support.stranger import EMPTY_TAR, WISH, Stranger, stranger
from tests.support.world import FUNDS, World

Clock = trio.testing.MockClock


@asynccontextmanager
async def mallory_and(root: Path) -> AsyncIterator[Stranger]:
    """A provider, and somebody on the wire who has not hired it yet."""
    async with World(root) as world:
        alice = await world.start("alice", provider=True)
        async with stranger(world, alice) as mallory:
            await trio.sleep(2)
            yield mallory


def at_tick(mallory: Stranger, tick: int) -> Funded:
    """A claim that fits the terms in all but that the escrow is not there."""
    terms = mallory.terms
    claimed = escrow_id(
        terms.caller_id, terms.provider_id, mallory.lease_id, terms.contract_index, Tick(tick)
    )
    return Funded(mallory.lease_id, claimed, Tick(tick))


async def until(mallory: Stranger, *phases: Phase) -> None:
    await mallory.world.until(mallory.lease_id, mallory.provider, lambda lease: lease.phase in phases)


async def test_a_second_claim_of_an_escrow_far_in_the_future_keeps_nobody_from_being_paid(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """Waiting for that tick would hold up the redeeming of the vouchers until the escrow has expired."""
    async with mallory_and(tmp_path) as mallory:
        await mallory.hire()
        assert await mallory.put() == ""
        view = await _fund_and_lie(mallory)
        await until(mallory, Phase.RUNNING)
        await mallory.say(mallory.voucher(view, 3_000))
        served = await mallory.world.until(
            mallory.lease_id, mallory.provider, lambda lease: lease.phase is Phase.FAILED
        )
        assert served.reason == "lease.unpaid"
        assert served.paid == served.promised == 3_000
        assert mallory.world.balance(mallory.provider) > FUNDS


async def _fund_and_lie(mallory: Stranger) -> EscrowView:
    """The true claim, and a false one before the provider could look at the first."""
    view = await mallory.fund(announce=False)
    mallory.world.chain.reachable = False
    await mallory.say(Funded(mallory.lease_id, view.escrow_id, view.open_tick))
    await mallory.say(at_tick(mallory, 2**32 - 1))
    mallory.world.chain.reachable = True
    return view


async def test_a_claim_of_the_future_is_not_waited_for(tmp_path: Path, autojump_clock: Clock) -> None:
    async with mallory_and(tmp_path) as mallory:
        await mallory.hire()
        await mallory.say(at_tick(mallory, 2**32 - 1))
        await trio.sleep(400)
        node = mallory.provider.up
        assert node.leases.active() == ()
        chain_work = [one for one in await journal.pending(node.parts.store) if one.lane == "chain"]
        assert chain_work == []


async def test_leases_without_money_are_few(tmp_path: Path, autojump_clock: Clock) -> None:
    """Keys cost nothing: neither one nor many of them fill this node for free."""
    async with mallory_and(tmp_path) as mallory, AsyncExitStack() as stack:
        assert await _accept(mallory, MAX_UNFUNDED_PER_CALLER) == [""] * MAX_UNFUNDED_PER_CALLER
        assert await _accept(mallory, 1) == ["quote.capacity_taken"]
        answers = []
        for number in range(MAX_UNFUNDED):
            sybil = stranger(mallory.world, mallory.provider, f"sybil-{number}")
            answers += await _accept(await stack.enter_async_context(sybil), 1)
        assert answers.count("") == MAX_UNFUNDED - MAX_UNFUNDED_PER_CALLER
        assert len(mallory.provider.up.leases.active()) == MAX_UNFUNDED
        await trio.sleep(400)
        assert await _accept(mallory, 1) == [""], "and not for ever"


async def test_inputs_arrive_once_at_a_time(tmp_path: Path, autojump_clock: Clock) -> None:
    """However many streams are opened, no more lies on the disk than was rented."""
    async with mallory_and(tmp_path) as mallory, trio.open_nursery() as nursery:
        await mallory.hire()
        for _ in range(5):
            nursery.start_soon(_put_half, mallory)
        await trio.sleep(1)
        folder = mallory.provider.up.files.folder(mallory.lease_id)
        assert len(list(folder.glob(".*.part"))) == 1
        assert await mallory.put() == "", "the last to begin is the one that counts"
        assert list(folder.glob(".*.part")) == [] and mallory.provider.up.desk.uploads == {}
        nursery.cancel_scope.cancel()


async def _put_half(mallory: Stranger) -> None:
    stream = await mallory.wire.open(mallory.provider.peer, FILES_PROTOCOL)
    async with stream:
        with suppress(StreamBroken, trio.BrokenResourceError):
            await _half(mallory, stream)
        await trio.sleep_forever()


async def _half(mallory: Stranger, stream: Stream) -> None:
    put = PutInputs(mallory.lease_id, mallory.order, mallory.sealed)
    await send_signed(stream, mallory.key.sign(put))
    await receive_signed(stream, mallory.provider.peer)
    await stream.send_all(EMPTY_TAR[:100])


async def test_readers_of_one_log_are_few(tmp_path: Path, autojump_clock: Clock) -> None:
    """Each waits in a thread of the runner's, which the ends of all jobs need as well."""
    async with mallory_and(tmp_path) as mallory, AsyncExitStack() as stack:
        await mallory.hire()
        answers = []
        for _ in range(MAX_READERS + 1):
            stream = await mallory.wire.open(mallory.provider.peer, LOGS_PROTOCOL)
            await stack.enter_async_context(stream)
            await send_signed(stream, mallory.key.sign(GetLogs(mallory.lease_id, 0, follow=True)))
            try:
                await receive_signed(stream, mallory.provider.peer)
                answers.append("")
            except PeerRefused as error:
                answers.append(error.refusal_code)
        assert answers == [""] * MAX_READERS + ["refused"]
        await mallory.say(Stop(mallory.lease_id, "enough"))
        await trio.sleep(300)
        assert mallory.provider.up.desk.readers.taken == {}


async def _accept(who: Stranger, times: int) -> list[str]:
    """Take the smallest lease there is so many times; what is said to it."""
    answers = []
    for _ in range(times):
        signed = await who.say(who.request(wish=replace(WISH, cpu_millis=1, memory_mib=1, disk_mib=1)))
        answers.append(await who.refusal(Accept(signed.raw, ())))
        await trio.sleep(0.1)  # within a millisecond the same question has the same quote
    return answers
