"""Yamux for one connection: many streams, each with bounded memory (github.com/hashicorp/yamux, spec.md).

Takes the place of libp2p's own muxer, through libp2p's door for muxers. Different here: frames leave
through one writer task, so a cancelled caller can never tear a frame; small frames share an encrypted
message; the receive window grows once, to a fixed size, and only for a reader that reads; a frame
beyond the window ends the connection; inbound streams are counted; a stalled reader stalls its own
stream for as long as it likes; silence is noticed.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import trio
from libp2p.abc import IMuxedConn, ISecureConn
from libp2p.connection_types import ConnectionType
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamError
from multiaddr import Multiaddr

from qubixd.wire_libp2p.limits import Limits
from qubixd.wire_libp2p.yamux_stream import (
    ACK,
    DATA,
    GO_AWAY,
    HEADER,
    INITIAL_WINDOW,
    LARGE_WINDOW,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    YamuxStream,
    frame,
)

log = logging.getLogger(__name__)

MAX_PLAINTEXT: Final = 65_519
"""One noise message: 65,535 less the 16-byte tag."""
_BACKLOG_FOR_DATA: Final = 256 * 1024
_BACKLOG_TO_WAKE: Final = 128 * 1024
"""Senders are woken by the batch, not by the frame."""
_BACKLOG_AT_ALL: Final = 1024 * 1024
_GROWN_PER_CONNECTION: Final = 8
"""Streams per connection that may have the large window at a time."""
_MAX_REFUSED: Final = 5_000
_MEASURED: Final = 0x8000_0000
"""Pings whose answer somebody waits for are numbered from here on."""
_PINGS_AT_ONCE: Final = 16


@dataclass
class Budget:
    """What all connections of a node share: received and unread bytes, and whom to tell of refusals."""

    limit: int
    used: int = 0
    on_refused: Callable[[], None] = lambda: None


class ProtocolViolation(Exception):
    """The peer broke the yamux rules; its connection ends."""


def _relay_of(conn: ISecureConn) -> ID | None:
    """Who carries a relayed connection: its address is /p2p/RELAY/p2p-circuit."""
    if conn.get_connection_type() is not ConnectionType.RELAYED:
        return None
    return ID.from_base58(conn.get_transport_addresses()[0].value_for_protocol("p2p") or "")


class Yamux(IMuxedConn):
    """One muxed connection. `start` runs it; it ends by `close`, by the peer or by silence."""

    on_close: Callable[[], Awaitable[None]] | None = None

    def __init__(
        self, conn: ISecureConn, peer_id: ID, limits: Limits | None = None, budget: Budget | None = None
    ) -> None:
        self.secured_conn = conn
        self.peer_id = peer_id
        self.limits = limits or Limits()
        self.budget = budget or Budget(self.limits.unread_bytes)
        self.relay = _relay_of(conn)
        self.event_started = trio.Event()
        self.event_closed = trio.Event()
        self.streams: dict[int, YamuxStream] = {}
        self.streams_refused = 0
        self.grown = 0
        self._closing = False
        self._scope = trio.CancelScope()
        self._next_id = 1 if conn.is_initiator else 2
        self._accepted: deque[YamuxStream] = deque()
        self._acceptors = trio.lowlevel.ParkingLot()
        self._outgoing: deque[bytes] = deque()
        self._backlog = 0
        self._writer = trio.lowlevel.ParkingLot()
        self._senders = trio.lowlevel.ParkingLot()
        self._pings: dict[int, trio.Event] = {}
        self._ping_number = 0
        self._used_at = self.heard_at = self._pong_at = trio.current_time()

    # What libp2p asks of a muxer

    @property
    def is_initiator(self) -> bool:
        return self.secured_conn.is_initiator

    @property
    def is_established(self) -> bool:
        return self.event_started.is_set() and not self._closing

    @property
    def is_closed(self) -> bool:
        return self._closing

    def get_transport_addresses(self) -> list[Multiaddr]:
        return self.secured_conn.get_transport_addresses()

    def get_connection_type(self) -> ConnectionType:
        return self.secured_conn.get_connection_type()

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.secured_conn.get_remote_address()

    async def start(self) -> None:
        """Run until the connection ends; raises nothing but cancellation."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write_loop)
                    nursery.start_soon(self._watch)
                    self.event_started.set()
                    await self._read_loop()
        except* Exception as errors:  # a group may hold the cancellation too, which goes on
            log.debug("connection to %s ended: %r", self.peer_id, errors.exceptions)
        finally:
            self.event_started.set()
            await self._tear_down()

    async def open_stream(self) -> YamuxStream:
        await trio.lowlevel.checkpoint()
        if self._closing:
            raise MuxedStreamError("the connection is closed")
        self._used_at = trio.current_time()
        stream = YamuxStream(self._next_id, self, inbound=False)
        self._next_id += 2
        self.streams[stream.stream_id] = stream
        self.enqueue(frame(WINDOW_UPDATE, SYN, stream.stream_id, 0))
        return stream

    async def accept_stream(self) -> YamuxStream:
        while not self._accepted:
            if self._closing:
                raise MuxedConnUnavailable("the connection is closed")
            await self._acceptors.park()
        return self._accepted.popleft()

    async def close(self) -> None:
        """Say good-bye within a second, then cut. Every stream breaks."""
        if not self._closing:
            self.enqueue(frame(GO_AWAY, 0, 0, 0))
            await self._flush()
        await self._tear_down()

    async def _flush(self) -> None:
        with trio.move_on_after(1) as scope:
            scope.shield = True
            while self._backlog and self.is_established:
                await self._senders.park()

    # Sending

    def enqueue(self, data: bytes) -> None:
        """Queue one frame; a peer that lets even small frames pile up is cut."""
        if self._closing:
            return
        self._outgoing.append(data)
        self._backlog += len(data)
        self._writer.unpark()
        if self._backlog > _BACKLOG_AT_ALL:
            log.debug("%s does not read what it asks for", self.peer_id)
            self._scope.cancel()

    async def writable(self) -> None:
        """Returns when another data frame may be queued; does not yield when it may be at once."""
        while self._backlog >= _BACKLOG_FOR_DATA and not self._closing:
            await self._senders.park()

    async def _write_loop(self) -> None:
        while True:
            while not self._outgoing:
                await self._writer.park()
            message = self._take_message()
            await self.secured_conn.write(message)
            self._backlog -= len(message)
            if self._backlog < _BACKLOG_TO_WAKE:
                self._senders.unpark_all()

    def _take_message(self) -> bytes:
        """Frames worth one encrypted message; a frame is never larger than that."""
        size = len(self._outgoing[0])
        parts = [self._outgoing.popleft()]
        while self._outgoing and size + len(self._outgoing[0]) <= MAX_PLAINTEXT:
            size += len(self._outgoing[0])
            parts.append(self._outgoing.popleft())
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # Receiving

    async def _read_loop(self) -> None:
        buffer = bytearray()
        while True:
            chunk = await self.secured_conn.read()
            if not chunk:
                return
            self.heard_at = trio.current_time()
            buffer += chunk
            with memoryview(buffer) as view:
                done = self._parse(view)
            del buffer[:done]

    def _parse(self, buffer: memoryview) -> int:
        """Handle all whole frames; how many bytes they were."""
        offset = 0
        while len(buffer) - offset >= HEADER.size:
            version, kind, flags, stream_id, length = HEADER.unpack_from(buffer, offset)
            if version != 0 or kind > GO_AWAY:
                raise ProtocolViolation(f"version {version}, frame type {kind}")
            body = length if kind == DATA else 0
            self._check_size(stream_id, flags, body)
            end = offset + HEADER.size + body
            if len(buffer) < end:
                break
            self._handle(kind, flags, stream_id, length, buffer[end - body : end])
            offset = end
        return offset

    def _check_size(self, stream_id: int, flags: int, body: int) -> None:
        """Refuse before a byte of the body is kept."""
        stream = self.streams.get(stream_id)
        allowed = INITIAL_WINDOW if flags & SYN else LARGE_WINDOW if stream is None else stream.recv_window
        if body > allowed:
            raise ProtocolViolation(f"a frame of {body} bytes where {allowed} are allowed")

    def _handle(self, kind: int, flags: int, stream_id: int, length: int, body: memoryview) -> None:
        if kind == PING:
            self._on_ping(flags, length)
        elif kind == GO_AWAY:
            self._scope.cancel()
        else:
            stream = self._on_syn(stream_id) if flags & SYN else self.streams.get(stream_id)
            if stream is not None:
                stream.on_frame(flags, 0 if kind == DATA else length, body)

    def _on_ping(self, flags: int, value: int) -> None:
        if flags & SYN:
            self.enqueue(frame(PING, ACK, 0, value))
        elif flags & ACK:
            self._pong_at = trio.current_time()
            if (answered := self._pings.get(value)) is not None:
                answered.set()

    async def round_trip(self) -> float | None:
        """Seconds until the peer answers a ping; None while too many others wait for theirs."""
        if len(self._pings) >= _PINGS_AT_ONCE:
            return None
        self._ping_number = (self._ping_number + 1) % _MEASURED
        number, began = _MEASURED + self._ping_number, trio.current_time()
        answered = self._pings[number] = trio.Event()
        try:
            self.enqueue(frame(PING, SYN, 0, number))
            await answered.wait()
        finally:
            del self._pings[number]
        return trio.current_time() - began

    async def prove_alive(self) -> None:
        """End the connection unless the peer answers a ping soon."""
        with trio.move_on_after(self.limits.recheck_seconds) as scope:
            await self.round_trip()
        if scope.cancelled_caught:
            log.debug("%s does not answer any more", self.peer_id)
            self._scope.cancel()

    def _on_syn(self, stream_id: int) -> YamuxStream | None:
        ours = stream_id % 2 == self._next_id % 2
        if stream_id == 0 or ours or stream_id in self.streams:
            raise ProtocolViolation(f"stream {stream_id} opened out of turn")
        if sum(stream.inbound for stream in self.streams.values()) >= self.limits.streams_per_peer:
            self._refuse(stream_id)
            return None
        stream = self.streams[stream_id] = YamuxStream(stream_id, self, inbound=True)
        self.enqueue(frame(WINDOW_UPDATE, ACK, stream_id, 0))
        self._accepted.append(stream)
        self._acceptors.unpark()
        return stream

    def _refuse(self, stream_id: int) -> None:
        self.streams_refused += 1
        self.budget.on_refused()
        if self.streams_refused > _MAX_REFUSED:
            raise ProtocolViolation("too many streams, again and again")
        self.enqueue(frame(WINDOW_UPDATE, RST, stream_id, 0))

    def may_grow(self) -> bool:
        """Whether one more stream of this connection gets the large window."""
        if self.grown >= _GROWN_PER_CONNECTION:
            return False
        self.grown += 1
        return True

    # Watching and ending

    async def _watch(self) -> None:
        """Ping; notice silence; reset what idles or lingers."""
        limits, sent = self.limits, 0
        while True:
            await trio.sleep(limits.ping_seconds)
            now = trio.current_time()
            if now - self.heard_at > limits.silence_seconds or now - self._pong_at > limits.pong_seconds:
                log.debug("%s has fallen silent", self.peer_id)
                self._scope.cancel()
            for stream in list(self.streams.values()):
                stream.sweep(now)
            if self.streams:
                self._used_at = now
            elif self.relay is not None and now - self._used_at > limits.relayed_idle_seconds:
                log.debug("the relayed connection to %s is not used any more", self.peer_id)
                self._scope.cancel()
            sent += 1
            self.enqueue(frame(PING, SYN, 0, sent & 0xFFFF_FFFF))

    async def _tear_down(self) -> None:
        self._closing = True
        self._scope.cancel()
        for stream in list(self.streams.values()):
            stream.cut("the connection is gone")
        self._outgoing.clear()
        for lot in (self._acceptors, self._senders):
            lot.unpark_all()
        with trio.move_on_after(1) as scope:
            scope.shield = True
            try:
                await self.secured_conn.close()
            except Exception as error:
                log.debug("closing the connection to %s: %r", self.peer_id, error)
        self.event_closed.set()
