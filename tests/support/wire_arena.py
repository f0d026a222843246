"""A node under attack and an honest peer: after every attack, nothing honest may have been harmed.

What is checked at the end: a stream that was open all along, a new stream, and gossip both ways.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from protocol.units import UnixMs
from qubixd.relay import Relay
from qubixd.wire import Stream, Wire
from qubixd.wire_libp2p import Limits
from tests.support.wire_nodes import ECHO, FAST, TOPIC, Inbox, assert_echoes, connected, gossip_until, node

LIMITS = replace(
    FAST,
    connections=14,
    inbound_connections=12,
    connections_per_ip=8,
    handshakes=8,
    handshakes_per_ip=6,
    gossip_burst=60,
)
BRISK = replace(LIMITS, handshake_seconds=3.0)
"""For attacks that last until the node has lost its patience."""
HOSTILE_IP = "127.0.0.66"


@dataclass
class Arena:
    """The node under attack and an honest peer with an open stream."""

    node: Wire
    honest: Wire
    inbox: Inbox
    back: Inbox
    """Of the honest peer."""
    stream: Stream

    def judged(self, prefix: bytes) -> int:
        """How many messages with this prefix reached the node's validator."""
        return sum(data.startswith(prefix) for data, _ in self.inbox.messages)


@asynccontextmanager
async def arena(limits: Limits = LIMITS) -> AsyncIterator[Arena]:
    """Runs an attack and then asserts that nothing honest was harmed."""
    inbox, back = Inbox(), Inbox()
    async with node(1, limits=limits) as victim, node(2, victim.addresses) as honest:
        Relay(victim, lambda: UnixMs(0))
        victim.subscribe(TOPIC, inbox)
        honest.subscribe(TOPIC, back)
        await connected((victim, honest))
        stream = await honest.open(victim.peer_key, ECHO)
        yield Arena(victim, honest, inbox, back, stream)
        await stream.send_all(b"open all along")
        assert await stream.receive_some() == b"open all along"
        await assert_echoes(honest, victim)
        await gossip_until(honest, inbox, b"honest")
        await gossip_until(victim, back, b"victim")
