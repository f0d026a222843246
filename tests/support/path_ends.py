"""Daemons cut down to their wire, paths and links, on loopback: `async with end(1) as a, end(2) as b`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from protocol.messages import OpenTcp
from protocol.signing import NodeKey
from protocol.units import LeaseId, PeerKey
from qubixd.link.links import Links
from qubixd.link.stream import LinkStream
from qubixd.link.tls import Identity
from qubixd.paths.dialler import Paths
from qubixd.wire import Wire
from qubixd.wire_libp2p import WireConfig, open_wire
from tests.support.wire_nodes import FAST, seed_of

OPENING = OpenTcp(LeaseId(b"l" * 32), 8_888)
NOWHERE = "/ip4/127.0.0.1/tcp/1"
"""Announced by a node that nobody can dial."""


@dataclass
class End:
    """One of them. `friends` are those with whom it has a lease."""

    wire: Wire
    key: NodeKey
    paths: Paths
    links: Links
    friends: set[PeerKey] = field(default_factory=set)


@asynccontextmanager
async def end(
    number: int,
    bootstrap: Sequence[str] = (),
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    hidden: bool = False,
) -> AsyncIterator[End]:
    """Links of it answer every stream with what it says. `hidden`: nobody can dial it."""
    seed = seed_of(number)
    config = WireConfig(host, port, tuple(bootstrap), (NOWHERE,) if hidden else ())
    async with open_wire(config, seed, FAST) as wire:
        made = built(wire, NodeKey(seed))
        async with trio.open_nursery() as nursery:
            await nursery.start(made.links.run)
            await nursery.start(made.paths.run)
            yield made
            nursery.cancel_scope.cancel()


def built(wire: Wire, key: NodeKey) -> End:
    """Paths and links on a wire, which answer already."""
    friends: set[PeerKey] = set()
    paths = Paths(wire, key, Identity(key.public), friends.__contains__, lambda _: ())
    links = Links(key.public, paths)
    paths.open(links)
    links.serve(_echo)
    return End(wire, key, paths, links, friends)


def befriend(*ends: End) -> None:
    """Each has a lease with each other."""
    for one in ends:
        one.friends.update(other.key.public for other in ends if other is not one)


async def _echo(stream: LinkStream) -> None:
    await stream.accept()
    while chunk := await stream.receive_some():
        await stream.send_all(chunk)
    await stream.send_eof()


async def says(stream: LinkStream, text: bytes) -> bytes:
    """What comes back; the stream stays open."""
    await stream.send_all(text)
    answer = b""
    while len(answer) < len(text):
        chunk = await stream.receive_some()
        assert chunk
        answer += chunk
    return answer
