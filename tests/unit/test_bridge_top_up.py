"""More deposit and time for an open channel: added once, whatever is lost, copied, cut or repeated."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from escrow_bridge import layout
from escrow_bridge.bridge import Bridge, CloseOrder, RequestCloseOrder, TopUpOrder
from escrow_bridge.chain import Outcome
from escrow_bridge.devnet.__main__ import CONTRACT_INDEX
from escrow_bridge.escrow import Settled
from escrow_bridge.layout import EscrowView, Function, Procedure
from escrow_bridge.qubic import Transaction, contract_id, sign_transaction
from escrow_bridge.topping_up import MAX_ATTEMPTS
from protocol.errors import BalanceTooLow, ChainUnreachable, FundingFailed
from protocol.units import LeaseId, Qu, Tick, net_of
from tests.support.chains import FUNDS, TICK_SECONDS, Crash, Store, World, adding, make_world
from tests.support.many_leases import sent_by


@pytest.fixture
async def world(nursery: trio.Nursery) -> World:
    world = make_world()
    nursery.start_soon(world.tick_for_ever)
    return world


async def add(world: World, order: TopUpOrder, store: Store | None = None) -> EscrowView:
    """By a bridge that knows only what the store has, as after a restart."""
    store = store or Store()
    return await world.bridge(world.caller).top_up(order, store.scratch, store.save)


def held(world: World, amount: int) -> bool:
    """Whether the contract has exactly that, and the caller the rest."""
    return (world.locked, world.balance(world.caller)) == (amount, FUNDS - amount)


def send(world: World, order: TopUpOrder, amount: Qu | None = None, *, ticks: int = 3) -> None:
    """A transaction that no bridge knows of."""
    tick = Tick(world.chain.engine.tick_info().tick + ticks)
    payload = layout.top_up_input(order.escrow_id, order.before, order.deadline_tick)
    amount = order.added if amount is None else amount
    raw = sign_transaction(world.caller, contract_id(CONTRACT_INDEX), amount, tick, Procedure.TOP_UP, payload)
    assert world.chain.engine.submit(raw) is None


async def test_it_adds_what_was_ordered_and_moves_the_deadline(
    world: World, autojump_clock: MockClock
) -> None:
    escrow = await world.open(1_000)
    view = await add(world, adding(escrow, 500))
    assert view == replace(escrow, deposit=Qu(1_500), deadline_tick=Tick(escrow.deadline_tick + 100))
    assert held(world, 1_500)
    again = await add(world, adding(view, 1, ticks=0))
    assert again == replace(view, deposit=Qu(1_501))


async def test_repeating_it_sends_nothing_more(world: World, autojump_clock: MockClock) -> None:
    escrow, store = await world.open(1_000), Store()
    order, since = adding(escrow, 500), world.chain.engine.tick_info().tick
    view = await add(world, order, store)
    assert await add(world, order, store) == await add(world, order) == view
    assert len(sent_by(world.chain.engine, world.caller, since)) == store.saves == 1


async def test_a_lost_transaction_is_sent_again_for_a_later_tick(
    world: World, autojump_clock: MockClock
) -> None:
    escrow, lost = await world.open(1_000), set[Tick]()

    def loses(transaction: Transaction) -> bool:
        if len(lost) < 2:
            lost.add(transaction.tick)
        return transaction.tick in lost

    world.chain.loses = loses
    assert (await add(world, adding(escrow, 500))).deposit == 1_500
    assert len(lost) == 2 and held(world, 1_500)


async def test_a_network_that_loses_everything_ends_in_an_error(
    world: World, autojump_clock: MockClock
) -> None:
    escrow, store = await world.open(1_000, deadline_ticks=2_000), Store()
    world.chain.loses = lambda transaction: True
    with pytest.raises(FundingFailed, match="lost all"):
        await add(world, adding(escrow, 500), store)
    assert store.saves == MAX_ATTEMPTS and held(world, 1_000)


@pytest.mark.parametrize("copies", [1, 3])
async def test_copies_that_nobody_remembers_add_nothing(
    world: World, autojump_clock: MockClock, copies: int
) -> None:
    """A ledger that was put back to an earlier day has no scratch; its transaction may still be under way."""
    escrow = await world.open(1_000)
    order = adding(escrow, 500)
    for ticks in range(3, 3 + copies):
        send(world, order, ticks=ticks)
    assert (await add(world, order)).deposit == 1_500
    await world.chain.advance(20)
    assert held(world, 1_500)


async def test_a_node_that_wrongly_says_missed_causes_no_second_one(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    escrow = await world.open(1_000)

    async def lies(transaction: bytes) -> Outcome:
        return Outcome.MISSED

    monkeypatch.setattr(world.chain, "outcome", lies)
    assert (await add(world, adding(escrow, 500))).deposit == 1_500
    assert held(world, 1_500)


@pytest.mark.parametrize("dies_before", [True, False])
@pytest.mark.parametrize("dies_at", [1, 2])
async def test_dying_at_a_save_never_adds_twice(
    world: World, autojump_clock: MockClock, dies_at: int, dies_before: bool
) -> None:
    escrow, first = await world.open(1_000), list[Tick]()

    def loses(transaction: Transaction) -> bool:
        first.append(transaction.tick)
        return transaction.tick == first[0]

    world.chain.loses = loses
    order, store = adding(escrow, 500), Store(dies_at=dies_at, dies_before=dies_before)
    with pytest.raises(Crash):
        await add(world, order, store)
    await trio.sleep(3 * TICK_SECONDS)
    assert (await add(world, order, store)).deposit == 1_500
    assert held(world, 1_500)


@pytest.mark.parametrize("quarters", range(0, 33, 4))
async def test_dying_at_any_instant_never_adds_twice(
    world: World, autojump_clock: MockClock, quarters: int
) -> None:
    escrow, store = await world.open(1_000), Store()
    order = adding(escrow, 500)
    with trio.move_on_after(quarters * TICK_SECONDS / 4 + 0.01):
        await add(world, order, store)
    for pause in (0, 5):
        await trio.sleep(pause)
        await add(world, order, store)
    assert held(world, 1_500)


async def test_of_long_ago_it_is_read_from_the_contract_and_then_sent_again(
    world: World, autojump_clock: MockClock
) -> None:
    """Nobody can say any more whether the first was in its tick; that it did nothing is certain."""
    escrow, store = await world.open(1_000, deadline_ticks=5_000), Store(dies_at=1)
    order = adding(escrow, 500)
    with pytest.raises(Crash):
        await add(world, order, store)
    await world.chain.advance(world.chain.engine.rules.keep_ticks + 10)
    assert (await add(world, order, store)).deposit == 1_500
    assert store.saves == 2 and held(world, 1_500)


async def test_an_unreachable_chain_is_told_before_and_waited_for_after_sending(
    world: World, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    escrow, store = await world.open(1_000), Store()
    order = adding(escrow, 500)
    world.chain.reachable = False
    with pytest.raises(ChainUnreachable):
        await add(world, order, store)

    async def save_and_cut(scratch: bytes) -> None:
        await store.save(scratch)
        world.chain.reachable = store.saves > 1

    async def mend() -> None:
        await trio.sleep(20 * TICK_SECONDS)
        world.chain.reachable = True

    world.chain.reachable = True
    nursery.start_soon(mend)
    view = await world.bridge(world.caller).top_up(order, b"", save_and_cut)
    assert (view.deposit, store.saves) == (1_500, 2) and held(world, 1_500)


def answer_late(world: World, old: bytes, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The first seven times the node shows an escrow as it was; gives what it was asked."""
    real_query, asked = world.chain.query, list[int]()

    async def late(contract: int, input_type: int, payload: bytes, *, tick_at: int | None = None) -> bytes:
        if input_type != Function.GET_ESCROW:
            return await real_query(contract, input_type, payload)
        asked.append(input_type)
        return old if len(asked) < 8 else await real_query(contract, input_type, payload)

    monkeypatch.setattr(world.chain, "query", late)
    return asked


