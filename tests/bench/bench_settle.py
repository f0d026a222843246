"""Settlement: is every voucher paid exactly once, what does checking one cost, how soon is a tick known."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Final

import trio
import trio.testing

from escrow_bridge import layout, qubic
from escrow_bridge.bridge import Bridge, OpenOrder, RedeemOrder
from escrow_bridge.chain import Chain
from escrow_bridge.devnet.__main__ import CONTRACT_INDEX, build_engine
from escrow_bridge.devnet.engine import Engine, Rules
from escrow_bridge.devnet.local import LocalChain
from escrow_bridge.devnet.server import Server
from escrow_bridge.node import open_node_chain
from protocol import lease_provider, signing
from protocol.messages import Voucher
from protocol.signing import NodeKey
from protocol.units import EscrowId, LeaseId, Qu, Tick, UnixMs
from qubixd.desk import check_voucher
from tests.support.chains import FUNDS, TICK_SECONDS, Store, World, wallet_of
from tests.support.lease_plan import make_terms
from tests.support.many_leases import DEPOSIT, ManyLeases, losing

LEASES: Final = 1_000
DEATHS: Final = (3, 11, 17)
"""The provider's daemon dies after so many ticks each and goes on from what it had saved."""
ROUNDS: Final = 2_000
TICK_MS: Final = 250
EVENTS: Final = 120


def paid_once() -> dict[str, object]:
    """1,000 open leases closed with their vouchers while a third of all transactions is dropped."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    many = trio.run(_paid_once, clock=clock)
    return {
        "value": many.paid_once(),
        "unit": "leases",
        "reference": f"{LEASES} open leases",
        "detail": {
            "dropped_share": 1 / 3,
            "daemon_deaths": many.deaths,
            "transactions_signed": many.sent() - LEASES,
            "ticks": many.world.chain.engine.tick_info().tick - many.views[0].open_tick,
        },
    }


async def _paid_once() -> ManyLeases:
    async with _thousand() as many:
        await many.redeem_all(die_after_ticks=DEATHS)
    return many


@asynccontextmanager
async def _thousand() -> AsyncIterator[ManyLeases]:
    """Open leases on a network that loses a third of all further transactions."""
    funds = [(wallet_of(0).public_key, Qu(1_000 * DEPOSIT)), (wallet_of(1).public_key, FUNDS)]
    world = World(LocalChain(build_engine(Rules(), funds)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.tick_for_ever)
        many = ManyLeases(world, LEASES)
        await many.open()
        world.chain.loses = losing(1 / 3)
        yield many
        nursery.cancel_scope.cancel()


def cashed_together() -> dict[str, object]:
    """1,000 vouchers cashed while their leases go on, nine in a transaction, a third of them dropped."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    transactions = trio.run(_cashed_together, clock=clock)
    return {
        "value": round(LEASES / transactions, 2),
        "unit": "vouchers per transaction",
        "reference": "one transaction for each voucher",
        "detail": {
            "paid_once": LEASES,
            "dropped_share": 1 / 3,
            "daemon_deaths": len(DEATHS),
            "transactions_in_ticks": transactions,
        },
    }


async def _cashed_together() -> int:
    """Raises AssertionError unless each voucher was paid exactly once."""
    async with _thousand() as many:
        since = many.world.chain.engine.tick_info().tick
        for ticks in DEATHS:
            with trio.move_on_after(ticks * TICK_SECONDS):
                await many.cash_all(many.bridge(many.world.provider))
        await many.cash_all(many.bridge(many.world.provider))
        return many.check_cashed(since, LEASES)


def voucher_vs_raw_verify() -> dict[str, object]:
    """All that the desk does to a voucher that has arrived, against one SchnorrQ verification alone."""
    caller, key = wallet_of(0), NodeKey(bytes(32))
    escrow_id, lease_id = EscrowId(b"e" * 32), LeaseId(b"l" * 32)
    terms = make_terms(caller_id=caller.public_key, caller=key.public)
    lease, _ = lease_provider.new(lease_id, terms, peer_addresses=(), now=UnixMs(0))
    lease = replace(lease, escrow_id=escrow_id)
    envelopes, raw = [], []
    for number in range(ROUNDS):
        amount = Qu(1 + number)
        digest = layout.voucher_digest(escrow_id, amount)
        signature = caller.sign(digest)
        envelopes.append(key.sign(Voucher(lease_id, escrow_id, amount, signature)))
        raw.append((digest, signature))
    whole, alone = [], []
    for envelope, (digest, signature) in zip(envelopes, raw, strict=True):
        begun = time.perf_counter()
        check_voucher(signing.verify(envelope).message, lease)
        between = time.perf_counter()
        assert qubic.verify(caller.public_key, digest, signature)
        whole.append(between - begun)
        alone.append(time.perf_counter() - between)
    ours, reference = statistics.median(whole), statistics.median(alone)
    return {
        "value": round(ours / reference, 3),
        "unit": "ratio",
        "reference": "one SchnorrQ verification by the same library",
        "detail": {"voucher_us": round(ours * 1e6, 1), "raw_us": round(reference * 1e6, 1), "rounds": ROUNDS},
    }


