"""One carrier and the streams on it: what goes out next, and what came in.

Small frames go before data, and streams take turns, so that neither an answer nor a keystroke waits for more
than one batch of bulk. Two tasks and a heartbeat for each carrier; none of them does anything while idle but
the heartbeat.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Final, NoReturn, Protocol

import trio

from protocol.errors import MessageInvalid, QubixError, StreamBroken
from protocol.units import PeerKey
from qubixd.link import Carrier, frames
from qubixd.link.bulk import other_seconds
from qubixd.link.frames import Frame, Kind
from qubixd.link.rate import Rate
from qubixd.link.stream import LinkStream

log = logging.getLogger(__name__)

BATCH_BYTES: Final = 512 * 1024
SMALL_BATCH_BYTES: Final = 64 * 1024
"""A tenth of a millisecond, or less. The larger ones bring half as much again in a second."""
COMPANY_SECONDS: Final = 0.000_5
"""So much processor time between two batches is not spent on bulk alone."""
KEYSTROKE_BYTES: Final = 2_048
"""Who sends so little twice running does not send bulk, of which there are odd ends."""
POLITE_SECONDS: Final = 0.05
"""Batches stay small for so long after it."""
PING_SECONDS: Final = 10.0
SILENCE_SECONDS: Final = 25.0
"""Without a byte, though pinged: the carrier is dead."""
CHECK_SECONDS: Final = 3.0
"""For an answer, when there is reason to doubt."""
HELLO_SECONDS: Final = 20.0
UNUSED_SECONDS: Final = 60.0
"""A carrier without streams is kept so long for the next one."""
CROWD: Final = 512
"""So many frames in one batch, which are small ones, take long: for a while batches are small then."""
CROWD_BATCH_BYTES: Final = 16 * 1024
CROWD_SECONDS: Final = 5.0
_MAX_URGENT: Final = 1_024
"""Small frames for a peer that asks for more and does not read them."""
_OF_STREAMS: Final = frozenset((Kind.DATA, Kind.END, Kind.ACK, Kind.ACCEPT, Kind.ABORT))


class Turns:
    """Batches of bulk on all carriers, one in each pass of the event loop: control waits for one at most,
    and while there is something else to do than bulk, for a small one."""

    def __init__(self) -> None:
        self._lock = trio.Lock()
        self._ended = other_seconds()
        """At the end of the last batch."""
        self._company_until = 0.0

    @property
    def batch_bytes(self) -> int:
        return BATCH_BYTES if trio.current_time() > self._company_until else SMALL_BATCH_BYTES

    async def rest(self) -> None:
        """After a batch: let everybody else have a turn."""
        self.worked()
        async with self._lock:  # whoever waits gets it in order, each in a pass of its own
            pass
        if other_seconds() - self._ended > COMPANY_SECONDS:
            self.be_polite()

    def worked(self) -> None:
        """What was done just now was bulk."""
        self._ended = other_seconds()

    def be_polite(self) -> None:
        """There is something else to do than bulk."""
        self._company_until = trio.current_time() + POLITE_SECONDS


class Owner(Protocol):
    """The link that a mux belongs to."""

    peer: PeerKey
    sent: Rate
    received: Rate

    def greeted(self, mux: Mux, run: int) -> None: ...
    def opened(self, mux: Mux, frame: Frame) -> None: ...
    def resumed(self, mux: Mux, frame: Frame) -> None: ...
    def find(self, number: int, *, ending: bool) -> LinkStream | None:
        """None if it is over; MessageInvalid if it never was, unless this is its end anyway."""
        ...


class Mux:
    """`run` ends with the carrier."""

    def __init__(self, owner: Owner, carrier: Carrier, run: int, turns: Turns) -> None:
        self._owner, self.carrier, self._turns = owner, carrier, turns
        self.streams: dict[int, LinkStream] = {}
        self.rtt: float | None = None
        self.moved = Rate()
        """Bytes both ways."""
        self.idle_since = trio.current_time()
        self.dead = False
        self._urgent: deque[bytes] = deque([frames.hello(run)])
        self._acks: dict[int, LinkStream] = {}
        self._ready: dict[int, LinkStream] = {}
        self._touched: dict[int, LinkStream] = {}
        """Those which got data in the batch that is being handed over."""
        self._pong: int | None = None
        self._ping: float | None = None
        self._heard = trio.current_time()
        self._greeted = False
        self._holding = False
        """The carrier has more than it can send now."""
        self._reading = False
        """In the middle of a batch that came: answers go together at its end."""
        self._failed: Exception | None = None
        self._doubted_at: float | None = None
        self._wake, self._beat = trio.lowlevel.ParkingLot(), trio.lowlevel.ParkingLot()

    @property
    def kind_rank(self) -> int:
        return self.carrier.kind.rank

    async def run(self) -> QubixError:
        """Why the carrier is no more. It is closed on return."""
        reason: QubixError = StreamBroken("the connection was closed")
        try:
            async with trio.open_nursery() as nursery:
                for part in (self._read, self._write, self._heartbeat):
                    nursery.start_soon(part)
        except* (QubixError, trio.BrokenResourceError, trio.ClosedResourceError) as errors:
            reason = _first(errors)
        finally:
            self.dead = True
            with trio.CancelScope(shield=True):
                await self.carrier.aclose()
        return reason

    async def close(self) -> None:
        """Wakes `run`, which ends."""
        self.dead = True
        await self.carrier.aclose()

    # --- out ----------------------------------------------------------------------------------

    def wants_to_send(self, stream: LinkStream) -> None:
        self._ready.setdefault(stream.number, stream)
        self._go()

    def wants_to_ack(self, stream: LinkStream) -> None:
        self._acks[stream.number] = stream
        self._go()

    def urgent(self, frame: bytes) -> None:
        self._urgent.append(frame)
        self._go()

    async def rest(self) -> None:
        """Whoever has sent a lot calls this before the next."""
        await self._turns.rest()

    def drop(self, stream: LinkStream) -> None:
        """It is over, or goes on elsewhere."""
        if self.streams.pop(stream.number, None) is not None and not self.streams:
            self.idle_since = trio.current_time()
        self._ready.pop(stream.number, None)

    def _go(self) -> None:
        """Send a batch at once, in the task of whoever has something to say; `_write` does the rest."""
        if self._reading or self._is_stuck():
            return
        try:
            self._put()
        except (QubixError, trio.ClosedResourceError) as error:
            self._failed = error
        if self._is_stuck() or self._has_more():
            self._wake.unpark_all()

    def _is_stuck(self) -> bool:
        """Nothing can go before `_write` has seen to it."""
        return self._holding or self._failed is not None

    def _put(self) -> None:
        if parts := self._gather():
            self._holding = not self.carrier.put(parts)
            self._turns.worked()

    def _has_more(self) -> bool:
        return bool(self._urgent or self._acks or self._ready or self._pong is not None)

    async def _write(self) -> NoReturn:
        """What did not go at once."""
        while True:
            if self._failed is not None:
                raise self._failed
            if self._holding:
                await self.carrier.flush()
                self._turns.worked()
                self._holding = False
            elif self._has_more():
                self._put()
                await self.rest()
            else:
                await self._wake.park()

    def _gather(self) -> list[bytes | bytearray | memoryview]:
        """The next batch: small frames, then data of one stream after the other."""
        parts: list[bytes | bytearray | memoryview] = [*self._urgent]
        self._urgent.clear()
        if self._pong is not None:
            parts.append(frames.header(Kind.PONG, 0, self._pong))
            self._pong = None
        for stream in self._acks.values():
            parts.append(frames.ack(stream.number, *stream.inc.grant()))
        self._acks.clear()
        left = self._turns.batch_bytes
        while left > 0 and self._ready:
            number, stream = next(iter(self._ready.items()))
            del self._ready[number]
            left -= self._add_data(stream, left, parts)
        size = sum(map(len, parts))
        self._owner.sent.add(size)
        self.moved.add(size)
        return parts

    def _add_data(self, stream: LinkStream, most: int, parts: list[bytes | bytearray | memoryview]) -> int:
        """Adds one frame of a stream, and its end if it is due; the stream queues again if it has more."""
        position = stream.out.sent
        if chunk := stream.out.take(most):
            parts += (frames.header(Kind.DATA, stream.number, position, len(chunk)), chunk)
            stream.on_sent()
            little = len(chunk) < KEYSTROKE_BYTES
            if little and stream.sent_little:
                self._turns.be_polite()
            stream.sent_little = little
        if stream.out.end_due:
            parts.append(frames.header(Kind.END, stream.number, stream.out.take_end()))
        elif stream.out.room:
            self._ready[stream.number] = stream
        return len(chunk)

    # --- in -----------------------------------------------------------------------------------

    async def _read(self) -> NoReturn:
        splitter, crowded_until = frames.Splitter(), 0.0
        while data := await self.carrier.receive_some(self._most(crowded_until)):
            self._heard = trio.current_time()
            self._owner.received.add(len(data))
            self.moved.add(len(data))
            self._reading = True
            try:
                count = 0
                for frame in splitter.feed(data):
                    self._take(frame)
                    count += 1
                self._end_batch()
            finally:
                self._reading = False
            if count > CROWD:
                crowded_until = self._heard + CROWD_SECONDS
            self._go()
            if len(self._urgent) > _MAX_URGENT:
                raise MessageInvalid("a peer asks over a link for more than it listens to")
            await self._turns.rest()
        raise StreamBroken("the connection was closed at the other end")

    def _most(self, crowded_until: float) -> int:
        batch = self._turns.batch_bytes
        return batch if trio.current_time() >= crowded_until else min(batch, CROWD_BATCH_BYTES)

    def _end_batch(self) -> None:
        for stream in self._touched.values():
            stream.on_batch()
        self._touched.clear()

    def _take(self, frame: Frame) -> None:
        if not self._greeted:
            self._greet(frame)
        elif frame.kind in _OF_STREAMS:
            self._for_stream(frame)
        elif frame.kind == Kind.OPEN:
            self._owner.opened(self, frame)
        elif frame.kind == Kind.RESUME:
            self._owner.resumed(self, frame)
        elif frame.kind == Kind.PING:
            self._pong = frame.value
        else:
            self._take_pong(frame)

    def _greet(self, frame: Frame) -> None:
        if frame.kind != Kind.HELLO or frame.stream != frames.VERSION:
            raise MessageInvalid("a peer began a link in a way that this version does not know")
        self._greeted = True
        self._owner.greeted(self, frame.value)

    def _take_pong(self, frame: Frame) -> None:
        if frame.kind != Kind.PONG or self._ping is None or frame.value != _micros(self._ping):
            raise MessageInvalid("a peer answered a question that was never asked over a link")
        self.rtt = trio.current_time() - self._ping
        self._ping = None

    def _for_stream(self, frame: Frame) -> None:
        """A stream that gets nonsense ends; what comes late for one that is over or elsewhere is dropped."""
        stream = self._owner.find(frame.stream, ending=frame.kind == Kind.ABORT)
        if stream is None:
            return
        try:
            if stream.road is self or frame.kind == Kind.ABORT:
                self._hand(stream, frame)
            elif stream.lacks_last_word and frame.kind == Kind.ACK:
                stream.on_ack(frame.value, frames.window_of(frame.payload))
        except MessageInvalid as error:
            log.info("peer %s: %s", self._owner.peer.hex()[:8], error)
            stream.fail(error, tell=True)

    def _hand(self, stream: LinkStream, frame: Frame) -> None:
        kind = frame.kind
        if kind == Kind.ABORT:
            stream.fail(frames.reason_of(frame.payload), tell=False)
        elif kind == Kind.ACCEPT:
            stream.on_accept(min(frame.value, 2**32 - 1))
        elif not stream.flowing:
            raise MessageInvalid("a peer sent bytes of a stream that was not agreed on")
        elif kind == Kind.ACK:
            stream.on_ack(frame.value, frames.window_of(frame.payload))
        else:
            self._touched[stream.number] = stream
            if kind == Kind.DATA:
                stream.on_data(frame.value, frame.payload)
            else:
                stream.on_end(frame.value)

    # --- is it alive? -------------------------------------------------------------------------

    def check(self) -> None:
        """Ask now whether the other side is still there; it has CHECK_SECONDS."""
        if self._doubted_at is None:
            self._doubted_at = trio.current_time()
            self._beat.unpark_all()

    async def _heartbeat(self) -> NoReturn:
        """Ping at the beginning, then now and then."""
        pause = 1.0
        while True:
            if self._ping is None:
                self._ping = trio.current_time()
                self.urgent(frames.header(Kind.PING, 0, _micros(self._ping)))
            doubted = self._doubted_at
            with trio.move_on_after(pause if doubted is None else CHECK_SECONDS):
                await self._beat.park()
            pause = PING_SECONDS
            self._check_silence(doubted)

    def _check_silence(self, doubted: float | None) -> None:
        now = trio.current_time()
        if now - self._heard > (SILENCE_SECONDS if self._greeted else HELLO_SECONDS):
            raise StreamBroken(f"nothing has come from the other side for {now - self._heard:.0f} seconds")
        if doubted is not None:
            if self._heard <= doubted:
                raise StreamBroken("the other side does not answer any more")
            self._doubted_at = None
        if not self.streams and now - self.idle_since > UNUSED_SECONDS:
            raise StreamBroken("it was not used any more")


def _micros(seconds: float) -> int:
    return int(seconds * 1e6) % 2**64


def _first(errors: BaseExceptionGroup[BaseException]) -> QubixError:
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            return _first(error)
        if isinstance(error, QubixError):
            return error
    return StreamBroken("the connection broke")
