"""The bridge over real sockets against the devnet process: every way a channel can end, no QU lost.

All of it over one node, with QubiPy's native library and in both processes without it; and with the
library over three nodes and over the HTTP RPC.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass

import pytest
import trio

from escrow_bridge import layout
from escrow_bridge.bridge import Bridge, CloseOrder, FinalizeOrder, OpenOrder, RedeemOrder, RequestCloseOrder
from escrow_bridge.chain import Chain
from escrow_bridge.escrow import Settled, read_info
from escrow_bridge.layout import EscrowView
from escrow_bridge.node import open_node_chain
from escrow_bridge.qubic import Wallet, contract_id
from escrow_bridge.rpc import open_rpc_chain
from protocol.units import LeaseId, Qu, fee_of, net_of
from tests.support.chains import Store, adding, wallet_of
from tests.support.devnet_process import devnet_process
from tests.support.signatures import IMPLEMENTATIONS, signing_with

FUNDS = Qu(1_000_000)
CALLER, PROVIDER = wallet_of(0), wallet_of(1)
DEPOSIT = Qu(1_000)
ADDED = Qu(300)
TICK_SECONDS = 0.1
WIDTH = {"node": 1, "nodes": 3}


@dataclass
class Market:
    chain: Chain
    contract_index: int

    def bridge(self, wallet: Wallet) -> Bridge:
        return Bridge(self.chain, wallet, self.contract_index, tick_offset=6, poll_seconds=TICK_SECONDS / 2)

    async def open(self, terms: int, deadline_ticks: int = 2_000) -> EscrowView:
        # A challenge of eight seconds: a slow machine may need some tries to bring a voucher in time.
        order = OpenOrder(PROVIDER.public_key, LeaseId(bytes([terms] * 32)), DEPOSIT, deadline_ticks, 80)
        return await self.bridge(CALLER).open_escrow(order, b"", Store().save)

    async def balances(self) -> tuple[int, int, int]:
        """(caller, provider, contract)."""
        owners = (CALLER.public_key, PROVIDER.public_key, contract_id(self.contract_index))
        caller, provider, contract = [(await self.chain.balance(owner)).amount for owner in owners]
        return caller, provider, contract


WAYS = [(way, IMPLEMENTATIONS[0]) for way in ("node", "nodes", "rpc")]
WAYS += [("node", other) for other in IMPLEMENTATIONS[1:]]


@pytest.fixture(params=WAYS, ids="-".join)
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """How the chain is reached, while signatures are made in a certain way."""
    name, implementation = request.param
    with signing_with(implementation):
        yield name


@pytest.fixture
async def market(way: str) -> AsyncIterator[Market]:
    funds = [(CALLER.public_key, FUNDS), (PROVIDER.public_key, FUNDS)]
    async with devnet_process(funds, tick_seconds=TICK_SECONDS, options=["--nodes", "3"]) as devnet:
        nodes = devnet.ready["nodes"]
        chain_url = f"rpc+{devnet.ready['rpc']}"
        opened = open_rpc_chain(chain_url) if way == "rpc" else open_node_chain(nodes[: WIDTH[way]])
        async with opened as chain:
            yield Market(chain, devnet.contract_index)


def voucher(escrow: EscrowView, cumulative: int) -> RedeemOrder:
    signature = CALLER.sign(layout.voucher_digest(escrow.escrow_id, Qu(cumulative)))
    return RedeemOrder(escrow.escrow_id, Qu(cumulative), signature)


def closing(escrow: EscrowView, cumulative: int) -> CloseOrder:
    order = voucher(escrow, cumulative)
    return CloseOrder(order.escrow_id, order.cumulative, order.signature)


async def test_every_ending_conserves_the_money(market: Market) -> None:
    paid, added = [Qu(1_150), Qu(250), Qu(0)], [ADDED, Qu(0), Qu(0)]
    with trio.fail_after(100):
        opened = [await market.open(terms, deadline) for terms, deadline in ((1, 2_000), (2, 2_000), (3, 64))]
        assert await market.balances() == (FUNDS - 3 * DEPOSIT, FUNDS, 3 * DEPOSIT)
        async with trio.open_nursery() as nursery:
            endings = (by_provider, by_caller, by_expiry)
            for ending, escrow, due, more in zip(endings, opened, paid, added, strict=True):
                nursery.start_soon(ending, market, escrow)
                settled = Settled(due, Qu(DEPOSIT + more - due), certain=True)
                nursery.start_soon(follow, market, escrow, settled)
        fees = sum(fee_of(amount) for amount in paid)
        assert await market.balances() == (
            FUNDS - sum(paid),
            FUNDS + sum(net_of(amount) for amount in paid),
            fees,
        )
        info = await read_info(market.chain, market.contract_index)
        assert (info.open_balance, info.fees_undistributed, info.volume) == (0, fees, sum(paid))
        assert (info.opened, info.closed) == (3, 3)


async def follow(market: Market, escrow: EscrowView, ending: Settled) -> None:
    """To its end, as a daemon does: who first looks when it is over may find that its ticks are forgotten."""
    reader, seen = market.bridge(CALLER).reader, escrow
    async with aclosing(reader.watch(escrow.escrow_id, escrow.open_tick)) as views:
        async for view in views:
            if view is None:
                break
            seen = view
    assert await reader.how_it_ended(seen) == ending


async def by_provider(market: Market, escrow: EscrowView) -> None:
    """When the caller has added to the deposit, for more than it was at first."""
    provider = market.bridge(PROVIDER)
    topped = await market.bridge(CALLER).top_up(adding(escrow, ADDED), b"", Store().save)
    assert (topped.deposit, topped.deadline_tick) == (DEPOSIT + ADDED, escrow.deadline_tick + 100)
    view = await provider.redeem(voucher(escrow, 100), b"", Store().save)
    assert view is not None and view.paid == 100
    settled = await provider.close(closing(escrow, 1_150), b"", Store().save)
    assert settled == Settled(Qu(1_150), Qu(150), certain=True)


async def by_caller(market: Market, escrow: EscrowView) -> None:
    caller = market.bridge(CALLER)
    closing_view = await caller.request_close(RequestCloseOrder(escrow.escrow_id), b"", Store().save)
    assert closing_view is not None and closing_view.close_tick > 0
    await market.bridge(PROVIDER).redeem(voucher(escrow, 250), b"", Store().save)
    await caller.finalize(FinalizeOrder(escrow.escrow_id), b"", Store().save)


async def by_expiry(market: Market, escrow: EscrowView) -> None:
    """Nobody does anything."""


async def test_many_orders_at_once_share_a_connection(market: Market) -> None:
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            for terms in range(20):
                nursery.start_soon(market.open, terms)
        caller, provider, contract = await market.balances()
        assert (caller, provider, contract) == (FUNDS - 20 * DEPOSIT, FUNDS, 20 * DEPOSIT)
