"""How a muxed connection ends when two causes meet."""

from __future__ import annotations

from typing import cast

import trio
from libp2p.abc import ISecureConn
from libp2p.connection_types import ConnectionType
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.peer.id import ID

from qubixd.wire_libp2p.yamux import Yamux


class _BreaksAtTheEnd:
    """A connection whose peer goes away in the very moment in which we stop reading."""

    is_initiator = True

    def get_connection_type(self) -> ConnectionType:
        return ConnectionType.DIRECT

    async def read(self) -> bytes:
        try:
            await trio.sleep_forever()
        finally:
            raise ConnectionClosedError("reset", transport="tcp")

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_a_peer_that_goes_as_we_are_cancelled_is_no_error() -> None:
    peer = ID.from_pubkey(create_new_key_pair(bytes(32)).public_key)
    muxed = Yamux(cast(ISecureConn, _BreaksAtTheEnd()), peer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(muxed.start)
        await muxed.event_started.wait()
        nursery.cancel_scope.cancel()
    assert muxed.event_closed.is_set()
