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


@dataclass
class Road:
    """A pair of carriers in memory between the two; `cut` breaks both."""

    ends: tuple[trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream], ...]

    async def cut(self) -> None:
        for end in self.ends:
            await trio.aclose_forcefully(end)


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

    async def carrier(
        self, peer: PeerKey, addresses: Sequence[str], *, better_than: PathKind | None = None
    ) -> Carrier:
        await trio.lowlevel.checkpoint()
        self.dials += 1
        if not self.open or (better_than is not None and self.kind.rank >= better_than.rank):
            raise PeerUnreachable("there is no way there")
        mine, theirs = memory_stream_pair()
        self.roads.append(Road((mine, theirs)))
        assert self.other is not None
        self.other.take(self.me, StreamCarrier(theirs, self.kind, "there"))
        return StreamCarrier(mine, self.kind, "here")


@dataclass
class Pair:
    caller: Links
    provider: Links
    there: Between
    """How the caller dials the provider."""
    back: Between
    accepted: trio.MemoryReceiveChannel[LinkStream]
    """Streams that the provider's side has taken, whose handler runs until they are over."""

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
        await stream.wait_over()

    provider.serve(handler)
    async with trio.open_nursery() as nursery:
        await nursery.start(caller.run)
        await nursery.start(provider.run)
        yield Pair(caller, provider, there, back, accepted)
        nursery.cancel_scope.cancel()
