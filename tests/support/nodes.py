"""Devnet nodes and RPCs on loopback in the test's own process, ticked by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial

import trio

from escrow_bridge.devnet.__main__ import build_engine
from escrow_bridge.devnet.engine import Engine, Rules
from escrow_bridge.devnet.server import Server
from escrow_bridge.node_peer import Timing
from escrow_bridge.qubic import sign_transaction
from protocol.units import Qu, Tick
from tests.support.chains import wallet_of

RICH, OTHER = wallet_of(0), wallet_of(1)
FAST = Timing(
    connect_seconds=3.0,
    answer_seconds=2.0,
    first_retry_seconds=0.02,
    last_retry_seconds=0.1,
    agree_seconds=0.3,
)
"""For nodes that answer, on a machine that may be slow."""
BRISK = replace(FAST, connect_seconds=1.0, answer_seconds=1.0)
"""For tests that wait until nobody has answered."""
PATIENCE_SECONDS = 100.0
Handler = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def serving(*handlers: Handler) -> AsyncIterator[list[str]]:
    """Addresses of in-process servers, one per handler, gone at the end. A client may hang up on them."""
    async with trio.open_nursery() as nursery:
        addresses = []
        for handler in handlers:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, partial(_until_hung_up, handler), listeners)
            addresses.append(f"127.0.0.1:{listeners[0].socket.getsockname()[1]}")
        with trio.fail_after(PATIENCE_SECONDS):
            yield addresses
        nursery.cancel_scope.cancel()


async def _until_hung_up(handler: Handler, stream: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):
        await handler(stream)


def engine_at(offset: int = 0, funds: int = 1_000) -> Engine:
    """A devnet `offset` ticks after its start, in which RICH has `funds` QU."""
    engine = build_engine(Rules(), [(RICH.public_key, Qu(funds))])
    for _ in range(offset):
        engine.advance()
    return engine


def never_sent(tick: Tick) -> bytes:
    """A transaction for a tick that nobody has seen."""
    return sign_transaction(RICH, OTHER.public_key, Qu(999), tick)


def node(engine: Engine) -> Handler:
    return Server(engine).handle
