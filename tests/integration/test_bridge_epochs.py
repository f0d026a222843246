"""Money orders through epoch changes: nodes fall silent, the first ticks of an epoch lose transactions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import pytest
import trio

from escrow_bridge import layout
from escrow_bridge.bridge import Bridge, CloseOrder, OpenOrder
from escrow_bridge.chain import Chain
from escrow_bridge.escrow import Settled, read_info
from escrow_bridge.node import open_node_chain
from escrow_bridge.qubic import Wallet
from escrow_bridge.rpc import open_rpc_chain
from protocol.errors import ChainDisagrees, ChainUnreachable
from protocol.units import LeaseId, Qu, QubicId, fee_of
from tests.support.chains import Store, wallet_of
from tests.support.devnet_process import devnet_process
from tests.support.nodes import FAST

FUNDS = Qu(1_000_000)
CALLER, PROVIDER = wallet_of(0), wallet_of(1)
TICK_SECONDS = 0.2
HASTY = replace(FAST, connect_seconds=1.0, answer_seconds=0.5)
"""A silence lasts less than half a second, and `insist` asks again."""
DEALS = 6
T = TypeVar("T")


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """What the daemon does with an order while nobody answers: it calls again."""
    while True:
        try:
            return await call()
        except (ChainUnreachable, ChainDisagrees):
            await trio.sleep(TICK_SECONDS)


@dataclass
class Network:
    chain: Chain
    index: int

    def bridge(self, wallet: Wallet) -> Bridge:
        return Bridge(self.chain, wallet, self.index, tick_offset=6, poll_seconds=TICK_SECONDS / 2)

    async def balance(self, owner: QubicId) -> Qu:
        return (await insist(lambda: self.chain.balance(owner))).amount

    async def deal(self, number: int) -> None:
        """Open, and close with a voucher; each a moment later, so that they meet epochs anywhere."""
        await trio.sleep(number * 7 * TICK_SECONDS)
        caller, provider = Store(), Store()
        order = OpenOrder(PROVIDER.public_key, LeaseId(bytes([number] * 32)), Qu(1_000), 2_000, 20)
        view = await insist(lambda: self.bridge(CALLER).open_escrow(order, caller.scratch, caller.save))
        signature = CALLER.sign(layout.voucher_digest(view.escrow_id, Qu(400)))
        closing = CloseOrder(view.escrow_id, Qu(400), signature)
        settled = await insist(lambda: self.bridge(PROVIDER).close(closing, provider.scratch, provider.save))
        assert settled == Settled(Qu(400), Qu(600), certain=True)


@pytest.fixture(params=["nodes", "rpc"])
async def network(request: pytest.FixtureRequest) -> AsyncIterator[Network]:
    funds = [(CALLER.public_key, FUNDS), (PROVIDER.public_key, FUNDS)]
    options = ["--nodes", "3", "--epoch-ticks", "18"]
    async with devnet_process(funds, tick_seconds=TICK_SECONDS, options=options) as devnet:
        over_rpc = request.param == "rpc"
        opened = (
            open_rpc_chain(devnet.chains["rpc"], HASTY)
            if over_rpc
            else open_node_chain(devnet.ready["nodes"], HASTY)
        )
        async with opened as chain:
            yield Network(chain, devnet.contract_index)


@pytest.mark.slow
async def test_orders_survive_epoch_changes_and_run_once(network: Network) -> None:
    with trio.fail_after(250):
        first = await insist(network.chain.tick_info)
        async with trio.open_nursery() as nursery:
            for number in range(DEALS):
                nursery.start_soon(network.deal, number)
        last = await insist(network.chain.tick_info)
        info = await insist(lambda: read_info(network.chain, network.index))
        assert last.epoch > first.epoch + 1
        assert (info.opened, info.closed, info.open_balance) == (DEALS, DEALS, 0)
        assert await network.balance(CALLER.public_key) == FUNDS - DEALS * 400
        assert await network.balance(PROVIDER.public_key) == FUNDS + DEALS * (400 - fee_of(Qu(400)))
