"""Two daemons' links in one trio run, joined by carriers that tests make and break at will."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from trio.testing import memory_stream_pair

from protocol.errors import PeerUnreachable
from protocol.paths import PathKind
from protocol.tunnel_messages import OpenTcp
from protocol.units import LeaseId, PeerKey
from qubixd.link import Carrier
from qubixd.link.carriers import StreamCarrier
from qubixd.link.links import Links
from qubixd.link.stream import LinkStream

CALLER, PROVIDER = PeerKey(b"c" * 32), PeerKey(b"p" * 32)
OPENING = OpenTcp(LeaseId(bytes(32)), 80)


Pipe = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


class Road:
    """A connection in memory between the two, which breaks when so many bytes have come through, or when it
    is cut."""

    def __init__(self, ends: tuple[Pipe, Pipe], left: int | None) -> None:
        self.ends, self._left, self._muted = ends, left, False

    def mute(self) -> None:
        """From now on nothing comes through, and nobody is told."""
        self._muted = True

    async def cut(self) -> None:
        for end in self.ends:
            await trio.aclose_forcefully(end)

    async def let_through(self, data: bytes | bytearray) -> bytes | bytearray:
        if self._muted:
            await trio.sleep_forever()
        if self._left is None:
            return data
        data = data[: self._left]
        self._left -= len(data)
        if not self._left:
            await self.cut()
        return data


class Breaking(StreamCarrier):
    """One end of a road."""

    def __init__(self, road: Road, end: Pipe, kind: PathKind) -> None:
        super().__init__(end, kind, "in memory")
        self._road = road

    async def receive_some(self, max_bytes: int) -> bytes | bytearray:
        return await self._road.let_through(await super().receive_some(max_bytes))


@dataclass
class Between:
    """Dials for one side: hands the other end to the other side's links."""

    me: PeerKey
    other: Links | None = None
    kind: PathKind = PathKind.DIRECT
    open: bool = True
    """Whether a dial succeeds."""
    roads: list[Road] = field(default_factory=list)
    dials: int = 0
    lives: list[int] = field(default_factory=list)
    """Bytes after which the next connections break; those after them last."""

    async def carrier(
        self, peer: PeerKey, addresses: Sequence[str], *, better_than: PathKind | None = None
    ) -> Carrier:
        await trio.lowlevel.checkpoint()
        self.dials += 1
        if not self.open or (better_than is not None and self.kind.rank >= better_than.rank):
            raise PeerUnreachable("there is no way there")
        mine, theirs = memory_stream_pair()
        road = Road((mine, theirs), self.lives.pop(0) if self.lives else None)
        self.roads.append(road)
        assert self.other is not None
        self.other.take(self.me, Breaking(road, theirs, self.kind))
        return Breaking(road, mine, self.kind)


@dataclass
class Pair:
    caller: Links
    provider: Links
    there: Between
    """How the caller dials the provider."""
    back: Between
    accepted: trio.MemoryReceiveChannel[LinkStream]
    """Streams that the provider's side has taken, whose handler never ends."""

    async def open(self) -> tuple[LinkStream, LinkStream]:
        """(caller's end, provider's end) of a new stream."""
        ours = await self.caller.open(PROVIDER, OPENING)
        return ours, await self.accepted.receive()

    async def cut(self) -> None:
        """Break every carrier that there is."""
        for road in [*self.there.roads, *self.back.roads]:
            await road.cut()
        self.there.roads.clear()
        self.back.roads.clear()


@asynccontextmanager
async def link_pair() -> AsyncIterator[Pair]:
    there, back = Between(CALLER), Between(PROVIDER)
    caller, provider = Links(CALLER, there), Links(PROVIDER, back)
    there.other, back.other = provider, caller
    send, accepted = trio.open_memory_channel[LinkStream](1_000)

    async def handler(stream: LinkStream) -> None:
        await stream.accept()
        await send.send(stream)
        await trio.sleep_forever()

    provider.serve(handler)
    async with trio.open_nursery() as nursery:
        await nursery.start(caller.run)
        await nursery.start(provider.run)
        yield Pair(caller, provider, there, back, accepted)
        nursery.cancel_scope.cancel()
