"""One question, one answer: signed messages over a stream of their own.

The answer to everything on `/qubix/lease/1` is an Ack, a Refusal, or what was asked for. Both sides
sign, and a signature that is not by the peer the wire authenticated is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import trio

from protocol import messages, signing
from protocol.errors import MessageInvalid, PeerRefused, PeerUnreachable, QubixError, StreamBroken
from protocol.messages import MAX_MESSAGE_BYTES, Refusal
from protocol.signing import NodeKey, Signed
from protocol.units import PeerKey
from qubixd.wire import Stream, Wire, receive_frame, send_frame

log = logging.getLogger("qubix.talk")

LEASE_PROTOCOL: Final = "/qubix/lease/1"
FILES_PROTOCOL: Final = "/qubix/files/1"
LOGS_PROTOCOL: Final = "/qubix/logs/1"
ANSWER_TIMEOUT_S: Final = 20.0
REQUEST_TIMEOUT_S: Final = 20.0
IDLE_TIMEOUT_S: Final = 60.0
"""A peer that owes us bytes, or takes none of ours, for that long is gone."""
MAX_ENVELOPE_BYTES: Final = MAX_MESSAGE_BYTES + signing.ENVELOPE_OVERHEAD_BYTES

Message = TypeVar("Message")

Answer = Callable[[Signed], Awaitable[object]]
"""Handles one verified request and returns the message to answer with."""


async def ask(
    wire: Wire,
    key: NodeKey,
    peer: PeerKey,
    message: object,
    addresses: Sequence[str] = (),
    protocol: str = LEASE_PROTOCOL,
) -> Signed:
    """Send one message and return the verified answer.

    PeerRefused with the peer's code and sentence; PeerUnreachable or StreamBroken on the way.
    """
    with trio.move_on_after(ANSWER_TIMEOUT_S):
        stream = await wire.open(peer, protocol, addresses)
        async with stream:
            await send_signed(stream, key.sign(message))
            await _end(stream)
            return await receive_signed(stream, peer)
    raise PeerUnreachable(f"{peer.hex()[:16]} did not answer within {ANSWER_TIMEOUT_S:g} s")


async def send_signed(stream: Stream, raw: bytes) -> None:
    """Send an envelope; a break of the connection is StreamBroken."""
    try:
        await send_frame(stream, raw)
    except trio.BrokenResourceError as error:
        raise StreamBroken("the connection broke while a message was sent") from error


async def receive_signed(stream: Stream, peer: PeerKey, max_bytes: int = MAX_ENVELOPE_BYTES) -> Signed:
    """The next envelope, signed by the peer at the other end; its Refusal becomes PeerRefused."""
    with patience(IDLE_TIMEOUT_S):
        raw = await receive_frame(stream, max_bytes)
    if raw is None:
        raise StreamBroken("the peer closed the stream without an answer")
    signed = signing.verify(raw, max_bytes)
    if signed.signer != peer:
        raise MessageInvalid("a message was not signed by the peer that sent it")
    if isinstance(signed.message, Refusal):
        raise PeerRefused(signed.message.code, signed.message.sentence)
    return signed


async def send_bare(stream: Stream, message: object) -> None:
    """Send a message without an envelope: for what nobody passes on, as the stream says who speaks."""
    try:
        await send_frame(stream, messages.encode(message))
    except trio.BrokenResourceError as error:
        raise StreamBroken("the connection broke while a message was sent") from error


async def receive_bare(
    stream: Stream, kind: type[Message], max_bytes: int = 4_096, seconds: float = IDLE_TIMEOUT_S
) -> Message:
    """The next message without an envelope, of that kind; a Refusal becomes PeerRefused."""
    with patience(seconds):
        raw = await receive_frame(stream, max_bytes)
    if raw is None:
        raise StreamBroken("the peer closed the stream without an answer")
    message: object = messages.decode(raw, max_bytes)
    if isinstance(message, Refusal):
        raise PeerRefused(message.code, message.sentence)
    if not isinstance(message, kind):
        raise MessageInvalid(f"a peer sent {type(message).__name__} where it does not belong")
    return message


async def answer_one(stream: Stream, peer: PeerKey, key: NodeKey, answer: Answer) -> None:
    """Serve one request of a stream: a QubixError becomes a Refusal with its code and sentence."""
    with patience(REQUEST_TIMEOUT_S):
        signed = await receive_signed(stream, peer)
    reply: Any
    try:
        reply = await answer(signed)
    except QubixError as error:
        log.info("refused %s of %s: %s", type(signed.message).__name__, peer.hex()[:16], error)
        reply = refusal_of(error)
    await send_signed(stream, key.sign(reply))
    await _end(stream)


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Wait no longer than that for a peer: then it is StreamBroken, a peer's trouble and no bug of ours."""
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise StreamBroken(f"nothing moved between us and the peer for {seconds:g} s")


def refusal_of(error: QubixError) -> Refusal:
    """What a peer is told of an error of ours."""
    code = error.refusal_code if isinstance(error, PeerRefused) else error.code
    return Refusal(code=code[:64], sentence=str(error)[:512])


async def _end(stream: Stream) -> None:
    try:
        await stream.send_eof()
    except trio.BrokenResourceError as error:
        raise StreamBroken("the connection broke while a message was sent") from error
