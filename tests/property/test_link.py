"""Streams of a link, whatever carriers break when: every byte arrives once, in order, and so do the ends."""

from __future__ import annotations

from itertools import pairwise

import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from qubixd.link.halves import MAX_WINDOW, Chunk, Incoming, Outgoing
from qubixd.link.stream import LinkStream
from tests.support.link_pairs import CALLER, PROVIDER, Pair, link_pair

_SIZES = st.lists(st.sampled_from((1, 3, 700, 16_384, 65_000, 140_000)), max_size=6)
_LIVES = st.lists(st.one_of(st.integers(1, 200), st.integers(1, 400_000)), max_size=10)


def _blob(sizes: list[int], salt: int) -> bytes:
    return b"".join(bytes([(salt + place) % 256]) * size for place, size in enumerate(sizes))


async def _say(stream: LinkStream, sizes: list[int], salt: int) -> None:
    whole, at = _blob(sizes, salt), 0
    for size in sizes:
        await stream.send_all(whole[at : at + size])
        at += size
    await stream.send_eof()


async def _hear(stream: LinkStream, into: bytearray, most: int | None) -> None:
    while data := await stream.receive_some(most):
        into += data


@settings(max_examples=50)
@given(
    there=st.lists(_SIZES, min_size=1, max_size=3),
    back=_SIZES,
    lives=_LIVES,
    most=st.sampled_from((None, 1_000, 100_000)),
)
@example(there=[[], []], back=[140_000], lives=[205_984], most=None)  # the last ACK is lost with its carrier
def test_bytes_arrive_once_and_in_order(
    there: list[list[int]], back: list[int], lives: list[int], most: int | None
) -> None:
    async def main() -> None:
        async with link_pair() as pair:
            pair.there.lives = lives
            ends = [await pair.open() for _ in there]
            heard = [(bytearray(), bytearray()) for _ in ends]
            async with trio.open_nursery() as nursery:
                for number, (ours, theirs) in enumerate(ends):
                    nursery.start_soon(_say, ours, there[number], number)
                    nursery.start_soon(_say, theirs, back, number + 100)
                    nursery.start_soon(_hear, theirs, heard[number][0], most)
                    nursery.start_soon(_hear, ours, heard[number][1], None)
            for number, (at_theirs, at_ours) in enumerate(heard):
                assert at_theirs == _blob(there[number], number)
                assert at_ours == _blob(back, number + 100)
            await _close_all(pair, [end for both in ends for end in both])

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def _close_all(pair: Pair, streams: list[LinkStream]) -> None:
    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(stream.aclose)
    assert [stream.failure for stream in streams] == [None] * len(streams)
    assert pair.caller.streams(PROVIDER) == pair.provider.streams(CALLER) == ()


@settings(max_examples=100)
@given(
    sizes=st.lists(st.integers(1, 20_000), max_size=6),
    windows=st.lists(st.integers(1_000, 60_000), min_size=1, max_size=5),
    takes=st.lists(st.integers(100, 20_000), min_size=1, max_size=9),
    losses=st.lists(st.integers(0, 6), max_size=6),
)
def test_both_halves_agree_after_every_loss(
    sizes: list[int], windows: list[int], takes: list[int], losses: list[int]
) -> None:
    """The sender's frames in flight are lost after a few of them, again and again; then all goes through."""
    whole, out, inc = _blob(sizes, 7), Outgoing(), Incoming()
    for start, end in pairwise([sum(sizes[:count]) for count in range(len(sizes) + 1)]):
        out.add(whole[start:end])
    out.finish()
    inc.window = windows[0]
    out.grant(0, inc.room)
    got = bytearray()
    for loss in [*losses, 10_000]:
        _run(out, inc, got, takes, loss)
        out.rewind(inc.received, inc.room)
    assert got == whole
    assert inc.at_end
    assert out.done or out.acked == out.sent
    assert out.backlog == 0


def _run(out: Outgoing, inc: Incoming, got: bytearray, takes: list[int], arriving: int) -> None:
    """So many frames arrive, what is sent after them is lost."""
    for number in range(10_000):
        position, chunk = out.sent, out.take(takes[number % len(takes)])
        if not chunk and not out.end_due:
            return
        end = out.take_end() if out.end_due else None
        if number >= arriving:
            return
        _arrive(inc, position, chunk)
        if end is not None:
            inc.end(end)
        while data := inc.take(takes[-1]):
            got += data
        out.grant(*inc.grant())


def _arrive(inc: Incoming, position: int, chunk: Chunk) -> None:
    if chunk:
        inc.check(position, len(chunk))
        inc.add(bytes(chunk))


@given(window=st.integers(0, 2**32 - 1), size=st.integers(1, 4 * MAX_WINDOW))
@settings(max_examples=30)
def test_nobody_keeps_more_than_the_largest_window(window: int, size: int) -> None:
    """However much the other side asks for."""
    out = Outgoing()
    for _ in range(0, size, 1 << 20):
        out.add(bytes(1 << 20))
    out.grant(0, window)
    while out.take(1 << 20):
        pass
    assert out.sent <= min(window, MAX_WINDOW)
