"""Every place where this node differs inside libp2p 0.8, each with the pitfall it closes.

All are overridden methods of libp2p's own classes. `replaces` looks the original up when this module
is imported: a libp2p in which one was renamed or removed stops the program here, with its name,
instead of quietly running without the protection.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import trio
from libp2p.abc import IMuxedConn, INetConn, INetStream
from libp2p.custom_types import StreamHandlerFn
from libp2p.exceptions import ParseError
from libp2p.host.basic_host import BasicHost
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import IOException
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.protocol_muxer.exceptions import MultiselectCommunicatorError
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.pubsub import rpc_queue
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.tools.anyio_service.api import ServiceAPI
from libp2p.tools.anyio_service.trio_manager import TrioManager
from libp2p.utils.varint import read_varint_prefixed_bytes_limited
from multiaddr import Multiaddr

from qubixd.wire_libp2p.identity import key_of
from qubixd.wire_libp2p.limits import Limits
from qubixd.wire_libp2p.yamux import Budget, Yamux

log = logging.getLogger(__name__)

for _name in ("libp2p", "libp2p.network.auto_connector", "multiaddr"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)
"""Their ERROR is what any stranger can cause (a refused dial, a broken frame); we report ourselves."""

MAX_RPC_BYTES: Final = 65_536
MAX_TOPIC_BYTES: Final = 128
MAX_SUBSCRIPTIONS: Final = 100
_MAX_LINE: Final = 1_024
"""Of multistream-select: a protocol name and its end of line."""
_OUTBOUND_RPCS: Final = 256

_F = TypeVar("_F", bound=Callable[..., Any])


def replaces(base: type, *, pitfall: str) -> Callable[[_F], _F]:
    """Marks an override of `base`, and fails at import when there is nothing to override."""

    def check(method: _F) -> _F:
        if not hasattr(base, method.__name__):
            raise ImportError(
                f"{base.__name__}.{method.__name__} is gone from this libp2p; it closed: {pitfall}"
            )
        return method

    return check


class GuardedManager(TrioManager):
    """Runs a libp2p service whose tasks may fail without ending the service."""

    @replaces(TrioManager, pitfall="one failing task, or the 1001st child task, ends the whole service")
    def run_task(
        self,
        async_fn: Callable[..., Awaitable[Any]],
        *args: Any,
        daemon: bool = False,
        name: str | None = None,
        _internal: bool = False,
    ) -> None:
        if _internal:
            super().run_task(async_fn, *args, daemon=daemon, name=name, _internal=True)
        elif self._task_nursery is not None and self.is_running:
            self._task_nursery.start_soon(self._run_guarded, async_fn, args, daemon)

    async def _run_guarded(
        self, async_fn: Callable[..., Awaitable[Any]], args: tuple[Any, ...], daemon: bool
    ) -> None:
        while True:
            try:
                await async_fn(*args)
                return
            except* Exception:
                log.warning("a libp2p task failed: %s", async_fn, exc_info=True)
            if not daemon:
                return
            await trio.sleep(1)


@asynccontextmanager
async def running(service: ServiceAPI) -> AsyncIterator[None]:
    """Runs a libp2p service for the block."""
    async with trio.open_nursery() as nursery:
        manager = GuardedManager(service)
        nursery.start_soon(manager.run)
        await manager.wait_started()
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()


async def _read_short_line(self: MultiselectCommunicator) -> str:
    """One multistream-select line; a longer or garbled one ends the negotiation."""
    try:
        line = await read_varint_prefixed_bytes_limited(self.read_writer, _MAX_LINE)
        return line.decode().removesuffix("\n")
    except (ParseError, IOException, UnicodeDecodeError) as error:
        raise MultiselectCommunicatorError("the peer sent no line of multistream-select") from error


if not hasattr(MultiselectCommunicator, "read"):
    raise ImportError("libp2p's MultiselectCommunicator.read is gone; it closed: lines without an end")
MultiselectCommunicator.read = _read_short_line  # type: ignore[method-assign]  # it takes lines of any length


class YamuxOnly(MuxerMultistream):
    """Negotiates /yamux/1.0.0 and nothing else, and makes our connections."""

    def __init__(self, limits: Limits) -> None:
        super().__init__({"/yamux/1.0.0": Yamux}, int(limits.handshake_seconds))  # type: ignore[dict-item]  # a NewType of str
        self._limits = limits
        self.budget = Budget(limits.unread_bytes)

    @replaces(MuxerMultistream, pitfall="4, 12, 13: libp2p's yamux, whatever class is registered")
    async def new_conn(self, conn: Any, peer_id: ID) -> IMuxedConn:
        await self._selector.select(conn, conn.is_initiator, self.negotiate_timeout)
        return Yamux(conn, peer_id, self._limits, self.budget)


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
        ip = remote[0] if remote else "unknown"
        if not self._admit(ip):
            await read_write_closer.close()
            return
        self._inbound[ip] += 1
        self._handshakes[ip] += 1
        raw = RawConnection(read_write_closer, False)
        try:
            await self._serve_inbound(raw, maddr, ip)
        except* Exception as errors:
            log.debug("inbound connection from %s: %r", ip, errors.exceptions)
        finally:
            _release(self._inbound, ip)

    def _admit(self, ip: str) -> bool:
        limits = self.limits
        return (
            self._inbound[ip] < limits.connections_per_ip
            and self._inbound.total() < limits.inbound_connections
            and self._handshakes[ip] < limits.handshakes_per_ip
            and self._handshakes.total() < limits.handshakes
        )

    async def _serve_inbound(self, raw: RawConnection, maddr: Multiaddr, ip: str) -> None:
        try:
            with trio.fail_after(self.limits.handshake_seconds):
                muxed = await self.upgrade_inbound_raw_conn(raw, maddr)
        finally:
            _release(self._handshakes, ip)
        assert isinstance(muxed, Yamux)
        await muxed.event_closed.wait()

    @replaces(Swarm, pitfall="banned peers come back; one peer holds many connections")
    async def add_conn(self, muxed_conn: IMuxedConn, direction: str = "unknown") -> SwarmConn:
        peer = muxed_conn.peer_id
        if peer == self.self_id or key_of(peer) is None or not self.allowed(peer):
            await muxed_conn.close()
            raise SwarmException(f"no connection with {peer} is wanted")
        conn = await super().add_conn(muxed_conn, direction)
        for old in self.get_connections(peer)[: -self.limits.connections_per_peer]:
            self.manager.run_task(old.close)
        return conn

    @replaces(Swarm, pitfall="11: 250 ms per dial, one TCP address only, peers blocked for 60 s")
    async def dial_peer(self, peer_id: ID) -> list[INetConn]:
        if peer_id in self._dials:
            await self._dials[peer_id].wait()
        elif not self._live(peer_id):
            event = self._dials[peer_id] = trio.Event()
            try:
                await self._race(peer_id, self.peerstore.addrs(peer_id))
            finally:
                del self._dials[peer_id]
                event.set()
        if live := self._live(peer_id):
            return live
        raise SwarmException(f"no address of {peer_id} answered")

    def _live(self, peer_id: ID) -> list[INetConn]:
        return [conn for conn in self.get_connections(peer_id) if not conn.is_closed]

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


def _release(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]


class QuietHost(BasicHost):
    """A host that answers identify but believes nobody's."""

    @replaces(BasicHost, pitfall="identify keeps whatever lists of protocols and addresses a peer sends")
    def _schedule_identify(self, peer_id: ID, *, reason: str) -> None:
        return None


