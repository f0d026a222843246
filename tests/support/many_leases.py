"""Many open leases of one caller with one provider, all to be closed over a network that loses a part."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import trio

from escrow_bridge import layout
from escrow_bridge.bridge import Bridge, CloseOrder, OpenOrder, RedeemOrder
from escrow_bridge.devnet.__main__ import CONTRACT_INDEX
from escrow_bridge.devnet.engine import Engine
from escrow_bridge.escrow import Settled
from escrow_bridge.layout import EscrowView, Function, Procedure
from escrow_bridge.qubic import Transaction, Wallet, parse_transaction, transaction_digest
from protocol.units import LeaseId, Qu, Tick, net_of
from tests.support.chains import FUNDS, TICK_SECONDS, Store, World

DEPOSIT = Qu(500)


def losing(share: float) -> Callable[[Transaction], bool]:
    """Loses that share of all transactions, the same ones however often they are sent."""

    def loses(transaction: Transaction) -> bool:
        chance = int.from_bytes(hashlib.sha256(transaction.signature).digest()[:4], "big")
        return chance < share * 2**32

    return loses


@dataclass
class ManyLeases:
    world: World
    count: int
    one_pending: bool = False
    views: list[EscrowView] = field(default_factory=list)
    stores: list[Store] = field(default_factory=list)
    settled: dict[int, Settled] = field(default_factory=dict)
    deaths: int = 0

    def promised(self, number: int) -> Qu:
        return Qu(1 + number * 37 % DEPOSIT)

    async def open(self) -> None:
        """Open all of them, at once."""
        bridge = self.bridge(self.world.caller)
        found: dict[int, EscrowView] = {}

        async def one(number: int) -> None:
            terms = LeaseId(hashlib.sha256(b"lease %d" % number).digest())
            order = OpenOrder(self.world.provider.public_key, terms, DEPOSIT, 5_000, challenge_ticks=16)
            found[number] = await bridge.open_escrow(order, b"", Store().save)

        async with trio.open_nursery() as nursery:
            for number in range(self.count):
                nursery.start_soon(one, number)
        self.views = [found[number] for number in range(self.count)]
        self.stores = [Store() for _ in range(self.count)]

    async def redeem_all(self, *, die_after_ticks: tuple[int, ...] = ()) -> None:
        """Close each lease with its voucher. The provider dies after so many ticks, and goes on with what
        it had saved, once for every entry."""
        for ticks in die_after_ticks:
            with trio.move_on_after(ticks * TICK_SECONDS):
                await self._redeem_all()
            self.deaths += 1
        await self._redeem_all()

    async def _redeem_all(self) -> None:
        bridge = self.bridge(self.world.provider)
        async with trio.open_nursery() as nursery:
            for number in set(range(self.count)) - self.settled.keys():
                nursery.start_soon(partial(self._redeem, bridge, number))

    async def _redeem(self, bridge: Bridge, number: int) -> None:
        escrow_id, cumulative, store = (
            self.views[number].escrow_id,
            self.promised(number),
            self.stores[number],
        )
        signature = self.world.caller.sign(layout.voucher_digest(escrow_id, cumulative))
        settled = await bridge.close(CloseOrder(escrow_id, cumulative, signature), store.scratch, store.save)
        assert settled is not None, "gone before anything was sent"
        self.settled[number] = settled

    def voucher(self, number: int) -> RedeemOrder:
        view = self.views[number]
        voucher = self.world.voucher(view.escrow_id, self.promised(number))
        return replace(voucher, opened=view.open_tick)

    async def cash(self, bridge: Bridge, number: int) -> None:
        """Redeem one voucher, while the lease goes on."""
        store = self.stores[number]
        view = await bridge.redeem(self.voucher(number), store.scratch, store.save)
        assert view is not None and view.paid == self.promised(number)

    async def cash_all(self, bridge: Bridge) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(self.count):
                nursery.start_soon(self.cash, bridge, number)

    def check_cashed(self, since: Tick, most: int) -> int:
        """Every voucher is paid, once, by how many transactions in ticks: at most so many."""
        engine = self.world.chain.engine
        gained = self.world.balance(self.world.provider) - FUNDS
        assert gained == sum(net_of(self.promised(number)) for number in range(self.count))
        for number, view in enumerate(self.views):
            payload = layout.escrow_input(view.escrow_id)
            output = engine.host.query(CONTRACT_INDEX, Function.GET_ESCROW, payload)
            now = layout.decode_reading(view.escrow_id, output)
            assert now is not None and now.view is not None and now.view.paid == self.promised(number)
        sent = len(sent_by(engine, self.world.provider, since))
        assert sent <= most
        return sent

    def paid_once(self) -> int:
        """Leases whose close was executed in exactly one tick and reported with the right sums; 0 if the
        wallets do not show exactly that."""
        gained = self.world.balance(self.world.provider) - FUNDS
        if gained != sum(net_of(self.promised(number)) for number in range(self.count)):
            return 0
        closes = self.closes_in_ticks()
        return sum(
            closes[view.escrow_id] == 1
            and self.settled[number] == Settled(promised, Qu(DEPOSIT - promised), certain=True)
            for number, view in enumerate(self.views)
            for promised in (self.promised(number),)
        )

    def closes_in_ticks(self) -> Counter[bytes]:
        """How many transactions that close each escrow are in the chain's ticks."""
        engine = self.world.chain.engine
        last = engine.tick_info().tick
        raws = (
            parse_transaction(raw)
            for tick in range(self.views[0].open_tick, last)
            for raw in (engine.past(Tick(tick)) or {}).values()
        )
        return Counter(
            layout.parse_pay_input(one.payload)[0] for one in raws if one.input_type == Procedure.CLOSE
        )

    def sent(self) -> int:
        """Different transactions that were handed to the network."""
        return len({transaction_digest(raw) for raw in self.world.chain.broadcasts})

    def bridge(self, wallet: Wallet) -> Bridge:
        return Bridge(
            self.world.chain,
            wallet,
            CONTRACT_INDEX,
            one_pending=self.one_pending,
            poll_seconds=TICK_SECONDS / 2,
        )


def sent_by(engine: Engine, wallet: Wallet, since: Tick) -> list[bytes]:
    """The wallet's transactions in the ticks from `since` on."""
    ticks = (engine.past(Tick(tick)) or {} for tick in range(since, engine.tick_info().tick))
    return [raw for included in ticks for raw in included.values() if raw.startswith(wallet.public_key)]
