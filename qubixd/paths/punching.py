"""Two nodes agree on a punch over the connection that they have, and do it: the asker's side and the other.

The asker sends Punch with the outside of its port, the other answers with its own; then the asker ends its
side of the stream and begins half a round trip later, the other begins when it sees that end.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from protocol.errors import MessageInvalid, PeerUnreachable, QubixError
from protocol.messages import Punch
from protocol.paths import PathKind
from protocol.signing import NodeKey
from protocol.units import PeerKey
from qubixd.link import Carrier
from qubixd.link.tls import Identity, TlsDoor, tls_client
from qubixd.paths.endpoints import Endpoint, parse
from qubixd.paths.offers import PATHS_PROTOCOL, Known, Offers
from qubixd.paths.plan import source_port
from qubixd.paths.punch import Hole, drilled, may_use, punch
from qubixd.paths.surroundings import Surroundings
from qubixd.talk import receive_signed, send_signed
from qubixd.wire import Stream, Wire

log = logging.getLogger("qubix.paths")

PUNCH_SECONDS: Final = 4.0
AGREE_SECONDS: Final = 8.0
TRIP_SECONDS: Final = 0.5
NONCE_BYTES: Final = 32


class Puncher:
    """Both sides of a punch."""

    def __init__(
        self,
        wire: Wire,
        key: NodeKey,
        identity: Identity,
        door: TlsDoor,
        around: Surroundings,
        offers: Offers,
    ) -> None:
        self._wire, self._key, self._identity, self._door = wire, key, identity, door
        self._around, self._offers = around, offers

    async def ask(self, peer: PeerKey, known: Known, attempt: int) -> Carrier:
        """As the one who wants it. PeerUnreachable if they do not meet."""
        with trio.move_on_after(AGREE_SECONDS):
            return await self._ask(peer, known, attempt)
        raise PeerUnreachable("the punch came to nothing in time")

    async def _ask(self, peer: PeerKey, known: Known, attempt: int) -> Carrier:
        async with self._hole(peer, known, attempt) as hole:
            trip = await self._trip(peer)
            stream = await self._wire.open(peer, PATHS_PROTOCOL)
            async with stream:
                await send_signed(stream, self._key.sign(_word(hole, attempt)))
                answer = (await receive_signed(stream, peer)).message
                remote = self._remote(peer, answer)
                await stream.send_eof()
                await trio.sleep(trip / 2)
                socket = await _meet(hole, remote)
            return await tls_client(socket, self._identity, known.offer.certificate, PathKind.PUNCHED)

    async def _trip(self, peer: PeerKey) -> float:
        """Seconds there and back; a connection that says nothing is not waited for: most routers forgive it
        if the two do not begin at the same moment."""
        with trio.move_on_after(TRIP_SECONDS):
            return await self._wire.round_trip(peer)
        return 0.0

    async def answer(self, stream: Stream, peer: PeerKey, known: Known, message: Punch) -> Carrier:
        """As the one who is asked: says where, waits for the sign, and meets the asker."""
        with trio.move_on_after(AGREE_SECONDS):
            remote = self._remote(peer, message)
            async with self._hole(peer, known, message.attempt) as hole:
                await send_signed(stream, self._key.sign(_word(hole, message.attempt, message.nonce)))
                if await stream.receive_some(1):
                    raise MessageInvalid("a peer said more than a punch needs")
                async with telling_nothing(PUNCH_SECONDS):
                    socket = await _meet(hole, remote)
                    found, carrier = await self._door.accept(socket, PathKind.PUNCHED)
            if found == peer:
                return carrier
            await carrier.aclose()
        raise PeerUnreachable("the punch came to nothing in time")

    def _remote(self, peer: PeerKey, message: object) -> Endpoint:
        if not isinstance(message, Punch):
            raise MessageInvalid("a Punch is answered with a Punch")
        end = self._offers.endpoint_of(peer, parse(message.observed))
        if end is None:
            raise MessageInvalid(f"{message.observed} is no place to meet at")
        return end

    @asynccontextmanager
    async def _hole(self, peer: PeerKey, known: Known, attempt: int) -> AsyncIterator[Hole]:
        """Fresh each time, or the one port that the peer can dial."""
        port = source_port(known.side.ports, attempt)
        if port and not may_use(port):
            port = 0
        theirs = {self._wire.remote_ip(peer), *(end.ip for end in known.side.ends)}
        # Not the peer itself: what is open to it from this port already could not be opened again.
        echoes = [end for end in self._around.echoes() if end.ip not in theirs]
        async with drilled(echoes, port) as hole:
            if hole.is_symmetric:
                raise PeerUnreachable("this router shows another port to everyone (symmetric NAT)")
            yield hole


@asynccontextmanager
async def telling_nothing(seconds: float) -> AsyncIterator[None]:
    """Around what a peer makes this node dial: neither words nor time tell it what is there, so that nobody
    looks through our network by our eyes."""
    until = trio.current_time() + seconds
    try:
        yield
    except QubixError as error:
        log.debug("dialled for a peer in vain: %s", error)
        await trio.sleep_until(until)
        raise PeerUnreachable("nothing came of it at the places that were named") from error


async def _meet(hole: Hole, remote: Endpoint) -> trio.SocketStream:
    with trio.move_on_after(PUNCH_SECONDS):
        return await punch(hole.port, remote)
    raise PeerUnreachable(f"nobody came through from {remote}")


def _word(hole: Hole, attempt: int, nonce: bytes = b"") -> Punch:
    return Punch(nonce or os.urandom(NONCE_BYTES), str(hole.seen[0]), attempt)
