"""What peers may ask on `/qubix/paths/1`: where we are, to dial them, to punch.

Only who has a lease with us is answered, so often and so many at a time; and we dial only what its own offer
named and `endpoints.dialable` lets pass.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from protocol.errors import CapacityTaken, LeaseUnknown, MessageInvalid, QubixError
from protocol.messages import Ack, DialBack, PathOffer, Punch
from protocol.signing import NodeKey
from protocol.units import PeerKey
from qubixd.link import Carrier
from qubixd.paths.offers import Known, Offers
from qubixd.paths.punching import Puncher, telling_nothing
from qubixd.places import Buckets, Places
from qubixd.talk import patience, receive_signed, refusal_of, send_signed
from qubixd.wire import Stream

log = logging.getLogger("qubix.paths")

QUESTION_SECONDS: Final = 10.0
OFFERS: Final = (1 / 5, 10)
"""A second, and at once, from one peer."""
DIALS: Final = (1 / 15, 8)
"""Dials back and punches."""
FAILED_SECONDS: Final = 7.0
"""From the wish to be dialled to the word that it came to nothing: longer than any dial takes."""
AT_A_TIME: Final = (16, 3)
"""In all, and for one peer."""


class Answers:
    """The inbound side; `take` gets the carriers that come of it."""

    def __init__(
        self,
        key: NodeKey,
        may: Callable[[PeerKey], bool],
        offers: Offers,
        puncher: Puncher,
        dial: Callable[[Known], Awaitable[Carrier]],
        take: Callable[[PeerKey, Carrier], Awaitable[None]],
    ) -> None:
        self._key, self._may, self._offers, self._puncher = key, may, offers, puncher
        self._dial, self._take = dial, take
        self._questions, self._dials = Buckets(*OFFERS), Buckets(*DIALS)
        self._places = Places(*AT_A_TIME)

    async def serve(self, stream: Stream, peer: PeerKey) -> None:
        """One question; a QubixError is answered with a Refusal."""
        with patience(QUESTION_SECONDS):
            message = (await receive_signed(stream, peer)).message
        try:
            await self._answer(stream, peer, message)
        except QubixError as error:
            log.info("%s of %s came to nothing: %s", type(message).__name__, peer.hex()[:16], error)
            await self._say(stream, refusal_of(error))

    async def _answer(self, stream: Stream, peer: PeerKey, message: object) -> None:
        if not self._may(peer):
            raise LeaseUnknown("there is no lease between us that is running")
        match message:
            case PathOffer():
                if not self._questions.take(peer):
                    raise CapacityTaken("this peer asked too often where this node is; wait a little")
                self._offers.heard(peer, message)
                await self._say(stream, self._offers.own())
            case DialBack() | Punch():
                await self._toward(stream, peer, message)
            case _:
                raise MessageInvalid(f"nobody asks for paths with {type(message).__name__}")

    async def _toward(self, stream: Stream, peer: PeerKey, message: DialBack | Punch) -> None:
        known = self._offers.of(peer)
        if known is None:
            raise MessageInvalid("before it asks to be dialled a peer says where it is")
        with self._places.hold(peer, None) as held:
            if not held or not self._dials.take(peer):
                raise CapacityTaken("this peer asked too often to be dialled; wait a little")
            if isinstance(message, Punch):
                await self._take(peer, await self._puncher.answer(stream, peer, known, message))
                return
            async with telling_nothing(FAILED_SECONDS):
                carrier = await self._dial(known)
            await self._take(peer, carrier)
        await self._say(stream, Ack())

    async def _say(self, stream: Stream, message: object) -> None:
        await send_signed(stream, self._key.sign(message))
        await stream.send_eof()