class Router(GossipSub):
    """Gossipsub 1.1 without what costs memory, and with its losses told."""

    on_drop: Callable[[], None]

    @replaces(GossipSub, pitfall="10: what does not fit a peer's queue is dropped in silence")
    def _handle_dropped_rpc(self, peer_id: ID, rpc: rpc_pb2.RPC, reason: str) -> None:
        super()._handle_dropped_rpc(peer_id, rpc, reason)
        self.on_drop()

    @replaces(GossipSub, pitfall="one timestamp per message is kept for ever when adaptive gossip is off")
    def _periodic_security_cleanup(self) -> None:
        super()._periodic_security_cleanup()
        self.recent_message_deliveries.clear()

    @replaces(GossipSub, pitfall="a peer that joins while we leave breaks the loop over the mesh")
    async def leave(self, topic: str) -> None:
        for peer in self.mesh.pop(topic, set()):
            self._add_back_off(peer, topic, True)
            await self.emit_prune(topic, peer, self.do_px, True)

    @replaces(GossipSub, pitfall="peer exchange dials whatever addresses a stranger names")
    async def _do_px(self, px_peers: list[rpc_pb2.PeerInfo]) -> None:
        return None


class GuardedPubsub(Pubsub):
    """Reads in order, one message at a time, and leaves every judgement to `judge`."""

    judge: Callable[[ID, rpc_pb2.Message], bool]
    """Synchronous: is this message of that forwarder new, right and to be forwarded?"""
    wait_turn: Callable[[ID], Awaitable[None]]
    """Returns when that peer's next message may be taken."""
    read_frames: Callable[[INetStream], AsyncIterator[bytes]]

    @replaces(Pubsub, pitfall="2, 10: garbage ends the service; a task per message; bytes read one by one")
    async def stream_handler(self, stream: INetStream) -> None:
        peer = stream.muxed_conn.peer_id
        async for payload in self.read_frames(stream):
            rpc = rpc_pb2.RPC.FromString(payload)
            for subscription in rpc.subscriptions[:MAX_SUBSCRIPTIONS]:
                if len(subscription.topicid) <= MAX_TOPIC_BYTES:
                    self.handle_subscription(peer, subscription)
            for message in rpc.publish:
                await self.wait_turn(peer)
                await self.push_msg(peer, message)
            if rpc.HasField("control"):
                await self.router.handle_rpc(self._known_topics_only(rpc.control), peer)

    def _known_topics_only(self, control: rpc_pb2.ControlMessage) -> rpc_pb2.RPC:
        """Without topics of the peer's invention, each of which libp2p would remember."""
        topics = self.topic_ids
        known = rpc_pb2.ControlMessage(
            ihave=[entry for entry in control.ihave if entry.topicID in topics],
            iwant=control.iwant,
            graft=[entry for entry in control.graft if entry.topicID in topics],
            prune=[
                rpc_pb2.ControlPrune(topicID=entry.topicID, backoff=entry.backoff)
                for entry in control.prune
                if entry.topicID in topics
            ],
        )
        return rpc_pb2.RPC(control=known)

    @replaces(Pubsub, pitfall="3, 5, 6, 7: bad keys end the service, duplicates pass, nobody is punished")
    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        if msg_forwarder == self.my_id:
            self._mark_msg_seen(msg)
        elif not self.judge(msg_forwarder, msg):
            return
        await self.router.publish(msg_forwarder, msg)

    @replaces(Pubsub, pitfall="10: more than 32 waiting messages to a peer are dropped")
    async def _handle_new_peer(self, peer_id: ID) -> None:
        await super()._handle_new_peer(peer_id)
        queue = self.peer_queues.get(peer_id)
        if queue is not None:
            queue._queue.max_size = _OUTBOUND_RPCS


if not hasattr(rpc_queue.RpcQueue()._queue, "max_size"):
    raise ImportError("libp2p's RpcQueue has no max_size any more; it closed: 10, dropped messages")
