"""Where errors of a peer end: each of these places takes them also beside a cancellation.

A nursery that is cancelled while one of its tasks fails raises both in one group, and what leaves such a
place would end the whole node.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
import trio
import trio.testing
from libp2p.abc import INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.io.abc import ReadWriteCloser
from libp2p.peer.id import ID
from libp2p.tools.anyio_service.api import ServiceAPI
from multiaddr import Multiaddr

from qubixd.wire import StreamCut
from qubixd.wire_libp2p import Limits, WireConfig
from qubixd.wire_libp2p.opening import build
from qubixd.wire_libp2p.patches import GuardedManager
from qubixd.wire_libp2p.swarm import GuardedSwarm

PEER = ID.from_pubkey(create_new_key_pair(bytes(32)).public_key)
ADDRESS = Multiaddr("/ip4/127.0.0.1/tcp/1")


async def _breaks() -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise StreamCut("the peer went in the very moment in which we were cancelled")


async def two_causes(*_: object) -> Any:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_breaks)
        await trio.sleep_forever()


class _Stream:
    """A stream as far as its ends go; also a connection that comes in."""

    muxed_conn = None

    async def reset(self) -> None:
        await trio.lowlevel.checkpoint()

    def get_protocol(self) -> str:
        return "/served/1"

    def get_remote_address(self) -> None:
        return None


async def _handler(swarm: GuardedSwarm) -> None:
    await swarm._run_handler(two_causes, cast(INetStream, _Stream()), PEER)


async def _inbound(swarm: GuardedSwarm) -> None:
    await swarm._handle_inbound_connection(cast(ReadWriteCloser, _Stream()), ADDRESS)


async def _dial(swarm: GuardedSwarm) -> None:
    await swarm._dial_one(ADDRESS, PEER, trio.Event(), trio.CancelScope())


async def _task(swarm: GuardedSwarm) -> None:
    manager = GuardedManager(cast(ServiceAPI, swarm))
    await manager._run_guarded(two_causes, (), daemon=True)


@pytest.mark.parametrize("fence", [_handler, _inbound, _dial, _task])
async def test_a_peer_that_goes_as_we_are_cancelled_ends_nothing_else(
    fence: Callable[[GuardedSwarm], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = build(WireConfig("127.0.0.1", 0, ()), bytes(32), Limits())
    for name in ("upgrade_inbound_raw_conn", "_dial_addr_single_attempt"):
        monkeypatch.setattr(wire.swarm, name, two_causes)
    wire._served.add("/served/1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fence, wire.swarm)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not wire.swarm._inbound and not wire.swarm._handshakes
    assert wire.counters.handler_errors == 0, "it is no bug of ours"
