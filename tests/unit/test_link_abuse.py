"""A peer that speaks nonsense over a link: the carrier or the stream ends, nothing hangs, nothing grows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from trio.testing import lockstep_stream_pair, memory_stream_pair

from protocol import messages
from protocol.errors import MessageInvalid, QubixError
from protocol.messages import Ack
from protocol.paths import PathKind
from qubixd.link import frames, limits
from qubixd.link.carriers import StreamCarrier
from qubixd.link.frames import Kind, Splitter
from qubixd.link.halves import FIRST_WINDOW, MAX_WINDOW
from qubixd.link.limits import MAX_CARRIERS, MAX_STREAMS_FROM_PEER
from qubixd.link.links import Links
from qubixd.link.mux import CROWD_BATCH_BYTES, CROWD_SECONDS
from qubixd.link.stream import LinkStream
from tests.support.link_pairs import CALLER, OPENING, PROVIDER, Between

RUN = 7
OPENED = messages.encode(OPENING)
HELLO = frames.hello(RUN)
OPEN_3 = frames.open_frame(3, 1, 1_000_000, OPENED)


class Peer:
    """Speaks frames by hand to the links of a provider."""

    def __init__(self, links: Links, stream: trio.abc.HalfCloseableStream) -> None:
        self.links, self.stream = links, stream
        self.served: list[LinkStream] = []
        self._splitter, self._heard = Splitter(), list[frames.Frame]()

    async def say(self, *parts: bytes) -> None:
        for part in parts:
            await self.stream.send_all(part)

    async def hear(self, kind: Kind) -> frames.Frame:
        """The next frame of a kind; others are passed over."""
        while True:
            for frame in self._heard:
                if frame.kind == kind:
                    self._heard.remove(frame)
                    return frame
            data = await self.stream.receive_some(65_536)
            assert data, "the carrier was closed"
            self._heard += [
                frame._replace(payload=bytes(frame.payload)) for frame in self._splitter.feed(data)
            ]

    async def is_dropped(self) -> None:
        """The other side closes this carrier."""
        while await self.stream.receive_some(65_536):
            pass
        assert self.links.view(CALLER) is None


@asynccontextmanager
async def peer(
    pair: Callable[
        [], tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]
    ] = memory_stream_pair,
) -> AsyncIterator[Peer]:
    links = Links(PROVIDER, Between(PROVIDER, open=False))
    ours, theirs = pair()
    made = Peer(links, ours)

    async def handler(stream: LinkStream) -> None:
        made.served.append(stream)
        await stream.accept()
        await trio.sleep_forever()

    links.serve(handler)
    async with trio.open_nursery() as nursery:
        await nursery.start(links.run)
        links.take(CALLER, StreamCarrier(theirs, PathKind.DIRECT, "a bad peer"))
        yield made
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: there\r\n\r\n",
        frames.header(Kind.PING, 0, 1),  # no hello
        frames.header(Kind.HELLO, 99, RUN),
        HELLO + frames.header(Kind.HELLO, 1, RUN),
        HELLO + frames.header(Kind.PONG, 0, 12),
        HELLO + frames.HEADER.pack(77 << 24, 3, 0),
        HELLO + frames.HEADER.pack(Kind.DATA << 24, 3, 0),
        HELLO + frames.HEADER.pack(Kind.DATA << 24 | 0xFFFFFF, 3, 0),
        HELLO + frames.HEADER.pack(Kind.OPEN << 24 | 0xFFFFFF, 3, 0),
        HELLO + frames.header(Kind.DATA, 3, 0, 1) + b"x",  # never opened
        HELLO + frames.header(Kind.DATA, 4, 0, 1) + b"x",  # not its to open, never opened
        HELLO + frames.ack(9, 5, 5),
        HELLO + frames.open_frame(4, 1, 1, OPENED),
        HELLO + frames.open_frame(1, 1, 1, OPENED),
        HELLO + frames.open_frame(3, 0, 1, OPENED),
        HELLO + frames.open_frame(3, 1, 1, b"not a message"),
        HELLO + frames.open_frame(3, 1, 1, messages.encode(Ack())),
    ],
)
async def test_nonsense_ends_the_carrier(autojump_clock: object, said: bytes) -> None:
    async with peer() as bad:
        await bad.say(said)
        await bad.is_dropped()
        assert not bad.served


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (frames.header(Kind.DATA, 3, 5, 1) + b"x", "out of order"),
        (frames.header(Kind.END, 3, 9), "where it was not"),
        (frames.header(Kind.END, 3, 0) + frames.header(Kind.DATA, 3, 1, 1) + b"x", "out of order"),
        (frames.ack(3, 1, 10), "never sent"),
        (frames.ack(3, 2**63, 10), "never sent"),
        (frames.resume(3, 1, 10, 2), "never was"),
        (
            b"".join(
                frames.header(Kind.DATA, 3, at * 65_536, 65_536) + bytes(65_536)
                for at in range(FIRST_WINDOW // 65_536 + 1)
            ),
            "than it was granted",
        ),
    ],
)
async def test_nonsense_about_a_stream_ends_that_stream(
    autojump_clock: object, said: bytes, why: str
) -> None:
    async with peer() as bad:
        await bad.say(HELLO, OPEN_3)
        await bad.hear(Kind.ACCEPT)
        await bad.say(frames.open_frame(5, 1, 100, OPENED), said)
        reason = frames.reason_of((await bad.hear(Kind.ABORT)).payload)
        assert reason.refusal_code == MessageInvalid.code
        assert why in str(reason)
        with pytest.raises(MessageInvalid, match=why):
            await bad.served[0].receive_some()
        await bad.hear(Kind.ACCEPT)  # the other one lives
        assert len(bad.links.streams(CALLER)) == 1


async def test_bytes_before_the_stream_is_accepted_end_it(autojump_clock: object) -> None:
    async with peer() as bad:
        bad.links.serve(lambda stream: trio.sleep_forever())
        await bad.say(HELLO, OPEN_3, frames.header(Kind.DATA, 3, 0, 1), b"x")
        reason = frames.reason_of((await bad.hear(Kind.ABORT)).payload)
        assert "not agreed on" in str(reason)


async def test_an_unreadable_abort_is_not_taken(autojump_clock: object) -> None:
    async with peer() as bad:
        await bad.say(HELLO, OPEN_3)
        await bad.hear(Kind.ACCEPT)
        await bad.say(frames.header(Kind.ABORT, 3, 0, 3), b"\xffab")
        with pytest.raises(MessageInvalid, match="without a sensible reason"):
            await bad.served[0].receive_some()


async def test_thousands_of_opens_are_refused_beyond_a_limit(autojump_clock: object) -> None:
    async with peer() as bad:
        await bad.say(HELLO)
        for number in range(MAX_STREAMS_FROM_PEER + 3):
            await bad.say(frames.open_frame(3 + 2 * number, 1, 100, OPENED))
        reason = frames.reason_of((await bad.hear(Kind.ABORT)).payload)
        assert reason.refusal_code == "tunnel.too_many"
        assert len(bad.links.streams(CALLER)) == MAX_STREAMS_FROM_PEER


async def test_a_peer_that_asks_and_never_listens_is_dropped(autojump_clock: object) -> None:
    """Pings cost one answer however many they are; other questions end the carrier."""
    async with peer(lockstep_stream_pair) as bad:
        await bad.say(HELLO, *[frames.header(Kind.PING, 0, 1)] * 2_000)
        with trio.fail_after(60), pytest.raises(trio.BrokenResourceError):
            while True:
                await bad.say(frames.resume(5, 0, 0, 1) * 500)


async def test_a_peer_that_never_takes_its_bytes_stops_the_sender(autojump_clock: object) -> None:
    async with peer() as bad:
        await bad.say(HELLO, frames.open_frame(3, 1, 2**32 - 1, OPENED))
        await bad.hear(Kind.ACCEPT)
        sent = 0
        with trio.move_on_after(60):
            while True:
                await bad.served[0].send_all(bytes(1 << 20))
                sent += 1 << 20
        assert sent < 10 << 20


async def test_a_carrier_that_says_nothing_is_dropped(autojump_clock: object) -> None:
    async with peer() as bad:
        with trio.fail_after(40):
            await bad.is_dropped()


async def test_a_carrier_that_falls_silent_is_dropped(autojump_clock: object) -> None:
    async with peer() as bad:
        await bad.say(HELLO, OPEN_3)
        with trio.fail_after(60):
            while await bad.stream.receive_some(65_536):
                pass
        with trio.fail_after(130), pytest.raises(QubixError, match="none was found in 120 s"):
            await bad.served[0].receive_some()


async def test_a_suspected_carrier_that_stays_silent_is_dropped_soon(autojump_clock: object) -> None:
    async with peer() as bad:
        await bad.say(HELLO)
        await bad.hear(Kind.PING)
        bad.links.suspect()
        with trio.fail_after(5):
            await bad.is_dropped()


async def test_carriers_beyond_the_limit_are_closed(autojump_clock: object) -> None:
    async with peer() as bad:
        ends = []
        for _ in range(MAX_CARRIERS):
            ours, theirs = memory_stream_pair()
            bad.links.take(CALLER, StreamCarrier(theirs, PathKind.DIRECT, "one more"))
            ends.append(ours)
        assert not await ends[-1].receive_some(1)


async def test_a_daemon_that_started_anew_ends_what_it_had_open(autojump_clock: object) -> None:
    async with peer() as bad:
        await bad.say(HELLO, OPEN_3)
        await bad.hear(Kind.ACCEPT)
        ours, theirs = memory_stream_pair()
        bad.links.take(CALLER, StreamCarrier(theirs, PathKind.DIRECT, "its new run"))
        await ours.send_all(frames.hello(RUN + 1))
        with pytest.raises(QubixError, match="started anew"):
            await bad.served[0].receive_some()


async def test_what_is_kept_for_a_peer_that_takes_nothing_is_limited(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window of each stream for itself would be half a gigabyte for 64 of them."""
    monkeypatch.setattr(limits, "KEPT_BYTES", 4 * MAX_WINDOW)
    async with peer() as bad:
        numbers = range(3, 23, 2)
        await bad.say(HELLO, *[frames.open_frame(number, 1, 2**32 - 1, OPENED) for number in numbers])
        for number in numbers:
            await bad.hear(Kind.ACCEPT)
            await bad.say(frames.ack(number, 0, 2**32 - 1))
        await bad.say(frames.header(Kind.PING, 0, 1))
        await bad.hear(Kind.PONG)
        reason = frames.reason_of((await bad.hear(Kind.ABORT)).payload)
        assert "wants more to be on its way at once" in str(reason)
        assert len(bad.links.streams(CALLER)) == 4
        # What has ended makes room again.
        await bad.say(frames.abort(3, "a.code", "enough"), frames.open_frame(23, 1, 1, OPENED))
        await bad.hear(Kind.ACCEPT)
        await bad.say(frames.ack(23, 0, 2**32 - 1), frames.header(Kind.PING, 0, 1))
        await bad.hear(Kind.PONG)
        assert len(bad.links.streams(CALLER)) == 4


async def test_a_crowd_of_tiny_frames_is_taken_in_small_batches(autojump_clock: object) -> None:
    """Else each batch would hold up everything else for a third of a second."""
    asked: list[int] = []

    class Watched(StreamCarrier):
        async def receive_some(self, max_bytes: int) -> bytes | bytearray:
            asked.append(max_bytes)
            return await super().receive_some(max_bytes)

    links = Links(PROVIDER, Between(PROVIDER, open=False))
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        await nursery.start(links.run)
        links.take(CALLER, Watched(theirs, PathKind.DIRECT, "a bad peer"))
        await ours.send_all(HELLO + frames.header(Kind.PING, 0, 1) * 10_000)
        await trio.testing.wait_all_tasks_blocked()
        assert asked[0] > CROWD_BATCH_BYTES and asked[-1] == CROWD_BATCH_BYTES
        await trio.sleep(CROWD_SECONDS + 1)
        await ours.send_all(frames.header(Kind.PING, 0, 1))
        await trio.testing.wait_all_tasks_blocked()
        assert asked[-1] > CROWD_BATCH_BYTES
        nursery.cancel_scope.cancel()
