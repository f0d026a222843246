"""Nodes that are silent, rude, busy, slow, garbled or lying; each is a handler for `nodes.serving`."""

from __future__ import annotations

import random
from collections.abc import Callable

import trio

from escrow_bridge import wire_format as wire
from escrow_bridge.devnet.engine import Engine
from escrow_bridge.devnet.server import GREETING, Server
from escrow_bridge.wire_format import HEADER_BYTES, Kind, MessageReader, encode
from tests.support.nodes import Handler

Twist = Callable[[int, bytes], bytes | None]
"""(kind, payload) of an honest reply -> the payload sent instead; None: nothing is sent."""


async def silent(stream: trio.SocketStream) -> None:
    """As a node whose slots are all taken: the connection opens, no greeting comes."""
    await trio.sleep_forever()


async def rude(stream: trio.SocketStream) -> None:
    await stream.send_all(encode(Kind.TICK_INFO, 1, bytes(16)))
    await trio.sleep_forever()


async def mute(stream: trio.SocketStream) -> None:
    """Greets and takes everything, and never answers."""
    await stream.send_all(GREETING)
    async for _ in stream:
        pass


async def deaf(stream: trio.SocketStream) -> None:
    """Greets and reads nothing: what is sent to it fills the buffers."""
    await stream.send_all(GREETING)
    await trio.sleep_forever()


async def huge(stream: trio.SocketStream) -> None:
    await stream.send_all(GREETING + b"\xff\xff\xff" + bytes(5))
    await trio.sleep_forever()


async def hasty(stream: trio.SocketStream) -> None:
    """Hangs up on every request."""
    await stream.send_all(GREETING)
    await stream.receive_some()


async def noisy(stream: trio.SocketStream) -> None:
    """Greets and then sends random bytes."""
    chance = random.Random(1)
    await stream.send_all(GREETING)
    async for _ in stream:
        await stream.send_all(chance.randbytes(5_000))


async def busy(stream: trio.SocketStream) -> None:
    await _answer_all(stream, Kind.TRY_AGAIN, b"")


async def short(stream: trio.SocketStream) -> None:
    await _answer_all(stream, Kind.TICK_INFO, bytes(15))


async def _answer_all(stream: trio.SocketStream, kind: Kind, payload: bytes) -> None:
    await stream.send_all(GREETING)
    reader = MessageReader(stream)
    while (message := await reader.receive()) is not None:
        await stream.send_all(encode(kind, message.dejavu, payload))


def lying(engine: Engine, twist: Twist) -> Handler:
    """A node over `engine` whose replies are twisted on their way out."""

    async def handle(stream: trio.SocketStream) -> None:
        await stream.send_all(GREETING)
        server, reader = Server(engine), MessageReader(stream)
        while (message := await reader.receive()) is not None:
            for reply in server.answers(message):
                payload = twist(reply[3], reply[HEADER_BYTES:])
                if payload is not None:
                    await stream.send_all(encode(Kind(reply[3]), message.dejavu, payload))

    return handle


def emptying(engine: Engine) -> Handler:
    """A node over `engine` that claims to have nothing of any tick."""

    async def handle(stream: trio.SocketStream) -> None:
        await stream.send_all(GREETING)
        server, reader = Server(engine), MessageReader(stream)
        while (message := await reader.receive()) is not None:
            if message.kind == Kind.REQUEST_TICK_DATA:
                await stream.send_all(encode(Kind.END, message.dejavu))
            else:
                await stream.send_all(b"".join(server.answers(message)))

    return handle


def reordering(engine: Engine, hold: int) -> Handler:
    """A node over `engine` that answers `hold` requests at a time, the last one first, amid gossip."""

    async def handle(stream: trio.SocketStream) -> None:
        await stream.send_all(GREETING)
        server, reader, held = Server(engine), MessageReader(stream), list[bytes]()
        while (message := await reader.receive()) is not None:
            held.append(b"".join(server.answers(message)))
            if len(held) == hold:
                noise = encode(Kind.TRANSACTION, 0, bytes(144)) + encode(Kind.TICK_DATA, 77, bytes(50_000))
                await stream.send_all(noise + b"".join(reversed(held)))
                held.clear()

    return handle


def richer(amount: int) -> Twist:
    """Every account has `amount` QU more than it has."""

    def twist(kind: int, payload: bytes) -> bytes:
        if kind != Kind.ENTITY:
            return payload
        incoming = int.from_bytes(payload[32:40], "little") + amount
        return payload[:32] + incoming.to_bytes(8, "little") + payload[40:]

    return twist


def out_of_time(ticks: int) -> Twist:
    """Claims to be `ticks` ticks later than it is."""

    def twist(kind: int, payload: bytes) -> bytes:
        if kind != Kind.TICK_INFO:
            return payload
        tick = int.from_bytes(payload[4:8], "little") + ticks
        return payload[:4] + tick.to_bytes(4, "little") + payload[8:]

    return twist


def forging(kind: int, payload: bytes) -> bytes:
    """Every transaction in a tick is another one than it was."""
    if kind == Kind.TICK_DATA:
        start = wire.TICK_HEAD_BYTES
        return payload[:start] + bytes([payload[start] ^ 1]) + payload[start + 1 :]
    if kind == Kind.TRANSACTION:
        return payload[:-1] + bytes([payload[-1] ^ 1])
    return payload


def hiding(kind: int, payload: bytes) -> bytes | None:
    """Leaves the transactions of a tick out."""
    return None if kind == Kind.TRANSACTION else payload


def inventing(kind: int, payload: bytes) -> bytes:
    """Contracts answer something else."""
    return payload[:-1] + bytes([payload[-1] ^ 1]) if kind == Kind.FUNCTION and payload else payload
