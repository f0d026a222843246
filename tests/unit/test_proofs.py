"""What the chain says about a receipt, asked of the real contract: all, a part, nothing any more."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from escrow_bridge import layout
from escrow_bridge.devnet.engine import LEAST_KEPT_TICKS
from escrow_bridge.layout import Procedure
from ledger import receipts
from ledger.store import Store
from protocol.errors import ChainUnreachable
from protocol.messages import Extension, Settlement
from protocol.score import LEAST_PAID, Counters, Proof
from protocol.units import Qu, Seconds, Tick, UnixMs
from qubixd.proofs import Finding
from qubixd.receipt_door import check_receipt, verify
from qubixd.receipts import ARRIVALS_EVERY_S, ARRIVALS_WAIT_MS
from tests.support.offices import Offices
from tests.support.receipt_deals import MARKET, Deal, Party, Town, voucher

PAID = 50_000


@pytest.fixture
def town() -> Town:
    return Town()


def parties(town: Town, *, registered: bool) -> tuple[Party, Party]:
    alice, bob = town.party("alice"), town.party("bob")
    if registered:
        town.register(alice)
    return alice, bob


async def found(town: Town, deal: Deal, settled: bool = True) -> Finding:
    checked = check_receipt(verify(deal.receipt), MARKET, town.now)
    return await town.prover.look(checked, deal.settled if settled else None, town.now)


async def test_a_ticket_says_what_was_paid_and_when(town: Town) -> None:
    alice, bob = parties(town, registered=True)
    deal = town.deal(alice, bob, paid=PAID)
    passed = town.tick - deal.said.open_tick
    finding = await found(town, deal, settled=False)
    assert finding == Finding(Proof.TICKET, Qu(PAID), town.now - passed * 1_000)


async def test_the_ticket_outlives_the_ticks(town: Town) -> None:
    alice, bob = parties(town, registered=True)
    deal = town.deal(alice, bob, paid=PAID)
    town.pass_ticks(1_100)
    assert await town.chain.transactions(deal.said.open_tick) is None
    assert (await found(town, deal)).proof is Proof.TICKET


async def test_without_a_ticket_both_transactions_are_looked_for(town: Town) -> None:
    alice, bob = parties(town, registered=False)
    assert (await found(town, town.deal(alice, bob, paid=PAID))).proof is Proof.SEEN
    assert (await found(town, town.deal(alice, bob, paid=PAID, opens=False))).proof is Proof.REFUTED
    assert (await found(town, town.deal(alice, bob, paid=PAID, closes=False))).proof is Proof.REFUTED


async def test_a_small_lease_leaves_no_ticket(town: Town) -> None:
    alice, bob = parties(town, registered=True)
    finding = await found(town, town.deal(alice, bob, paid=LEAST_PAID - 1))
    assert (finding.proof, finding.paid) == (Proof.SEEN, LEAST_PAID - 1)


async def test_forgotten_ticks_prove_and_refute_nothing() -> None:
    town = Town(keep_ticks=LEAST_KEPT_TICKS)
    alice, bob = parties(town, registered=False)
    true, false = (
        town.deal(alice, bob, paid=PAID),
        town.deal(alice, bob, paid=PAID, opens=False, closes=False),
    )
    town.pass_ticks(LEAST_KEPT_TICKS + 10)
    assert (await found(town, true)).proof is (await found(town, false)).proof is Proof.CLAIMED


async def test_ticks_that_have_not_been_refute(town: Town) -> None:
    alice, bob = parties(town, registered=False)
    deal = town.deal(alice, bob, paid=PAID)
    later = Deal(alice, bob, deal.signed_terms, deal.said, Settlement(deal.lease_id, Tick(10**9), bytes(32)))
    assert (await found(town, later)).proof is Proof.REFUTED
    before = Deal(alice, bob, deal.signed_terms, deal.said, Settlement(deal.lease_id, Tick(1), bytes(32)))
    assert (await found(town, before)).proof is Proof.REFUTED


async def test_a_young_tick_is_not_judged_yet(town: Town) -> None:
    """Nodes have its data a little later; no data would look like an empty tick."""
    alice, bob = parties(town, registered=False)
    deal = town.deal(alice, bob, paid=PAID, opens=False, closes=False)
    parts = (bob.wallet.public_key, alice.wallet.public_key, deal.lease_id, MARKET.contract_index)
    young = Tick(town.tick - 1)
    escrow = layout.escrow_id(*parts, young)
    moved = deal.saying(escrow_id=escrow, open_tick=young, voucher=voucher(bob, escrow, PAID))
    assert (await found(town, moved, settled=False)).proof is Proof.CLAIMED


async def test_a_voucher_cashed_with_others_counts(town: Town) -> None:
    alice, bob = parties(town, registered=False)
    deals = [town.deal(alice, bob, paid=PAID, closes=False) for _ in range(2)]
    vouchers = [layout.pay_input(one.said.escrow_id, one.said.cumulative, one.said.voucher) for one in deals]
    payload = layout.redeem_many_input(vouchers)
    where = town.send(alice, Procedure.REDEEM_MANY, payload, 2 * layout.SIGNATURE_BOND)
    town.pass_ticks(20)
    for deal in deals:
        settled = Deal(alice, bob, deal.signed_terms, deal.said, Settlement(deal.lease_id, *where))
        assert await found(town, settled) == await found(town, settled)
        assert (await found(town, settled)).proof is Proof.SEEN


def topped_up(town: Town, alice: Party, bob: Party) -> Deal:
    """Opened for 50,005 QU, and 100,000 are paid in the end."""
    deal = town.deal(alice, bob, paid=PAID, closes=False)
    escrow = deal.said.escrow_id
    deadline = Tick(deal.said.open_tick + 5_000)
    town.send(bob, Procedure.TOP_UP, layout.top_up_input(escrow, Qu(PAID + 5), deadline), 60_000)
    signed = voucher(bob, escrow, 2 * PAID)
    payload = layout.pay_input(escrow, Qu(2 * PAID), signed)
    where = town.send(alice, Procedure.CLOSE, payload, layout.SIGNATURE_BOND)
    town.pass_ticks(20)
    more = Extension(deal.lease_id, 1, Seconds(90_000), Qu(PAID + 60_005), 5_000, town.now)
    said = deal.saying(
        cumulative=Qu(2 * PAID), seconds=Seconds(100), voucher=signed, extension=alice.key.sign(more)
    ).said
    return Deal(alice, bob, deal.signed_terms, said, Settlement(deal.lease_id, *where))


async def test_what_was_added_to_the_deposit_only_a_ticket_bears_out(town: Town) -> None:
    alice, bob = parties(town, registered=True)
    finding = await found(town, topped_up(town, alice, bob))
    assert (finding.proof, finding.paid) == (Proof.TICKET, 2 * PAID)


async def test_without_a_ticket_no_more_is_believed_than_the_opening_locked(town: Town) -> None:
    alice, bob = parties(town, registered=False)
    finding = await found(town, topped_up(town, alice, bob))
    assert (finding.proof, finding.paid) == (Proof.SEEN, PAID + 5)


async def test_a_complaint_needs_the_deposit_and_no_settlement(town: Town) -> None:
    alice, bob = parties(town, registered=False)
    real = town.deal(alice, bob, paid=0, outcome="failed", closes=False)
    made_up = town.deal(alice, bob, paid=0, outcome="failed", opens=False, closes=False)
    assert (await found(town, real, settled=False)).proof is Proof.SEEN
    assert (await found(town, made_up, settled=False)).proof is Proof.REFUTED


async def test_counters_are_the_contract_s_and_of_this_node_only(town: Town) -> None:
    alice, bob = parties(town, registered=True)
    for paid in (PAID, LEAST_PAID, LEAST_PAID - 1):
        town.deal(alice, bob, paid=paid)
    wallet = alice.wallet.public_key
    counted = Counters(Qu(PAID + LEAST_PAID), 2, 0)
    assert await town.prover.counters(wallet, alice.key.public) == counted
    assert await town.prover.counters(wallet, bob.key.public) is None
    assert await town.prover.counters(bob.wallet.public_key, bob.key.public) is None


async def test_a_chain_out_of_reach_is_no_verdict(town: Town) -> None:
    alice, bob = parties(town, registered=True)
    deal = town.deal(alice, bob, paid=PAID)
    town.chain.reachable = False
    with pytest.raises(ChainUnreachable):
        await found(town, deal)
    async with Offices(town) as offices:
        offices.advertise(alice)
        judge = await offices.open("judge", keeps_for_others=True)
        await judge.take(deal)
        unknown = await judge.score(alice)
        town.chain.reachable = True
        assert (await judge.score(alice)).confidence > unknown.confidence


async def test_a_directory_looks_up_what_it_is_brought(
    town: Town, autojump_clock: trio.testing.MockClock
) -> None:
    alice, bob = parties(town, registered=False)
    true, false = town.deal(alice, bob, paid=PAID), town.deal(alice, bob, paid=PAID, opens=False)
    async with Offices(town) as offices:
        library = await offices.open("library", keeps_for_others=True)
        await library.take(true, false)
        town.now = UnixMs(town.now + ARRIVALS_WAIT_MS + 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(library.receipts.prove_arrivals)
            await trio.sleep(ARRIVALS_EVERY_S + 1)
            nursery.cancel_scope.cancel()
        rows = await _proofs(library.store, alice)
        assert rows == {true.lease_id: Proof.SEEN, false.lease_id: Proof.REFUTED}


async def test_what_was_looked_up_too_soon_is_looked_up_again_soon(town: Town) -> None:
    """The tick of its settlement could not be read yet."""
    alice, bob = parties(town, registered=False)
    open_ = town.deal(alice, bob, paid=PAID, closes=False)
    pays = [layout.pay_input(open_.said.escrow_id, open_.said.cumulative, open_.said.voucher)]
    where = town.send(alice, Procedure.REDEEM_MANY, layout.redeem_many_input(pays), layout.SIGNATURE_BOND)
    deal = Deal(alice, bob, open_.signed_terms, open_.said, Settlement(open_.lease_id, *where))
    async with Offices(town) as offices:
        offices.advertise(alice)
        judge = await offices.open("judge", keeps_for_others=True)
        await judge.take(deal)
        await judge.score(alice)
        assert await _proofs(judge.store, alice) == {deal.lease_id: Proof.CLAIMED}
        town.pass_ticks(20)
        town.now = UnixMs(town.now + ARRIVALS_WAIT_MS + 1)
        await judge.score(alice)
        assert await _proofs(judge.store, alice) == {deal.lease_id: Proof.SEEN}


async def test_a_receipt_that_cannot_be_looked_up_keeps_no_other_waiting(
    town: Town, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive may have no answer at all for the odd tick that somebody wrote into his receipt."""
    alice, bob = parties(town, registered=False)
    true = town.deal(alice, bob, paid=PAID)
    odd = [town.deal(alice, bob, paid=PAID) for _ in range(3)]
    cursed, transactions = {deal.said.open_tick for deal in odd}, town.chain.transactions

    async def answers(tick: Tick) -> tuple[bytes, ...] | None:
        if tick in cursed:
            raise ChainUnreachable("the archive refuses")
        return await transactions(tick)

    monkeypatch.setattr(town.chain, "transactions", answers)
    async with Offices(town) as offices:
        library = await offices.open("library", keeps_for_others=True)
        await library.take(true)
        town.now = UnixMs(town.now + 1)
        await library.take(*odd)  # newer, so they have their turn first
        town.now = UnixMs(town.now + ARRIVALS_WAIT_MS + 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(library.receipts.prove_arrivals)
            await trio.sleep(ARRIVALS_EVERY_S + 1)
            nursery.cancel_scope.cancel()
        proofs = await _proofs(library.store, alice)
        assert proofs.pop(true.lease_id) == Proof.SEEN
        assert set(proofs.values()) == {Proof.CLAIMED}
        left = await receipts.unchecked(library.store, town.now, 9, b"")
        assert not left


async def _proofs(store: Store, alice: Party) -> dict[bytes, str]:
    kept = await receipts.of_provider(store, alice.key.public, 10, b"")
    return {row.lease_id: row.proof for row, _ in kept}
