"""The swarm: who may have a connection, how peers are dialled, what their streams may break.

Where it differs from libp2p's own is marked as in patches.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

import trio
from libp2p.abc import IMuxedConn, INetConn, INetStream
from libp2p.custom_types import StreamHandlerFn
from libp2p.io.abc import ReadWriteCloser
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from qubixd.wire_libp2p.addresses import tcp_address
from qubixd.wire_libp2p.door import Door
from qubixd.wire_libp2p.identity import key_of
from qubixd.wire_libp2p.limits import Limits
from qubixd.wire_libp2p.patches import replaces
from qubixd.wire_libp2p.tcp import BufferedTcp, BufferedTcpTransport
from qubixd.wire_libp2p.yamux import Yamux

log = logging.getLogger(__name__)


class NoAutoConnector(AutoConnector):
    """Peers are chosen by us."""

    @replaces(AutoConnector, pitfall="11: with no connection it dials any 75 known addresses")
    async def maybe_connect(self) -> None:
        return None


class GuardedSwarm(Swarm):
    """Connections: who may have one, how they are dialled, what their streams may break."""

    limits: Limits
    allowed: Callable[[ID], bool]
    """False for peers that are banned for now."""
    on_handler_error: Callable[[ID, INetStream, ExceptionGroup[Exception]], None]
    on_stream: Callable[[bool], None]
    """Called for every inbound stream: was it taken?"""

    def prepare(self, limits: Limits) -> None:
        """Set the counters this class adds."""
        self.limits = limits
        self.door = Door(limits)
        self.auto_connector = NoAutoConnector(self)
        self._inbound: Counter[str] = Counter()
        self._handshakes: Counter[str] = Counter()
        self._handlers: Counter[ID] = Counter()
        self._dials: dict[ID, trio.Event] = {}

    @replaces(Swarm, pitfall="2: an exception in any stream handler ends the host")
    def set_stream_handler(self, stream_handler: StreamHandlerFn) -> None:
        async def guarded(stream: INetStream) -> None:
            peer = stream.muxed_conn.peer_id
            taken = self._handlers[peer] < self.limits.streams_per_peer
            self.on_stream(taken)
            if not taken:
                await stream.reset()
                return
            self._handlers[peer] += 1
            try:
                await self._run_handler(stream_handler, stream, peer)
            finally:
                self._handlers[peer] -= 1
                if not self._handlers[peer]:
                    del self._handlers[peer]

        self.common_stream_handler = guarded

    async def _run_handler(self, handler: StreamHandlerFn, stream: INetStream, peer: ID) -> None:
        try:
            await handler(stream)
            await stream.close()
        except* Exception as errors:
            self.on_handler_error(peer, stream, errors)
            await stream.reset()

    @replaces(Swarm, pitfall="inbound slots are freed at shutdown only; no cap on unfinished handshakes")
    async def _handle_inbound_connection(self, read_write_closer: ReadWriteCloser, maddr: Multiaddr) -> None:
        remote = read_write_closer.get_remote_address()
        await self.take(RawConnection(read_write_closer, False), maddr, remote[0] if remote else "unknown")

    async def take(
        self, raw: RawConnection, maddr: Multiaddr, source: str, expected: ID | None = None
    ) -> None:
        """Run an inbound connection until it ends, if there is room for one more from that IP (or relay), and
        the peer is the expected one, if any is."""
        if not self._admit(source):
            await raw.close()
            return
        self._inbound[source] += 1
        self._handshakes[source] += 1
        try:
            await self._serve_inbound(raw, maddr, source, expected)
        except* Exception as errors:
            log.debug("inbound connection from %s: %r", source, errors.exceptions)
        finally:
            _release(self._inbound, source)

    def _admit(self, ip: str) -> bool:
        limits = self.limits
        return (
            self._inbound[ip] < limits.connections_per_ip
            and self._inbound.total() < limits.inbound_connections
            and self._handshakes[ip] < limits.handshakes_per_ip
            and self._handshakes.total() < limits.handshakes
        )

    async def _serve_inbound(
        self, raw: RawConnection, maddr: Multiaddr, ip: str, expected: ID | None
    ) -> None:
        try:
            with trio.fail_after(self.limits.handshake_seconds):
                if isinstance(raw.stream, BufferedTcp) and not await self.door.is_libp2p(raw.stream.stream):
                    await raw.close()
                    return
                muxed = await self.upgrade_inbound_raw_conn(raw, maddr)
        finally:
            _release(self._handshakes, ip)
        assert isinstance(muxed, Yamux)
        if expected not in (None, muxed.peer_id):
            log.debug("a relay announced %s and brought %s", expected, muxed.peer_id)
            await muxed.close()
        await muxed.event_closed.wait()

    @replaces(Swarm, pitfall="banned peers come back; one peer holds many connections")
    async def add_conn(self, muxed_conn: IMuxedConn, direction: str = "unknown") -> SwarmConn:
        peer = muxed_conn.peer_id
        if peer == self.self_id or key_of(peer) is None or not self.allowed(peer):
            await muxed_conn.close()
            raise SwarmException(f"no connection with {peer} is wanted")
        conn = await super().add_conn(muxed_conn, direction)
        relayed = _relay(conn) is not None
        alike = [each for each in self.get_connections(peer) if (_relay(each) is not None) == relayed]
        for old in alike[: -self.limits.connections_per_peer]:
            self.manager.run_task(old.close)
        return conn

    @replaces(Swarm, pitfall="11: 250 ms per dial, one TCP address only, peers blocked for 60 s")
    async def dial_peer(self, peer_id: ID) -> list[INetConn]:
        raise SwarmException(f"there is no connection with {peer_id}; peers are dialled by Peers")

    async def dial_direct(self, peer_id: ID, addresses: list[Multiaddr]) -> None:
        """Make sure of a connection without a relay; SwarmException if no address answers."""
        if peer_id in self._dials:
            await self._dials[peer_id].wait()
        elif not self.direct(peer_id):
            event = self._dials[peer_id] = trio.Event()
            try:
                await self._race(peer_id, addresses)
            finally:
                del self._dials[peer_id]
                event.set()
        if not self.direct(peer_id):
            raise SwarmException(f"no address of {peer_id} answered")

    async def answers(self, ip: str, port: int, peer_id: ID) -> bool:
        """Whether that peer proves its key there, on a connection that ends at once."""
        proved = False
        with trio.move_on_after(self.limits.reach_seconds):
            try:
                raw = await BufferedTcpTransport().dial(Multiaddr(tcp_address(ip, port)))
                try:
                    await self.upgrader.upgrade_security(raw, True, peer_id)
                    proved = True
                finally:
                    await raw.close()
            except* Exception as errors:
                log.debug("%s does not answer at %s port %d: %r", peer_id, ip, port, errors.exceptions)
        return proved

    @replaces(Swarm, pitfall="of two connections the busier one is taken, although nothing comes from it")
    def _best_connection(self, connections: list[INetConn]) -> INetConn:
        return max(connections, key=_worth)

    def direct(self, peer_id: ID) -> list[INetConn]:
        """Live connections without a relay."""
        return [conn for conn in self.get_connections(peer_id) if not conn.is_closed and _relay(conn) is None]

    async def _race(self, peer_id: ID, addresses: list[Multiaddr]) -> None:
        """Start one dial after another, the next when one fails or is slow; the first success ends it."""
        with trio.CancelScope() as won:
            async with trio.open_nursery() as nursery:
                for address in addresses:
                    failed = trio.Event()
                    nursery.start_soon(self._dial_one, address, peer_id, failed, won)
                    with trio.move_on_after(self.limits.dial_stagger_seconds):
                        await failed.wait()

    async def _dial_one(
        self, address: Multiaddr, peer_id: ID, failed: trio.Event, won: trio.CancelScope
    ) -> None:
        try:
            with trio.fail_after(self.limits.dial_seconds):
                await self._dial_addr_single_attempt(address, peer_id)
        except* Exception as errors:
            log.debug("dialling %s: %r", address, errors.exceptions)
            failed.set()
        else:
            won.cancel()


def _relay(conn: INetConn) -> ID | None:
    return conn.muxed_conn.relay if isinstance(conn.muxed_conn, Yamux) else None


def _worth(conn: INetConn) -> tuple[bool, float]:
    """Direct before relayed, then the one from which something came last."""
    return _relay(conn) is None, conn.muxed_conn.heard_at if isinstance(conn.muxed_conn, Yamux) else 0.0


def _release(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