async def test_a_late_node_that_shows_an_earlier_deposit_is_waited_for(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it shows was true before the first top-up."""
    escrow = await world.open(1_000)
    old = await world.chain.query(CONTRACT_INDEX, Function.GET_ESCROW, escrow.escrow_id)
    once = await add(world, adding(escrow, 500))
    asked = answer_late(world, old, monkeypatch)
    order = replace(adding(once, 200), opened=escrow.open_tick)
    assert (await add(world, order)).deposit == 1_700
    assert len(asked) >= 8 and held(world, 1_700)


@pytest.mark.parametrize("closes", [False, True])
async def test_a_provider_at_a_late_node_cashes_what_is_above_the_first_deposit(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, closes: bool
) -> None:
    """After a restart, when it knows how much it has seen there."""
    escrow = await world.open(1_000)
    old = await world.chain.query(CONTRACT_INDEX, Function.GET_ESCROW, escrow.escrow_id)
    topped = await add(world, adding(escrow, 500))
    asked = answer_late(world, old, monkeypatch)
    bridge, known = world.bridge(world.provider), (escrow.open_tick, topped.deposit)
    if closes:
        closing = world.closing(escrow.escrow_id, 1_400)
        order = replace(closing, opened=known[0], held=known[1])
        assert await bridge.close(order, b"", Store().save) == Settled(Qu(1_400), Qu(100), certain=True)
    else:
        voucher = replace(world.voucher(escrow.escrow_id, 1_400), opened=known[0], held=known[1])
        view = await bridge.redeem(voucher, b"", Store().save)
        assert view is not None and view.paid == 1_400
    assert len(asked) >= 8


async def test_too_low_a_balance_is_told_before_anything_is_sent(
    world: World, autojump_clock: MockClock
) -> None:
    escrow, store = await world.open(1_000), Store()
    sent = len(world.chain.broadcasts)
    with pytest.raises(BalanceTooLow, match="send it at least 1 QU"):
        await add(world, adding(escrow, FUNDS - 999), store)
    assert (store.saves, len(world.chain.broadcasts)) == (0, sent)


@pytest.mark.parametrize(
    ("amount", "ticks", "reason"),
    [
        (0, 100, "takes 1 to"),
        (500, -1, "takes a new deadline"),
        (500, layout.MAX_DEADLINE_TICKS, "takes a new deadline"),
    ],
)
async def test_what_the_contract_would_refuse_is_never_sent(
    world: World, autojump_clock: MockClock, amount: int, ticks: int, reason: str
) -> None:
    escrow = await world.open(1_000)
    sent = len(world.chain.broadcasts)
    with pytest.raises(FundingFailed, match=reason):
        await add(world, adding(escrow, amount, ticks))
    assert len(world.chain.broadcasts) == sent


async def test_the_limits_are_the_contracts(world: World, autojump_clock: MockClock) -> None:
    """To the tick and to the QU."""
    escrow = await world.open(1_000)
    most, ahead = 10**15, 4
    latest = world.chain.engine.tick_info().tick + ahead + layout.MAX_DEADLINE_TICKS
    world.chain.engine.host.credit(world.caller.public_key, most)
    order = replace(adding(escrow, 0), deposit=Qu(most), deadline_tick=Tick(latest), opened=escrow.open_tick)
    for wrong in (replace(order, deposit=Qu(most + 1)), replace(order, deadline_tick=Tick(latest + 1))):
        with pytest.raises(FundingFailed, match="takes"):
            await add(world, wrong)
    view = await add(world, order)
    assert (view.deposit, view.deadline_tick) == (most, latest)


async def test_nothing_is_added_to_what_closes_or_has_ended(world: World, autojump_clock: MockClock) -> None:
    escrow = await world.open(1_000)
    await world.bridge(world.caller).request_close(RequestCloseOrder(escrow.escrow_id), b"", Store().save)
    sent = len(world.chain.broadcasts)
    with pytest.raises(FundingFailed, match="closes in tick"):
        await add(world, adding(escrow, 500))
    assert len(world.chain.broadcasts) == sent
    order = CloseOrder(escrow.escrow_id, Qu(0), bytes(64))
    await world.bridge(world.provider).close(order, b"", Store().save)
    with pytest.raises(FundingFailed, match="has ended"):
        await add(world, adding(escrow, 500))
    assert held(world, 0)


async def test_nothing_is_added_too_late(world: World, autojump_clock: MockClock) -> None:
    """A transaction that would come after the end is not sent."""
    escrow = await world.open(1_000, deadline_ticks=40)
    await world.chain.advance(escrow.deadline_tick - world.chain.engine.tick_info().tick - 2)
    sent = len(world.chain.broadcasts)
    with pytest.raises(FundingFailed, match="too late"):
        await add(world, adding(escrow, 500))
    assert len(world.chain.broadcasts) == sent


async def test_another_order_that_came_first_is_not_added_to(world: World, autojump_clock: MockClock) -> None:
    escrow = await world.open(1_000)
    await add(world, adding(escrow, 300, ticks=10))
    with pytest.raises(FundingFailed, match="topped up to 1300 QU by another order"):
        await add(world, adding(escrow, 500))
    assert held(world, 1_300)


async def test_a_close_that_overtakes_it_leaves_the_money_in_the_wallet(
    world: World, autojump_clock: MockClock
) -> None:
    escrow = await world.open(1_000)
    results: list[str] = []

    async def add_more() -> None:
        try:
            await add(world, adding(escrow, 500))
        except FundingFailed as error:
            results.append(str(error))

    async with trio.open_nursery() as nursery:
        send_close = world.bridge(world.provider).close
        nursery.start_soon(send_close, world.closing(escrow.escrow_id, 400), b"", Store().save)
        await trio.sleep(1.5 * TICK_SECONDS)
        nursery.start_soon(add_more)
    assert results == ["the escrow has ended, and nothing more can be locked in it"]
    assert world.balance(world.caller) == FUNDS - 400


async def test_a_contract_without_fuel_gives_the_money_back(world: World, autojump_clock: MockClock) -> None:
    escrow = await world.open(1_000)
    world.chain.engine.host.set_reserve(CONTRACT_INDEX, 0)
    with pytest.raises(FundingFailed, match="out of fuel"):
        await add(world, adding(escrow, 500))
    assert held(world, 1_000)


async def test_two_of_all_the_money_at_once_lock_one(world: World, autojump_clock: MockClock) -> None:
    """A deposit and a top-up, by two daemons that do not know of each other."""
    escrow, results = await world.open(1_000), list[str]()
    rest = FUNDS - 1_000 - 1

    async def attempt(bridge: Bridge, opens: bool) -> None:
        other = replace(world.order(rest), terms=LeaseId(b"another lease".ljust(32)))
        try:
            if opens:
                await bridge.open_escrow(other, b"", Store().save)
            else:
                await bridge.top_up(adding(escrow, rest), b"", Store().save)
            results.append("locked")
        except (FundingFailed, BalanceTooLow):
            results.append("not")

    async with trio.open_nursery() as nursery:
        for opens in (True, False):
            nursery.start_soon(attempt, world.bridge(world.caller), opens)
    assert sorted(results) == ["locked", "not"] and held(world, FUNDS - 1)


# --- how it ended ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cumulative", [400, 1_300])
async def test_the_caller_learns_how_a_lease_that_was_topped_up_ended(
    world: World, autojump_clock: MockClock, cumulative: int
) -> None:
    """From what it had seen before: also when it was not there when the money came, or after the old end."""
    escrow = await world.open(1_000, deadline_ticks=60)
    await add(world, adding(escrow, 500))
    await world.chain.advance(escrow.deadline_tick + 20 - world.chain.engine.tick_info().tick)
    store = Store()
    settled = await world.bridge(world.provider).close(
        world.closing(escrow.escrow_id, cumulative), b"", store.save
    )
    assert settled == Settled(Qu(cumulative), Qu(1_500 - cumulative), certain=True)
    ended = await world.bridge(world.caller).reader.how_it_ended(escrow)
    assert ended == replace(settled, certain=False), "a top-up without cover would look the same"
    assert world.balance(world.caller) == FUNDS - cumulative


async def test_a_top_up_between_what_the_provider_saw_and_its_close_is_counted(
    world: World, autojump_clock: MockClock
) -> None:
    escrow = await world.open(1_000)
    send(world, adding(escrow, 500))
    settled = await world.bridge(world.provider).close(
        world.closing(escrow.escrow_id, 400), b"", Store().save
    )
    assert settled == Settled(Qu(400), Qu(1_100), certain=False)
    assert (world.balance(world.caller), world.balance(world.provider)) == (
        FUNDS - 400,
        FUNDS + net_of(Qu(400)),
    )
