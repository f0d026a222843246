"""Links over carriers in memory: bytes, ends, refusals, breaks."""

from __future__ import annotations

import pytest
import trio

from protocol.errors import PeerRefused, PeerUnreachable, StreamBroken
from protocol.paths import PathKind
from qubixd.link.stream import LinkStream
from tests.support.link_pairs import CALLER, OPENING, PROVIDER, link_pair

BLOB = bytes(range(256)) * 8_000


async def _all(stream: LinkStream) -> bytes:
    got = bytearray()
    while data := await stream.receive_some():
        got += data
    return bytes(got)


async def test_bytes_go_both_ways_and_both_ends_are_told(autojump_clock: object) -> None:
    async with link_pair() as pair:
        ours, theirs = await pair.open()
        assert theirs.opening == OPENING
        assert theirs.peer == CALLER
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_say, ours, BLOB)
            assert await _all(theirs) == BLOB
        await theirs.send_all(b"answer")
        await theirs.send_eof()
        assert await _all(ours) == b"answer"
        await ours.aclose()
        await theirs.aclose()
        assert pair.caller.streams(PROVIDER) == pair.provider.streams(CALLER) == ()


async def _say(stream: LinkStream, data: bytes) -> None:
    await stream.send_all(data)
    await stream.send_eof()


async def test_a_refusal_comes_with_its_reason(autojump_clock: object) -> None:
    async with link_pair() as pair:

        async def refuse(stream: LinkStream) -> None:
            await stream.refuse(PeerRefused("tunnel.not_running", "the job has not begun"))

        pair.provider.serve(refuse)
        with pytest.raises(PeerRefused, match="the job has not begun") as caught:
            await pair.caller.open(PROVIDER, OPENING)
        assert caught.value.refusal_code == "tunnel.not_running"


async def test_an_abort_reaches_who_waits(autojump_clock: object) -> None:
    async with link_pair() as pair:
        ours, theirs = await pair.open()
        theirs.abort("lease.ended", "the lease has ended")
        with pytest.raises(PeerRefused, match="the lease has ended"):
            await ours.receive_some()
        with pytest.raises(PeerRefused, match="the lease has ended"):
            await ours.send_all(b"more")
        with pytest.raises(StreamBroken):
            await theirs.receive_some()


async def test_streams_go_on_over_another_carrier(autojump_clock: object) -> None:
    async with link_pair() as pair:
        ours, theirs = await pair.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_say, ours, BLOB)
            nursery.start_soon(_say, theirs, BLOB[::-1])
            got = await theirs.receive_some()
            await pair.cut()
            assert bytes(got) + await _all(theirs) == BLOB
            await pair.cut()
            assert await _all(ours) == BLOB[::-1]
        assert pair.there.dials >= 3


async def test_a_way_that_stays_lost_ends_the_streams_with_a_sentence(autojump_clock: object) -> None:
    async with link_pair() as pair:
        ours, theirs = await pair.open()
        pair.there.open = pair.back.open = False
        await pair.cut()
        with pytest.raises(StreamBroken, match="none was found in 120 s"):
            await ours.receive_some()
        with pytest.raises(StreamBroken, match="none was found in 120 s"):
            await theirs.receive_some()
        with pytest.raises(PeerUnreachable):
            await pair.caller.open(PROVIDER, OPENING)


async def test_streams_move_to_a_better_carrier(autojump_clock: object) -> None:
    async with link_pair() as pair:
        pair.there.kind = PathKind.RELAYED
        ours, theirs = await pair.open()
        view = pair.caller.view(PROVIDER)
        assert view is not None
        assert view.kind == PathKind.RELAYED
        assert not await pair.caller.improve(PROVIDER)
        pair.there.kind = PathKind.DIRECT
        assert await pair.caller.improve(PROVIDER)
        await ours.send_all(b"over the new one")
        assert await theirs.receive_some() == b"over the new one"
        view = pair.provider.view(CALLER)
        assert view is not None
        assert view.kind == PathKind.DIRECT


async def test_the_side_that_moved_makes_the_way_though_the_other_opened_the_stream(
    autojump_clock: object,
) -> None:
    """The other still believes in a carrier on which nothing will ever come again."""
    async with link_pair() as pair:
        ours, theirs = await pair.open()
        pair.there.open = False
        pair.there.roads[0].mute()
        pair.provider.suspect()
        with trio.fail_after(8):
            await ours.send_all(b"found")
            assert await theirs.receive_some() == b"found"
        assert pair.back.dials == 1


async def test_a_stream_finds_a_carrier_of_its_own_ready(autojump_clock: object) -> None:
    async with link_pair() as pair:
        for count in range(1, 4):
            ours, _ = await pair.open()
            await trio.testing.wait_all_tasks_blocked()
            assert pair.there.dials == count + 1
            await ours.send_all(b"x")
        await trio.sleep(200)
        assert pair.there.dials == 4
        assert len(pair.caller.streams(PROVIDER)) == 3
