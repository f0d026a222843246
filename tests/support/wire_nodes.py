"""Real wires on loopback, an echo protocol, and what a hostile peer is built from."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

import trio
from libp2p.abc import ISecureConn
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as x25519_key_pair
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.validators import PUBSUB_SIGNING_PREFIX
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.utils.varint import encode_uvarint

from protocol.units import PeerKey
from qubixd.wire import Stream, Verdict, Wire
from qubixd.wire_libp2p import Limits, WireConfig, open_wire
from qubixd.wire_libp2p.addresses import split_address
from qubixd.wire_libp2p.tcp import BufferedTcp
from qubixd.wire_libp2p.yamux import Yamux
from qubixd.wire_libp2p.yamux_stream import YamuxStream

ECHO: Final = "/test/echo/1"
TOPIC: Final = "test-offers"
PATIENCE_SECONDS: Final = 60.0
"""What takes longer hangs: a machine may be slow and shared."""
FAST: Final = Limits(
    ping_seconds=0.3,
    silence_seconds=30.0,
    handshake_seconds=30.0,
    dial_seconds=30.0,
    open_seconds=30.0,
    redial_first_seconds=0.05,
    redial_last_seconds=0.4,
)
"""Quick to act, slow to give up."""
_HOSTILE_LIMITS: Final = Limits(ping_seconds=3_600, silence_seconds=3_600, pong_seconds=3_600)


async def echo(stream: Stream, peer: PeerKey) -> None:
    """Send everything back, then end."""
    while chunk := await stream.receive_some():
        await stream.send_all(chunk)


@dataclass
class Inbox:
    """Gossip that arrived at one node."""

    messages: list[tuple[bytes, PeerKey]] = field(default_factory=list)
    verdict: Verdict = Verdict.ACCEPT

    def __call__(self, data: bytes, source: PeerKey) -> Verdict:
        self.messages.append((data, source))
        return self.verdict

    def count(self, data: bytes) -> int:
        return sum(message == data for message, _ in self.messages)


def seed_of(number: int) -> bytes:
    return bytes([number]) * 32


@asynccontextmanager
async def node(
    number: int,
    bootstrap: Sequence[str] = (),
    *,
    port: int = 0,
    limits: Limits = FAST,
    hidden: bool = False,
) -> AsyncIterator[Wire]:
    """A running wire on loopback that answers ECHO; a `hidden` one tells others where nobody is."""
    announce = ("/ip4/127.0.0.1/tcp/1",) if hidden else ()
    config = WireConfig("127.0.0.1", port, tuple(bootstrap), announce)
    async with open_wire(config, seed_of(number), limits) as wire:
        wire.serve(ECHO, echo)
        yield wire


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that has no event of its own."""
    with trio.fail_after(PATIENCE_SECONDS):
        while not condition():
            await trio.sleep(0.01)


async def connected(*pairs: tuple[Wire, Wire]) -> None:
    """Wait until each pair has a connection, seen from both ends."""
    for a, b in pairs:
        await until(lambda a=a, b=b: b.peer_key in a.peers() and a.peer_key in b.peers())  # type: ignore[misc]  # mypy cannot infer defaults of a lambda


async def gossip_until(sender: Wire, inbox: Inbox, data: bytes, topic: str = TOPIC) -> None:
    """Publish numbered copies until one arrives (a mesh needs a moment to form)."""
    with trio.fail_after(PATIENCE_SECONDS):
        number = 0
        while not any(message.startswith(data) for message, _ in inbox.messages):
            await sender.publish(topic, data + b"#%d" % number)
            number += 1
            await trio.sleep(0.1)


async def read_all(stream: Stream) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def assert_echoes(client: Wire, server: Wire, data: bytes = b"still there?") -> None:
    """The server answers an honest peer."""
    with trio.fail_after(PATIENCE_SECONDS):
        stream = await client.open(server.peer_key, ECHO, server.addresses)
        async with stream:
            await stream.send_all(data)
            await stream.send_eof()
            assert await read_all(stream) == data


# Hostile peers


