"""The Wire: what the daemon needs from a network, without naming one.

Two implementations: `wire_libp2p` for the world, `tests.support.memory_wire` for tests. A stream is
a `trio.abc.HalfCloseableStream`: after `send_eof` the other direction stays open, `aclose` without
`send_eof` resets. Implementations raise only `PeerUnreachable` (cannot connect), `StreamBroken`
(cut in the middle) and trio's own `ClosedResourceError`/`BusyResourceError`.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import trio

from protocol.errors import MessageTooLarge, StreamBroken
from protocol.paths import PathKind
from protocol.units import PeerKey

Stream = trio.abc.HalfCloseableStream
StreamHandler = Callable[[Stream, PeerKey], Awaitable[None]]
"""Called once per inbound stream with the authenticated peer; the wire closes the stream after it."""
SocketHandler = Callable[[trio.SocketStream], Awaitable[None]]
"""Called once per inbound TCP connection whose first byte is not libp2p's, nothing of it read yet. It has
the time of a handshake and counts as one until it returns: then the socket is its own. If it fails or takes
too long the wire closes the socket."""


class StreamCut(StreamBroken, trio.BrokenResourceError):
    """What streams raise when the peer reset them or the connection is gone: trio's error for code
    that knows only trio streams, ours for code that answers people."""


FRAME_HEADER_BYTES: Final = 4
MAX_GOSSIP_BYTES: Final = 4_096


class Verdict(enum.Enum):
    """What a gossip validator says of one message."""

    ACCEPT = "accept"
    """Right and new: forward it."""
    IGNORE = "ignore"
    """Harmless but useless (old, seen): do not forward, do not punish."""
    REJECT = "reject"
    """Wrong: do not forward, count against the forwarder."""


GossipValidator = Callable[[bytes, PeerKey], Verdict]
"""Synchronous: (message bytes, forwarding peer) -> verdict. Ingest happens inside it."""


@dataclass
class WireCounters:
    """Running totals, for metrics and tests."""

    streams_in: int = 0
    streams_refused: int = 0
    handler_errors: int = 0
    gossip_in: int = 0
    gossip_rejected: int = 0
    gossip_ignored: int = 0
    peers_dropped: int = 0
    dials_failed: int = 0
    by_reason: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Outside:
    """How others see this node."""

    ips: tuple[str, ...] = ()
    """From where its connections come, what most say first."""
    reachable: bool | None = None
    """Whether others could open connections to it; None while nobody has tried."""
    reached_at: tuple[str, ...] = ()
    """IP:PORT where they could."""


class Wire(Protocol):
    """A running network endpoint. Obtained from an async context manager that starts and stops it."""

    @property
    def peer_key(self) -> PeerKey: ...
    @property
    def addresses(self) -> tuple[str, ...]:
        """Multiaddresses others can dial, each ending in /p2p/<peer id>; those through a relay come last and
        have /p2p-circuit in them."""
        ...

    @property
    def counters(self) -> WireCounters: ...

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Answer inbound streams of `protocol` (e.g. "/qubix/lease/1") with `handler`."""
        ...

    async def open(self, peer: PeerKey, protocol: str, addresses: Sequence[str] = ()) -> Stream:
        """Open a stream, dialling `addresses` (or those already known) when not connected."""
        ...

    def subscribe(self, topic: str, validator: GossipValidator) -> None:
        """Join a topic; every message from others passes through `validator` exactly once."""
        ...

    def unsubscribe(self, topic: str) -> None:
        """Leave a topic; nothing happens to one that was not joined."""
        ...

    async def publish(self, topic: str, data: bytes) -> None:
        """Send to a topic (joined or not). MessageTooLarge above MAX_GOSSIP_BYTES."""
        ...

    async def round_trip(self, peer: PeerKey, addresses: Sequence[str] = ()) -> float:
        """Seconds to a peer and back, over the connection there is or a new one. PeerUnreachable."""
        ...

    def remote_ip(self, peer: PeerKey) -> str | None:
        """Where a connected peer's bytes come from; None if it is not connected, or through a relay only."""
        ...

    def remote_address(self, peer: PeerKey) -> str | None:
        """The same as IP:PORT ([IP]:PORT for IPv6)."""
        ...

    def path_of(self, peer: PeerKey) -> PathKind | None:
        """How new streams with a peer travel: WIRE or RELAYED; None without a connection."""
        ...

    def relay_of(self, peer: PeerKey) -> PeerKey | None:
        """Who relays the streams with that peer, if anybody does."""
        ...

    def observed(self) -> Outside:
        """How this node looks from outside, as far as others have said."""
        ...

    def dialled(self) -> tuple[tuple[str, int], ...]:
        """IP and port of the listeners to which this node has opened its direct connections, newest first."""
        ...

    def recheck(self) -> None:
        """The network of this machine has changed, or it slept: connections that do not answer within
        seconds end, and others are asked anew how they see this node."""
        ...

    def take_sockets(self, first: int, handler: SocketHandler) -> None:
        """Give inbound TCP connections that begin with this byte to `handler`."""
        ...

    async def reaches(self, peer: PeerKey, port: int) -> bool:
        """Whether a connected peer answers, with its key, at that TCP port of where its connection comes
        from. A connection of its own, which ends at once."""
        ...

    def be_reached_through(self, relays: Mapping[PeerKey, Sequence[str]]) -> None:
        """Which relays bring others to this node, with the addresses of each: those are told to others, and
        nobody else may bring anybody. Replaces what was said before."""
        ...

    def peers(self) -> tuple[PeerKey, ...]:
        """Peers with a live connection."""
        ...

    def on_peer(self, callback: Callable[[PeerKey], None]) -> None:
        """Call `callback` (synchronously, it must not block) whenever a peer becomes connected."""
        ...


async def send_frame(stream: Stream, payload: bytes) -> None:
    """One length-prefixed message (u32 big-endian length, then the bytes)."""
    await stream.send_all(len(payload).to_bytes(FRAME_HEADER_BYTES, "big") + payload)


async def receive_frame(stream: Stream, max_bytes: int) -> bytes | None:
    """The next message, or None at a clean end of stream.

    Raises MessageTooLarge before reading a body above `max_bytes`, StreamBroken on a cut.
    """
    header = await _receive_exactly(stream, FRAME_HEADER_BYTES, clean_end=True)
    if header is None:
        return None
    size = int.from_bytes(header, "big")
    if size > max_bytes:
        raise MessageTooLarge(f"a peer announced a message of {size} bytes; at most {max_bytes} are taken")
    body = await _receive_exactly(stream, size, clean_end=False)
    assert body is not None
    return body


async def _receive_exactly(stream: Stream, size: int, *, clean_end: bool) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        try:
            chunk = await stream.receive_some(min(size - len(parts), 65_536))
        except trio.BrokenResourceError as error:
            raise StreamBroken("the connection broke in the middle of a message") from error
        if not chunk:
            if clean_end and not parts:
                return None
            raise StreamBroken("the peer ended the stream in the middle of a message")
        parts += chunk
    return bytes(parts)


def address_text(ip: str, port: int) -> str:
    """IP:PORT as people write it."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
