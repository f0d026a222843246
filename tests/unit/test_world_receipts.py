"""Receipts in the small world: what both nodes say at a lease's end, once, however they are killed."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from escrow_bridge.layout import Procedure
from escrow_bridge.layout_registry import MIN_STAKE
from escrow_bridge.qubic import parse_transaction, transaction_digest
from ledger import receipts
from ledger.receipts import ReceiptRow
from protocol import signing
from protocol.control_market import StakeArgs
from protocol.errors import NoOffer
from protocol.lease_state import TERMINAL, Lease, Phase
from protocol.messages import Receipt, Settlement
from protocol.score import NEWCOMER
from protocol.units import UnixMs
from qubixd import receipt_shelf
from qubixd.receipt_door import Market, check_receipt, verify
from qubixd.stake_desk import stake
from qubixd.words import receipt_of
from tests.support.rental import Rental, due, rental
from tests.support.world import Person
from tests.support.world_jobs import job, now_ms

Clock = trio.testing.MockClock


async def kept(one: Rental, person: Person) -> list[tuple[ReceiptRow, bytes]]:
    """What somebody's ledger has about the provider, waited for until both words are there."""
    with trio.fail_after(3_600):
        while True:
            if person.node is not None:
                rows = await receipts.of_provider(person.up.parts.store, one.alice.peer, 10, person.peer)
                if rows and all(settlement for _, settlement in rows):
                    return list(rows)
            await trio.sleep(1)


def lock_for(one: Rental, lease: Lease) -> Market:
    return Market(lease.terms.network, lease.terms.contract_index)


async def test_both_sides_sign_what_happened_and_have_each_other_s_word(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=7))
        _, paid = await one.ended()
        for person in (one.alice, one.bob):
            ((row, settlement),) = await kept(one, person)
            checked = check_receipt(verify(row.record), lock_for(one, paid), now_ms())
            receipt = checked.receipt
            assert (receipt.outcome, receipt.cumulative, receipt.seconds) == ("completed", due(7), 7)
            assert 0 < receipt.ready_ms < 60_000
            said: Settlement = verify(settlement).message
            raws = await one.world.chain.transactions(said.tick)
            closing = [raw for raw in raws or () if transaction_digest(raw) == said.transaction]
            assert parse_transaction(closing[0]).input_type == Procedure.CLOSE


async def test_the_caller_s_own_lease_raises_what_it_thinks_of_the_provider(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        before = (await one.bob.up.receipts.scores([one.alice.peer]))[one.alice.peer]
        await one.rent(job(seconds=7))
        await one.ended()
        await kept(one, one.bob)
        after = (await one.bob.up.receipts.scores([one.alice.peer]))[one.alice.peer]
        assert before.confidence == 0 < after.confidence
        assert after.g > before.g
        assert "leases of your own: 1 of 1 known here" in after.reasons


async def test_a_directory_hears_of_it(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        dora = await one.world.start("dora", directory=True)
        eric = await one.world.start("eric", directory=True)
        with trio.fail_after(600):
            while len(one.bob.up.discovery.directories.in_use()) < 2:
                await trio.sleep(1)
        await one.rent(job(seconds=7))
        await one.ended()
        for person in (dora, eric):
            assert len(await kept(one, person)) == 1


async def test_a_word_that_found_no_place_is_brought_again(
    tmp_path: Path, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when strangers have used up all that a node listens to in a minute."""
    async with rental(tmp_path) as one:
        monkeypatch.setattr(receipt_shelf, "MAX_PER_MINUTE_IN_ALL", 0)
        await one.rent(job(seconds=7))
        await one.ended()
        await trio.sleep(120)
        served = one.alice.up.parts.store
        assert await receipts.of_provider(served, one.alice.peer, 10, b"") == ()
        monkeypatch.undo()
        await kept(one, one.alice)
        await kept(one, one.bob)


async def test_a_lease_that_the_provider_failed_is_said_to_have_failed(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=10_000, hours=3))
        await one.until_paid(due(20))
        await one.world.kill(one.alice)
        lease = await one.until(one.bob, *TERMINAL)
        await _spoken(one, one.bob)
        ((row, _),) = await receipts.of_provider(one.bob.up.parts.store, one.alice.peer, 10, one.bob.peer)
        assert row.failed and lease.reason == "lease.provider_lost"
        why = one.bob.up.standing.allowed(one.alice.peer, now_ms())
        assert why is not None and "lease.provider_lost" in why


async def test_a_provider_that_failed_is_not_asked_again_at_once(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        await one.bob.up.standing.failed(one.alice.peer, "lease.start_timeout", now_ms())
        with pytest.raises(NoOffer, match="failed lately"):
            await one.rent(job(seconds=5))
        one.check_nothing_sent()
        await trio.sleep(61)
        await one.rent(job(seconds=5))
        await one.ended()
        await _spoken(one, one.bob)
        assert one.bob.up.standing.all(now_ms()) == [], "a success forgives"


async def _spoken(one: Rental, person: Person) -> None:
    with trio.fail_after(600):
        while await receipts.unspoken(person.up.parts.store, TERMINAL):
            await trio.sleep(0.5)


async def test_nothing_is_said_of_a_lease_that_locked_no_money(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        one.world.chain.loses = lambda transaction: True
        await one.rent(job(seconds=5))
        await one.stop(one.bob)
        await one.until(one.bob, *TERMINAL)
        await _spoken(one, one.bob)
        assert await receipts.of_provider(one.bob.up.parts.store, one.alice.peer, 10, b"") == ()


@pytest.mark.parametrize("who", ["alice", "bob"])
@pytest.mark.parametrize("commit", range(1, 7))
async def test_killed_anywhere_around_the_end_everything_is_said_once(
    tmp_path: Path, autojump_clock: Clock, who: str, commit: int
) -> None:
    async with rental(tmp_path) as one:
        person = {"alice": one.alice, "bob": one.bob}[who]
        await one.rent(job(seconds=5))
        one.when(person, Phase.SETTLING, lambda: _die_after(person, commit))
        with trio.move_on_after(120):
            await person.dead.wait()
        if person.node is None:
            await one.world.start(who, provider=person.provider)
        person.kill_after = None
        _, paid = await one.ended()
        sides = [await kept(one, one.alice), await kept(one, one.bob)]
        assert sides[0][0][1] == sides[1][0][1], "one settlement"
        assert sides[0][0][0].record == sides[1][0][0].record, "one receipt"
        assert len(sides[0]) == len(sides[1]) == 1
        said: Receipt = signing.opened(sides[1][0][0].record).message
        assert said == receipt_of(paid, one.bob.wallet), "which follows from the journal alone"
        assert said.ended_at == UnixMs(paid.ended_at)


def _die_after(person: Person, commit: int) -> None:
    person.kill_after = person.commits + commit


async def test_a_registered_provider_s_lease_is_borne_out_by_the_contract_for_strangers(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        await stake(one.alice.up, StakeArgs("a", MIN_STAKE))
        await one.rent(job(seconds=500))
        await one.ended()
        await kept(one, one.alice)
        carol = await one.world.start("carol")
        await one.world.until_offered(carol)
        file = await carol.up.receipts.evidence(one.alice.peer)
        (lease,) = file["leases"]
        assert (lease["proof"], lease["paid_qu"]) == ("ticket", due(500))
        assert file["counters"] == {"volume": due(500), "completed": 1, "disputes_lost": 0}
        assert not any("registry" in reason for reason in file["score"]["reasons"])
        assert file["score"]["reliability"] > NEWCOMER.reliability