@dataclass
class Hostile:
    """An authenticated connection whose owner keeps no rule."""

    keys: KeyPair
    secure: ISecureConn
    muxed: Yamux

    @property
    def key(self) -> PeerKey:
        return PeerKey(self.keys.public_key.to_bytes())

    async def frame(self, kind: int, flags: int, stream_id: int, length: int, body: bytes = b"") -> None:
        """Any yamux frame, past the muxer; nothing happens once the node has hung up."""
        with suppress(ConnectionClosedError):
            await self.secure.write(struct.pack("!BBHII", 0, kind, flags, stream_id, length) + body)

    async def stream(self, protocol: str) -> YamuxStream:
        """A stream on which the protocol was agreed."""
        stream = await self.muxed.open_stream()
        hello = selection("/multistream/1.0.0") + selection(protocol)
        await stream.send(hello)
        answer = b""
        while len(answer) < len(hello):
            chunk = await stream.receive(4_096)
            assert chunk, f"{protocol} was refused: {answer!r}"
            answer += chunk
        assert answer == hello, f"{protocol} was refused: {answer!r}"
        return stream

    async def gossip(self, *messages: rpc_pb2.Message) -> YamuxStream:
        """A pubsub stream that has said it, one RPC per message, and is still open."""
        stream = await self.stream("/meshsub/1.1.0")
        await stream.send(b"".join(rpc(message) for message in messages))
        return stream

    def message(self, data: bytes, number: int, topic: str = TOPIC) -> rpc_pb2.Message:
        """A message with a right signature."""
        return signed(self.keys, data, number, topic)

    async def gone(self) -> None:
        """Wait until the node has ended the connection."""
        with trio.fail_after(PATIENCE_SECONDS):
            await self.muxed.event_closed.wait()


def selection(protocol: str) -> bytes:
    """One multistream-select line."""
    line = protocol.encode() + b"\n"
    return encode_uvarint(len(line)) + line


def rpc(message: rpc_pb2.Message) -> bytes:
    payload = rpc_pb2.RPC(publish=[message]).SerializeToString()
    return encode_uvarint(len(payload)) + payload


def signed(keys: KeyPair, data: bytes, number: int, topic: str = TOPIC) -> rpc_pb2.Message:
    message = rpc_pb2.Message(
        data=data,
        topicIDs=[topic],
        from_id=ID.from_pubkey(keys.public_key).to_bytes(),
        seqno=number.to_bytes(8, "big"),
    )
    message.signature = keys.private_key.sign(PUBSUB_SIGNING_PREFIX.encode() + message.SerializeToString())
    return message


def host_and_port(address: str) -> tuple[str, int]:
    _, ip, host, tcp, port = address.split("/")[:5]
    assert (ip, tcp) == ("ip4", "tcp")
    return host, int(port)


class Target(Protocol):
    """What one must know of a node to connect with it."""

    @property
    def addresses(self) -> tuple[str, ...]: ...


async def tcp_to(wire: Target, source: str = "127.0.0.1") -> trio.SocketStream:
    """A bare TCP connection to a node, from any loopback address."""
    host, port = host_and_port(wire.addresses[0])
    return await trio.open_tcp_stream(host, port, local_address=source)


async def select(stream: trio.abc.Stream, protocol: str) -> bytes:
    """Multistream-select one protocol by hand; the line that answers it."""
    await stream.send_all(selection("/multistream/1.0.0") + selection(protocol))
    expected, answer = len(selection("/multistream/1.0.0")), b""
    while len(answer) <= expected or not answer.endswith(b"\n"):
        chunk = await stream.receive_some(1)
        if not chunk:
            break
        answer += chunk
    return answer[expected + 1 :].rstrip(b"\n")


async def noise_to(wire: Wire, number: int, source: str = "127.0.0.1") -> tuple[KeyPair, ISecureConn]:
    """A connection to a node on which the keys are proved and nothing else is agreed."""
    keys = create_new_key_pair(seed_of(number))
    return keys, await _secure(wire, keys, source)


async def _secure(wire: Target, keys: KeyPair, source: str) -> ISecureConn:
    peer, _ = split_address(wire.addresses[0])
    tcp = await tcp_to(wire, source)
    assert await select(tcp, "/noise") == b"/noise"
    noise = NoiseTransport(keys, x25519_key_pair().private_key)
    return await noise.secure_outbound(RawConnection(BufferedTcp(TrioTCPStream(tcp)), True), peer)


@asynccontextmanager
async def hostile(wire: Wire, number: int = 66, source: str = "127.0.0.1") -> AsyncIterator[Hostile]:
    """A hostile peer with an authenticated, muxed connection to a node."""
    async with hostile_with(wire, create_new_key_pair(seed_of(number)), source) as enemy:
        yield enemy


@asynccontextmanager
async def hostile_with(wire: Target, keys: KeyPair, source: str) -> AsyncIterator[Hostile]:
    """The same with keys of one's own."""
    secure = await _secure(wire, keys, source)
    hello = selection("/multistream/1.0.0") + selection("/yamux/1.0.0")
    await secure.write(hello)
    assert await secure.read(len(hello)) == hello
    muxed = Yamux(secure, split_address(wire.addresses[0])[0], _HOSTILE_LIMITS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(muxed.start)
        await muxed.event_started.wait()
        try:
            yield Hostile(keys, secure, muxed)
        finally:
            await muxed.close()
            nursery.cancel_scope.cancel()
