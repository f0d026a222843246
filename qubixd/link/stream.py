"""One stream of a link: ordered bytes both ways, which a change of carrier does not touch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn, Protocol

import trio

from protocol.errors import PeerRefused, QubixError, StreamBroken
from protocol.units import PeerKey
from qubixd.link import frames
from qubixd.link.halves import FIRST_WINDOW, MAX_WINDOW, Incoming, Outgoing

CHUNK_BYTES: Final = 512 * 1024
LINGER_SECONDS: Final = 120.0
"""`aclose` waits so long for a sign that the other side takes what is still on its way."""
_HASTY_LINGER_SECONDS: Final = 10.0
"""The same where this side does not care for the rest of what the other says."""


Sink = Callable[[Sequence[bytes | memoryview]], int]
"""Takes as much of these, one after the other, as goes without waiting, and says how much."""


class Road(Protocol):
    """The carrier that a stream travels on now: qubixd/link/mux.py."""

    def wants_to_send(self, stream: LinkStream) -> None: ...
    def wants_to_ack(self, stream: LinkStream) -> None: ...
    def urgent(self, frame: bytes) -> None: ...
    async def rest(self) -> None: ...


class Home(Protocol):
    """All that goes on with one peer: qubixd/link/link.py."""

    def ended(self, stream: LinkStream, last_word: bytes | int, *, tell: bool) -> None:
        """`last_word` is the answer to what is said of this stream later: an abort, which `tell` sends now
        as well, or the position of the end that has come."""
        ...

    def may_widen(self, stream: LinkStream, more: int) -> bool: ...
    def keep(self, more: int) -> None:
        """Bytes that may have to be kept for the other side. MessageInvalid if they are too many."""
        ...


class LinkStream(trio.abc.HalfCloseableStream):
    """Errors: PeerRefused (code and sentence) when the other side refused or aborted it; StreamBroken when
    the way was lost for good or this side aborted it; trio's ClosedResourceError after `aclose`."""

    def __init__(self, peer: PeerKey, number: int, opening: Any, home: Home, *, ours: bool) -> None:
        self.peer, self.number, self.opening, self.ours = peer, number, opening, ours
        self.accepted = False
        self.failure: QubixError | None = None
        self.road: Road | None = None
        self.turn = 0
        """Counts the carriers that its opener put it on."""
        self.flowing = False
        """The other side has said where it stands, on this carrier."""
        self.sent_little = True
        """The last time that it sent."""
        self.out, self.inc = Outgoing(), Incoming()
        self.kept_window = FIRST_WINDOW
        """The most that the other side has wanted to be on its way at once."""
        self.opening_bytes = b""
        self._home, self._closed, self._over = home, False, False
        self._sink: Sink | None = None
        self._pieces: list[bytes | memoryview] = []
        """For the sink, of the batch that is being handed over."""
        self._shut = False
        """Closed here before anything failed."""
        self._readable, self._writable = trio.lowlevel.ParkingLot(), trio.lowlevel.ParkingLot()
        self._settled = trio.lowlevel.ParkingLot()
        """Whoever waits for acceptance, for the last ack or for the failure."""

    # --- the side that serves -----------------------------------------------------------------

    async def accept(self) -> None:
        """Take it; until then nothing can be sent or received."""
        await trio.lowlevel.checkpoint()
        self._check()
        if not self.ours and not self.accepted:
            self.accepted = True
            if self.road is not None:
                self.flowing = True
                self.road.urgent(self.accept_frame())
                self._wake_road()

    async def refuse(self, error: QubixError) -> None:
        """Tell the opener why not."""
        code = error.refusal_code if isinstance(error, PeerRefused) else error.code
        self.abort(code, str(error))
        await trio.lowlevel.checkpoint()

    def accept_frame(self) -> bytes:
        return frames.header(frames.Kind.ACCEPT, self.number, self.inc.room)

    # --- bytes --------------------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Returns when at most a few chunks are still to go."""
        whole = data if isinstance(data, bytes) else bytes(data)
        if len(whole) <= CHUNK_BYTES:
            await self._send(whole)
            return
        view = memoryview(whole)
        for start in range(0, len(view), CHUNK_BYTES):
            await self._send(view[start : start + CHUNK_BYTES])

    async def _send(self, chunk: bytes | memoryview) -> None:
        self._check_sending()
        self.out.add(chunk)
        self._wake_road()
        if self.out.unsent_bytes < CHUNK_BYTES:
            await (self.road.rest() if self.road is not None else trio.lowlevel.checkpoint())
        await self._until_room()

    async def _until_room(self) -> None:
        while self.out.unsent_bytes >= CHUNK_BYTES:
            await self._writable.park()
            self._check_sending()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()
        self._check_sending()
        await self._until_room()

    async def send_eof(self) -> None:
        """Nothing more goes out; the other direction stays open."""
        await trio.lowlevel.checkpoint()
        self._check()
        self.out.finish()
        self._wake_road()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """What has come; empty when the other side has ended its direction."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check()
        while not (data := self.inc.take(max_bytes)):
            if self.inc.ended:
                self._after_taking()
                return b""
            await self._readable.park()
            self._check()
        self._after_taking()
        return data

    async def pour(self, sink: Sink) -> bytes | bytearray:
        """As `receive_some`; what comes in the meantime goes straight into `sink`."""
        self._sink = sink
        try:
            return await self.receive_some()
        finally:
            self._sink = None

    def _after_taking(self) -> None:
        inc = self.inc
        if inc.ack_due and self.road is not None and self.flowing:
            if inc.pressed and self._home.may_widen(self, inc.window):
                inc.window *= 2
            self.road.wants_to_ack(self)
        self._settle()

    @property
    def backlog_bytes(self) -> int:
        """Sent and not yet taken at the other side."""
        return self.out.backlog

    @property
    def unsent_bytes(self) -> int:
        """Of those, what has not even left this side."""
        return self.out.unsent_bytes

    def _wake_road(self) -> None:
        if self.flowing and self.road is not None:
            self.road.wants_to_send(self)

    def _check(self) -> None:
        if self._shut:
            raise trio.ClosedResourceError
        if self.failure is not None:
            raise _again(self.failure)

    def _check_sending(self) -> None:
        self._check()
        if self.out.ended:
            raise trio.ClosedResourceError("send_eof was called")

    # --- the end ------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """After `send_eof`: wait until the other side has taken everything. Otherwise abort."""
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        self._closed = True
        self._shut = self.failure is None
        try:
            if self.out.ended and self.failure is None:
                await self._linger()
            else:
                await trio.lowlevel.checkpoint()
        finally:
            if not self._over:
                self.abort("net.stream_broken", "the other end closed the connection before it was through")
            self._readable.unpark_all()
            self._writable.unpark_all()

    async def _linger(self) -> None:
        """While the other side goes on taking."""
        before = -1
        while self.out.acked > before and not self._is_over():
            before = self.out.acked
            with trio.move_on_after(LINGER_SECONDS if self.inc.at_end else _HASTY_LINGER_SECONDS):
                while self.out.acked == before and not self._is_over():
                    await self._settled.park()
            if self.out.done:
                return

    def _is_over(self) -> bool:
        return self._over

    def abort(self, code: str, sentence: str) -> None:
        """End it at once; the other side gets both words, now or when there is a way again."""
        if not self._over:
            self.failure = StreamBroken(sentence)
            self._end(frames.abort(self.number, code, sentence), tell=True)

    async def wait_broken(self) -> NoReturn:
        """Sleep until the stream fails, and raise why. Forever if it ends well."""
        while self.failure is None:
            await self._settled.park()
        await trio.lowlevel.checkpoint()
        raise _again(self.failure)

    async def wait_over(self) -> None:
        """Sleep until both directions have come to their ends, or it has failed."""
        await trio.lowlevel.checkpoint()
        while not self._over:
            await self._settled.park()

    async def wait_accepted(self) -> None:
        """The opener's side: until the other side has said yes. PeerRefused, StreamBroken."""
        await trio.lowlevel.checkpoint()
        self._check()
        while not self.accepted:
            await self._settled.park()
            self._check()

    # --- what the link reports ----------------------------------------------------------------

    def fail(self, error: QubixError, *, tell: bool) -> None:
        """It is over, and here is why; `tell` the other side too."""
        if not self._over:
            self.failure = error
            self._end(frames.abort(self.number, error.code, str(error)), tell=tell)

    def _end(self, last_word: bytes, *, tell: bool) -> None:
        self._over = True
        self._home.ended(self, last_word, tell=tell)
        self.out.clear()
        self.inc.clear()
        self._ring()

    def _ring(self) -> None:
        for lot in (self._readable, self._writable, self._settled):
            lot.unpark_all()

    def _settle(self) -> None:
        """Forget it once both directions have come to their ends."""
        if not self._over and self.out.done and self.inc.at_end:
            self._over = True
            if self.inc.ack_due and self.road is not None:
                self.road.wants_to_ack(self)
            self._home.ended(self, self.inc.received, tell=False)
            self._settled.unpark_all()

    def on_accept(self, window: int) -> None:
        if self.accepted or not self.ours:
            return
        self.accepted = self.flowing = True
        self.out.grant(0, min(window, FIRST_WINDOW))
        self._settled.unpark_all()
        self._wake_road()

    def on_data(self, position: int, piece: bytes | memoryview) -> None:
        """`on_batch` follows while `piece` is still good."""
        self.inc.check(position, len(piece))
        if self._sink is not None and not self.inc.waiting_bytes:
            self._pieces.append(piece)
            self.inc.pass_by(len(piece))
        else:
            self.inc.add(piece)

    def on_batch(self) -> None:
        """All that came at once has been handed over."""
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            taken = self._sink(pieces) if self._sink is not None else 0
            for piece in pieces:
                if taken < len(piece):
                    self.inc.put_back(piece[taken:])
                taken = max(0, taken - len(piece))
        if self.inc.waiting_bytes or self.inc.ended:
            self._readable.unpark_all()
        self._after_taking()

    def on_end(self, position: int) -> None:
        """`on_batch` follows."""
        self.inc.end(position)

    def _keep(self, window: int) -> None:
        more = min(window, MAX_WINDOW) - self.kept_window
        if more > 0:
            self._home.keep(more)
            self.kept_window += more

    @property
    def lacks_last_word(self) -> bool:
        """A stream of the peer without a carrier, whose bytes have all come and gone, as far as we know."""
        return not self.ours and self.road is None and self.accepted and self.inc.at_end and self.out.end_said

    def on_ack(self, consumed: int, window: int) -> None:
        self._keep(window)
        self.out.grant(consumed, window)
        if self.out.room or self.out.end_due:
            self._wake_road()
        self._settle()
        self._settled.unpark_all()

    def on_resume(self, received: int, room: int) -> None:
        """The other side goes on from `received` on the carrier that the stream is on now."""
        self._keep(room)
        self.out.rewind(received, room)
        self.flowing = True
        self._wake_road()

    def on_sent(self) -> None:
        """Some of what waited is gone."""
        if self.out.unsent_bytes < CHUNK_BYTES:
            self._writable.unpark_all()


def _again(error: QubixError) -> QubixError:
    """A fresh copy: one exception raised in two tasks would mix up their tracebacks."""
    if isinstance(error, PeerRefused):
        return PeerRefused(error.refusal_code, str(error))
    return type(error)(*error.args)
