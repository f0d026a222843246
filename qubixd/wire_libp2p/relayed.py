"""Connections through a relay: noise and yamux over a stream that the relay has joined.

They are connections like others, with the keys of their two ends, so that a relay that swaps, changes or
reorders anything gets a connection that fails. Only new streams of peers without a direct connection take
them, gossip never does, and one without streams ends soon.
"""

from __future__ import annotations

import logging

import trio
from libp2p.connection_types import ConnectionType
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from protocol.errors import PeerUnreachable, QubixError, RelayRefused
from protocol.messages import Ack
from protocol.paths import PathKind
from protocol.relay_messages import Connect, Incoming
from protocol.units import PeerKey
from qubixd.relay import ASK_SECONDS, RELAY_PROTOCOL, RELAYED_PROTOCOL
from qubixd.talk import receive_bare, refusal_of, send_bare
from qubixd.wire import Stream, Wire
from qubixd.wire_libp2p.identity import key_of, libp2p_id
from qubixd.wire_libp2p.peers import Peers
from qubixd.wire_libp2p.swarm import GuardedSwarm

log = logging.getLogger(__name__)

_CHUNK = 131_072


class StreamIO(ReadWriteCloser):
    """A wire stream as what libp2p secures; `read(n)` returns exactly n bytes, as with TCP."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def read(self, n: int | None = None) -> bytes:
        while len(self._buffer) < (n or 1):
            try:
                chunk = await self._stream.receive_some(_CHUNK)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise ConnectionClosedError("the relayed stream broke", transport="relay") from error
            if not chunk:
                raise ConnectionClosedError("the peer closed the connection", transport="relay")
            self._buffer += chunk
        size = n or len(self._buffer)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def write(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError("the relayed stream broke", transport="relay") from error

    async def close(self) -> None:
        await self._stream.aclose()

    def get_remote_address(self) -> tuple[str, int] | None:
        return None


class RelayedConnections:
    """Dials peers through relays, and is dialled through those in `relays`."""

    def __init__(self, wire: Wire, swarm: GuardedSwarm, book: Peers) -> None:
        self._wire, self._swarm, self._book = wire, swarm, book
        self.relays: frozenset[PeerKey] = frozenset()
        wire.serve(RELAYED_PROTOCOL, self._incoming)

    async def dial(self, target: ID, relay: ID, addresses: list[Multiaddr]) -> None:
        """One more connection with a peer, through a relay at these addresses. PeerUnreachable, with the
        relay's words if it had some."""
        key, wanted = key_of(relay), key_of(target)
        assert key is not None and wanted is not None, "addresses name Ed25519 peers only"
        try:
            await self._reach(relay, addresses)
            stream = await self._wire.open(key, RELAY_PROTOCOL)
            try:
                await send_bare(stream, Connect(wanted))
                await receive_bare(stream, Ack, seconds=2 * ASK_SECONDS)
                await self._secure(stream, target, relay)
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
        except QubixError as error:
            raise PeerUnreachable(f"the relay {relay} does not help: {error}") from error

    async def _reach(self, relay: ID, addresses: list[Multiaddr]) -> None:
        """A direct connection with a relay; its addresses are a rumour until it has answered there."""
        if relay == self._swarm.self_id:
            raise PeerUnreachable("a node does not relay for itself")
        if not self._book.connected(relay):
            await self._book.dial(relay, addresses)
        key = key_of(relay)
        if key is None or self._wire.path_of(key) is not PathKind.WIRE:
            raise PeerUnreachable("a relay is reached directly or not at all")

    async def _secure(self, stream: Stream, target: ID, relay: ID) -> None:
        try:
            with trio.fail_after(self._swarm.limits.dial_seconds):
                await self._swarm.upgrade_outbound_raw_conn(_raw(stream, relay, initiator=True), target)
        except Exception as error:
            raise PeerUnreachable("what answers there is not that peer, or it was cut off") from error

    async def _incoming(self, stream: Stream, relay: PeerKey) -> None:
        incoming = await receive_bare(stream, Incoming, seconds=ASK_SECONDS)
        if relay not in self.relays or self._wire.path_of(relay) is not PathKind.WIRE:
            refusal = RelayRefused("this node has not asked to be reached through you")
            await send_bare(stream, refusal_of(refusal))
            return
        await send_bare(stream, Ack())
        name = libp2p_id(relay)
        raw = _raw(stream, name, initiator=False)
        await self._swarm.take(raw, _way(name), f"relay {name}", libp2p_id(incoming.source))


def _way(relay: ID) -> Multiaddr:
    return Multiaddr(f"/p2p/{relay}/p2p-circuit")


def _raw(stream: Stream, relay: ID, *, initiator: bool) -> RawConnection:
    return RawConnection(StreamIO(stream), initiator, ConnectionType.RELAYED, [_way(relay)])