def event_lag_s() -> dict[str, object]:
    """From the moment a tick with a redeem or an opening has run to the event, over a real socket."""
    lags = sorted(trio.run(_event_lags))
    return {
        "value": round(lags[int(len(lags) * 0.99)], 4),
        "unit": "s",
        "reference": "the end of the transaction's tick",
        "detail": {
            "p50": round(statistics.median(lags), 4),
            "max": round(lags[-1], 4),
            "events": len(lags),
            "tick_ms": TICK_MS,
        },
    }


async def _event_lags() -> list[float]:
    caller, provider = wallet_of(0), wallet_of(1)
    funds = [(one.public_key, Qu(10_000_000)) for one in (caller, provider)]
    engine = build_engine(Rules(TICK_MS), funds)
    ran_at: dict[Tick, float] = {}
    lags: list[float] = []
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(partial(trio.serve_listeners, Server(engine).handle, listeners))
        nursery.start_soon(_make_ticks, engine, ran_at)
        port = listeners[0].socket.getsockname()[1]
        async with open_node_chain([f"127.0.0.1:{port}"]) as chain:
            buying = Bridge(chain, caller, CONTRACT_INDEX)
            terms = LeaseId(hashlib.sha256(b"lag").digest())
            order = OpenOrder(provider.public_key, terms, Qu(EVENTS * 10), 50_000, challenge_ticks=16)
            view = await buying.open_escrow(order, b"", Store().save)
            nursery.start_soon(_redeem_again_and_again, chain, caller, provider, view.escrow_id)
            paid = 0
            async with aclosing(buying.reader.watch(view.escrow_id, view.open_tick)) as changes:
                async for change in changes:
                    assert change is not None
                    if change.paid > paid:
                        paid = change.paid
                        lags.append(time.perf_counter() - _ran(engine, ran_at, view.escrow_id, change.paid))
                    if change.paid >= EVENTS * 10:
                        break
            nursery.cancel_scope.cancel()
    return lags


async def _make_ticks(engine: Engine, ran_at: dict[Tick, float]) -> None:
    while True:
        await trio.sleep(TICK_MS / 1_000)
        tick = engine.tick_info().tick
        engine.advance()
        ran_at[tick] = time.perf_counter()


async def _redeem_again_and_again(
    chain: Chain, caller: qubic.Wallet, provider: qubic.Wallet, escrow_id: EscrowId
) -> None:
    """A new voucher every few ticks, each on its own way: what is measured is the watcher."""
    async with trio.open_nursery() as nursery:
        for number in range(1, EVENTS + 1):
            amount = Qu(number * 10)
            signature = caller.sign(layout.voucher_digest(escrow_id, amount))
            order = RedeemOrder(escrow_id, amount, signature)
            # By a bridge of its own, else they would share transactions.
            selling = Bridge(chain, provider, CONTRACT_INDEX)
            nursery.start_soon(selling.redeem, order, b"", Store().save)
            await trio.sleep(0.4137)  # not in step with the ticks


def _ran(engine: Engine, ran_at: dict[Tick, float], escrow_id: EscrowId, paid: Qu) -> float:
    """When the tick ran in which so much was first paid."""
    for tick, at in reversed(ran_at.items()):
        for raw in (engine.past(tick) or {}).values():
            transaction = qubic.parse_transaction(raw)
            if transaction.input_type == layout.Procedure.REDEEM:
                redeemed = layout.parse_pay_input(transaction.payload)
                if redeemed[:2] == (escrow_id, paid):
                    return at
    raise AssertionError(f"no tick in which {paid} QU were redeemed")


BENCHES: Final = {
    "settle.paid_once": paid_once,
    "settle.cashed_together": cashed_together,
    "settle.voucher_vs_raw_verify": voucher_vs_raw_verify,
    "settle.event_lag_s": event_lag_s,
}
