"""Every place where this node differs inside libp2p 0.8, each with the pitfall it closes.

All are overridden methods of libp2p's own classes. `replaces` looks the original up when this module
is imported: a libp2p in which one was renamed or removed stops the program here, with its name,
instead of quietly running without the protection.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import trio
from libp2p.abc import IMuxedConn, INetStream
from libp2p.exceptions import ParseError
from libp2p.host.basic_host import BasicHost
from libp2p.io.exceptions import IOException
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
    is_direct: Callable[[ID], bool]
    """Whether a peer has a connection without a relay."""

    @replaces(Pubsub, pitfall="2, 10: garbage ends the service; a task per message; bytes read one by one")
    async def stream_handler(self, stream: INetStream) -> None:
        peer = stream.muxed_conn.peer_id
        if isinstance(stream.muxed_conn, Yamux) and stream.muxed_conn.relay is not None:
            await stream.reset()  # relays do not carry gossip
            return
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
        if not self.is_direct(peer_id):
            return
        await super()._handle_new_peer(peer_id)
        queue = self.peer_queues.get(peer_id)
        if queue is not None:
            queue._queue.max_size = _OUTBOUND_RPCS


if not hasattr(rpc_queue.RpcQueue()._queue, "max_size"):
    raise ImportError("libp2p's RpcQueue has no max_size any more; it closed: 10, dropped messages")
