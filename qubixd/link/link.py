"""All that goes on with one peer: its carriers, its streams, and which stream travels on which carrier.

The side that opened a stream decides on which carrier it travels. When a carrier is lost, each side puts its
own streams on another, or looks for one, for limits.RESUME_SECONDS.
"""

from __future__ import annotations

import itertools
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import trio

from protocol import messages
from protocol.errors import MessageInvalid, PeerUnreachable, QubixError, StreamBroken
from protocol.paths import PathKind
from protocol.tunnel_messages import OpenFiles, OpenProgram, OpenTcp, OpenUdp
from protocol.units import PeerKey
from qubixd.link import Carrier, Dialler, frames, limits
from qubixd.link.frames import Frame
from qubixd.link.halves import FIRST_WINDOW
from qubixd.link.mux import Mux, Turns
from qubixd.link.rate import Rate
from qubixd.link.stream import LinkStream

log = logging.getLogger(__name__)

_OPENINGS: Final = (OpenTcp, OpenUdp, OpenProgram, OpenFiles)


class Link:
    """`start_mux` runs a mux in the background and calls `lost` after it."""

    def __init__(
        self,
        peer: PeerKey,
        lower: bool,
        run: int,
        dialler: Dialler,
        turns: Turns,
        start_mux: Callable[[Link, Mux], None],
        start_task: Callable[..., None],
        serve: Callable[[LinkStream], None],
        changed: Callable[[PeerKey], None],
    ) -> None:
        self.peer, self._run, self._dialler, self._turns = peer, run, dialler, turns
        self._start_mux, self._start_task, self._serve, self._changed = start_mux, start_task, serve, changed
        self.addresses: tuple[str, ...] = ()
        self.streams: dict[int, LinkStream] = {}
        self.muxes: list[Mux] = []
        self.sent, self.received = Rate(), Rate()
        self._parity = int(lower)
        self._numbers = itertools.count(2 + self._parity, 2)
        self._newest = {0: 0, 1: 0}
        """The highest number of either parity."""
        self._remembered: OrderedDict[int, bytes | int] = OrderedDict()
        """Of streams that are over: the abort, or the position of the end that came."""
        self._late: deque[bytes] = deque(maxlen=limits.MAX_LATE)
        """Last words for which there was no carrier."""
        self._their_run: int | None = None
        self._widened = self._kept = 0
        self._dialling = trio.Lock()
        self.dialling = 0
        """Carriers that are being looked for."""
        self._arrived = trio.lowlevel.ParkingLot()
        self._searching = False
        self._moved_at = -limits.RESUME_SECONDS
        self.last = (PathKind.DIRECT, "")
        """Kind and address of the last carrier in use."""

    # --- streams of ours ----------------------------------------------------------------------

    async def open(self, opening: Any) -> LinkStream:
        """Accepted by the other side. PeerRefused, PeerUnreachable, StreamBroken."""
        mux = await self._choose()
        stream = LinkStream(self.peer, next(self._numbers), opening, self, ours=True)
        self._newest[self._parity] = stream.number
        stream.opening_bytes = messages.encode(opening)
        self.streams[stream.number] = stream
        self._put(stream, mux)
        self._changed(self.peer)
        with trio.move_on_after(limits.OPEN_SECONDS):
            try:
                await stream.wait_accepted()
                self._keep_spare()
                return stream
            finally:
                if not stream.accepted:
                    stream.abort("net.stream_broken", "the other side gave up before it had an answer")
        raise PeerUnreachable(f"peer {self.peer.hex()[:8]} has not answered in {limits.OPEN_SECONDS:.0f} s")

    async def _choose(self) -> Mux:
        """An idle carrier, else the least busy one; a further one while all are busy and there may be."""
        live = self.best()
        if not live:
            return await self._first()
        busy = limits.BUSY_BYTES_PER_SECOND
        chosen = min(live, key=lambda mux: (mux.moved.per_second > busy, len(mux.streams)))
        if chosen.moved.per_second > busy and self._may_have_more(live):
            with trio.move_on_after(3):
                try:
                    return await self._dial()
                except QubixError as error:
                    log.debug("no further carrier to %s: %s", self.peer.hex()[:8], error)
        return chosen if not chosen.dead else await self._choose()

    def _keep_spare(self) -> None:
        """A carrier for the next stream, so that keystrokes and bulk travel apart and nobody waits for it.
        Only where one is easily had."""
        live = self.best()
        easy = bool(live) and live[0].carrier.kind == PathKind.DIRECT and self._may_have_more(live)
        if easy and not self.dialling and all(mux.streams for mux in live):
            self._start_task(self._look_for_spare)

    async def _look_for_spare(self) -> None:
        try:
            with trio.move_on_after(limits.SPARE_SECONDS):
                await self._dial()
        except QubixError as error:
            log.debug("no spare carrier to %s: %s", self.peer.hex()[:8], error)

    def _may_have_more(self, live: Sequence[Mux]) -> bool:
        return len(live) < limits.CARRIERS_OF[live[0].carrier.kind]

    async def _first(self) -> Mux:
        async with self._dialling:
            if live := self.best():
                return live[0]
            return await self._dial()

    async def _dial(self, better_than: PathKind | None = None) -> Mux:
        self.dialling += 1
        try:
            carrier = await self._dialler.carrier(self.peer, self.addresses, better_than=better_than)
        finally:
            self.dialling -= 1
        return self.add(carrier)

    def _put(self, stream: LinkStream, mux: Mux) -> None:
        """Let a stream of ours travel on `mux`: tell the other side, which answers where it stands."""
        self._take_off(stream)
        stream.turn += 1
        stream.road = mux
        mux.streams[stream.number] = stream
        inc, number, turn = stream.inc, stream.number, stream.turn
        if stream.accepted:
            mux.urgent(frames.resume(number, inc.received, inc.room, turn))
        else:
            mux.urgent(frames.open_frame(number, turn, inc.room, stream.opening_bytes))

    def _take_off(self, stream: LinkStream) -> None:
        stream.flowing = False
        if isinstance(stream.road, Mux):
            stream.road.drop(stream)
        stream.road = None

    # --- streams of the peer ------------------------------------------------------------------

    def find(self, number: int, *, ending: bool) -> LinkStream | None:
        """None if it is over; MessageInvalid if it never was, unless this is its end anyway."""
        stream = self.streams.get(number)
        if stream is None and not ending and number > self._newest[number & 1]:
            raise MessageInvalid("a peer spoke of a stream that was never opened")
        return stream

    def opened(self, mux: Mux, frame: Frame) -> None:
        number, turn, window = frame.stream, frame.value >> 32, frame.value & 0xFFFFFFFF
        if number & 1 == self._parity or number < 2 or not turn:
            raise MessageInvalid("a peer opened a stream with a number that is not its to give")
        if number in self.streams or number in self._remembered:
            self._opened_again(mux, number, turn, window)
            return
        # Those on other carriers may have overtaken it.
        self._newest[1 - self._parity] = max(number, self._newest[1 - self._parity])
        if (reason := self._why_not()) is not None:
            mux.urgent(frames.abort(number, "tunnel.too_many", reason))
            return
        opening = messages.decode(bytes(frame.payload), frames.MAX_OPENING_BYTES)
        if not isinstance(opening, _OPENINGS):
            raise MessageInvalid("a peer opened a stream with a message that asks for none")
        stream = LinkStream(self.peer, number, opening, self, ours=False)
        self.streams[number] = stream
        self._travels(stream, mux, turn)
        stream.out.grant(0, min(window, FIRST_WINDOW))
        self._serve(stream)
        self._changed(self.peer)

    def _why_not(self) -> str | None:
        theirs = sum(not stream.ours for stream in self.streams.values())
        if theirs < limits.MAX_STREAMS_FROM_PEER:
            return None
        return f"{theirs} connections are open at once; close some of them"

    def _opened_again(self, mux: Mux, number: int, turn: int, window: int) -> None:
        """Its first carrier broke before the answer came."""
        stream = self.streams.get(number)
        if stream is None:
            self._answer_late(mux, number, turn)
        elif turn > stream.turn:
            self._travels(stream, mux, turn)
            stream.out.rewind(0, min(window, FIRST_WINDOW))
            if stream.accepted:
                mux.urgent(stream.accept_frame())
                stream.flowing = True
                mux.wants_to_send(stream)

    def resumed(self, mux: Mux, frame: Frame) -> None:
        """The opener puts a stream on `mux`, or the other side answers where it stands with one of ours."""
        room, turn = frames.room_and_turn(frame.payload)
        stream = self.streams.get(frame.stream)
        if stream is None:
            self._answer_late(mux, frame.stream, turn)
            return
        try:
            self._resume(stream, mux, frame.value, room, turn)
        except MessageInvalid as error:
            stream.fail(error, tell=True)

    def _resume(self, stream: LinkStream, mux: Mux, received: int, room: int, turn: int) -> None:
        if stream.ours and (stream.road is not mux or turn != stream.turn or stream.flowing):
            return  # an answer that came too late, or a question for a last word that is not said yet
        if not stream.accepted:
            raise MessageInvalid("a peer wants to go on with a stream that was not agreed on")
        if not stream.ours:
            if turn <= stream.turn:
                return  # has moved on already
            self._travels(stream, mux, turn)
            mux.urgent(frames.resume(stream.number, stream.inc.received, stream.inc.room, turn))
        mux.wants_to_ack(stream)
        stream.on_resume(received, room)

    def _travels(self, stream: LinkStream, mux: Mux, turn: int) -> None:
        self._take_off(stream)
        stream.turn, stream.road = turn, mux
        mux.streams[stream.number] = stream

    def _answer_late(self, mux: Mux, number: int, turn: int) -> None:
        """Of a stream that is over: how it ended here."""
        last = self._remembered.get(number)
        if isinstance(last, int):
            if number & 1 != self._parity:
                mux.urgent(frames.resume(number, last, 0, turn))
            mux.urgent(frames.ack(number, last, 0))
        elif last is not None:
            mux.urgent(last)
        elif number & 1 != self._parity:
            sentence = "the other side no longer knows this connection"
            mux.urgent(frames.abort(number, "net.stream_broken", sentence))

    # --- their ends ---------------------------------------------------------------------------

    def ended(self, stream: LinkStream, last_word: bytes | int, *, tell: bool) -> None:
        road = stream.road
        self._take_off(stream)
        self.streams.pop(stream.number, None)
        self._widened -= stream.inc.window - FIRST_WINDOW
        self._kept -= stream.kept_window - FIRST_WINDOW
        self._remembered[stream.number] = last_word
        if len(self._remembered) > limits.MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        if tell and isinstance(last_word, bytes):
            if road is not None:
                road.urgent(last_word)
            else:
                self._late.append(last_word)
        self._changed(self.peer)

    def may_widen(self, stream: LinkStream, more: int) -> bool:
        if self._widened + more > limits.WINDOWS_BYTES:
            return False
        self._widened += more
        return True

    def keep(self, more: int) -> None:
        if self._kept + more > limits.KEPT_BYTES:
            raise MessageInvalid("a peer wants more to be on its way at once than is kept for it")
        self._kept += more

    def fail_all(self, error: QubixError) -> None:
        for stream in list(self.streams.values()):
            stream.fail(error, tell=False)

    # --- carriers -----------------------------------------------------------------------------

    def best(self) -> list[Mux]:
        """The live carriers of the best kind there is."""
        live = [mux for mux in self.muxes if not mux.dead]
        rank = min((mux.kind_rank for mux in live), default=0)
        return [mux for mux in live if mux.kind_rank == rank]

    def add(self, carrier: Carrier) -> Mux:
        """Use a carrier from now on; streams of ours that wait, or travel on a worse one, move to it."""
        mux = Mux(self, carrier, self._run, self._turns)
        self.muxes.append(mux)
        self.last = carrier.kind, carrier.address
        while self._late:
            mux.urgent(self._late.popleft())
        self._start_mux(self, mux)
        self.settle()
        self._arrived.unpark_all()
        self._changed(self.peer)
        return mux

    def settle(self) -> None:
        """Put streams of ours that wait, or travel on something worse than there is, on the best. For what
        lacks the peer's last word only, ask for that: it may be over there."""
        if not (best := self.best()):
            return
        for stream in list(self.streams.values()):
            if stream.ours and stream.road not in best:
                self._put(stream, min(best, key=lambda mux: len(mux.streams)))
            elif stream.lacks_last_word:
                best[0].urgent(frames.resume(stream.number, stream.inc.received, 0, stream.turn))

    def greeted(self, mux: Mux, run: int) -> None:
        """The other daemon names its run: what an earlier one had open is gone with it."""
        if self._their_run not in (None, run):
            log.info("the daemon of peer %s has started anew", self.peer.hex()[:8])
            old = [stream for stream in self.streams.values() if stream.accepted or not stream.ours]
            for stream in old:
                stream.fail(StreamBroken("the daemon at the other end has started anew"), tell=False)
            self._newest[1 - self._parity] = 0
            self._remembered.clear()
        self._their_run = run

    def suspect(self) -> None:
        """Ask all carriers whether they still live."""
        for mux in self.muxes:
            mux.check()

    def moved(self) -> None:
        """This machine has another address: nobody finds it before it has made a way itself."""
        self._moved_at = trio.current_time()
        self.suspect()

    def lost(self, mux: Mux, reason: QubixError) -> None:
        """A carrier is gone; its streams wait for another."""
        log.info("a %s connection with peer %s ended: %s", mux.carrier.kind, self.peer.hex()[:8], reason)
        self.muxes.remove(mux)
        for stream in list(mux.streams.values()):
            self._take_off(stream)
        self.settle()
        if self._waiting() and not self._searching:
            self._searching = True
            self._start_task(self._search, reason)
        self._changed(self.peer)

    def _waiting(self) -> list[LinkStream]:
        return [stream for stream in self.streams.values() if stream.road is None]

    async def _search(self, reason: QubixError) -> None:
        """Look for another carrier while streams wait; after limits.RESUME_SECONDS they end."""
        pauses = itertools.chain(limits.PAUSES_SECONDS, itertools.repeat(limits.PAUSES_SECONDS[-1]))
        last: QubixError = reason
        try:
            with trio.move_on_after(limits.RESUME_SECONDS):
                lately = trio.current_time() - self._moved_at < limits.RESUME_SECONDS
                if not lately and not any(stream.ours for stream in self._waiting()):
                    await self._until_none_waits(limits.PATIENCE_SECONDS)
                while self._waiting():
                    if not self.best():
                        last = await self._look() or last
                    await self._until_none_waits(next(pauses))
        finally:
            self._searching = False
        for stream in self._waiting():
            seconds = f"{limits.RESUME_SECONDS:.0f} s"
            sentence = f"the way to the other side was lost and none was found in {seconds}: {last}"
            stream.fail(StreamBroken(sentence), tell=True)

    async def _look(self) -> QubixError | None:
        try:
            await self._first()
        except QubixError as error:
            return error
        return None

    async def _until_none_waits(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            while self._waiting():
                await self._arrived.park()

    async def improve(self) -> bool:
        """Look for something better than there is; true if it was found, and streams of ours move."""
        best = self.best()
        if not best:
            return False
        try:
            await self._dial(better_than=best[0].carrier.kind)
        except PeerUnreachable:
            return False
        return True

    async def reach(self) -> None:
        """Make sure that there is a carrier. PeerUnreachable."""
        if not self.best():
            await self._first()
