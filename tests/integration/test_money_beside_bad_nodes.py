"""Money over three nodes of which one lies, lags, is silent, rude or gone: each order happens once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from escrow_bridge import layout
from escrow_bridge.bridge import Bridge, CloseOrder, OpenOrder
from escrow_bridge.chain import Chain
from escrow_bridge.devnet.__main__ import CONTRACT_INDEX
from escrow_bridge.devnet.engine import Engine
from escrow_bridge.escrow import Settled
from escrow_bridge.node import open_node_chain
from escrow_bridge.qubic import Wallet
from escrow_bridge.transfer import TransferOrder
from protocol.units import LeaseId, Qu, Tick, net_of
from tests.support.chains import Store, wallet_of
from tests.support.hostile_nodes import (
    busy,
    emptying,
    forging,
    hasty,
    hiding,
    huge,
    inventing,
    lying,
    mute,
    noisy,
    out_of_time,
    richer,
    rude,
    silent,
)
from tests.support.nodes import FAST, OTHER, RICH, Handler, engine_at, node, serving

FUNDS = 100_000
FRIEND = wallet_of(5)
TICK_SECONDS = 0.05
LIES = {
    "richer": richer(5),
    "ahead": out_of_time(1_000),
    "behind": out_of_time(-500),
    "forging": forging,
    "hiding": hiding,
    "inventing": inventing,
}
BROKEN = {one.__name__: one for one in (silent, rude, mute, huge, hasty, noisy, busy)}


def bad(name: str, engine: Engine) -> Handler:
    if name in BROKEN:
        return BROKEN[name]
    return emptying(engine) if name == "emptying" else lying(engine, LIES[name])


@pytest.mark.attack
@pytest.mark.parametrize("name", [*LIES, *BROKEN, "emptying", "refused"])
async def test_each_order_happens_once_beside_a_bad_node(name: str) -> None:
    engine = engine_at(funds=FUNDS)
    engine.host.credit(OTHER.public_key, FUNDS)
    async with serving(silent) as gone:
        pass
    handlers = [node(engine), node(engine)]
    if name != "refused":
        handlers.insert(0, bad(name, engine))
    async with serving(*handlers) as addresses, trio.open_nursery() as ticking:
        ticking.start_soon(_tick, engine)
        named = addresses if name != "refused" else [*gone, *addresses]
        async with open_node_chain(named, FAST) as chain:
            await _deal(chain)
        ticking.cancel_scope.cancel()
    assert engine.balance(FRIEND.public_key) == 300
    assert engine.balance(RICH.public_key) == FUNDS - 300 - 400
    assert engine.balance(OTHER.public_key) == FUNDS + net_of(Qu(400))
    past = [engine.past(Tick(tick)) or {} for tick in range(engine.first_tick, engine.tick_info().tick)]
    assert sum(map(len, past)) == 3


async def _tick(engine: Engine) -> None:
    while True:
        await trio.sleep(TICK_SECONDS)
        engine.advance()


async def _deal(chain: Chain) -> None:
    """Lock a deposit, pay a friend meanwhile, and close with a voucher."""

    def bridge(wallet: Wallet) -> Bridge:
        return Bridge(chain, wallet, CONTRACT_INDEX, tick_offset=12, poll_seconds=TICK_SECONDS / 2)

    order = OpenOrder(OTHER.public_key, LeaseId(bytes(32)), Qu(1_000), 2_000, challenge_ticks=20)
    caller, provider = bridge(RICH), bridge(OTHER)
    view = await caller.open_escrow(order, b"", Store().save)
    assert (await caller.transfer(TransferOrder(FRIEND.public_key, Qu(300)), b"", Store().save)).certain
    closing = CloseOrder(view.escrow_id, Qu(400), bytes(64), view.open_tick)
    signature = RICH.sign(layout.voucher_digest(view.escrow_id, Qu(400)))
    settled = await provider.close(replace(closing, signature=signature), b"", Store().save)
    assert settled == Settled(Qu(400), Qu(600), certain=True)
