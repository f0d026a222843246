"""Types and sizes of the fields of messages; each is checked when a message is decoded."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from protocol.units import MAX_QU, EscrowId, LeaseId, PeerKey, Qu, QubicId, Seconds, Tick, UnixMs

Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Id = Annotated[QubicId, Meta(min_length=32, max_length=32)]
Peer = Annotated[PeerKey, Meta(min_length=32, max_length=32)]
Lease32 = Annotated[LeaseId, Meta(min_length=32, max_length=32)]
Escrow32 = Annotated[EscrowId, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
Money = Annotated[Qu, Meta(ge=0, le=MAX_QU)]
Count32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Ticks = Annotated[int, Meta(ge=1, le=2**31 - 1)]
TickNumber = Annotated[Tick, Meta(ge=0, le=2**32 - 1)]
Size = Annotated[int, Meta(ge=0, le=2**53)]
Instant = Annotated[UnixMs, Meta(ge=0, le=2**53)]
Duration = Annotated[Seconds, Meta(ge=0, le=366 * 86_400)]
Tag8 = Annotated[bytes, Meta(min_length=8, max_length=8)]
Word = Annotated[str, Meta(max_length=64)]
Address = Annotated[str, Meta(max_length=256)]
Sentence = Annotated[str, Meta(max_length=512)]

MAX_OFFER_BYTES: Final = 4_096
MAX_RECEIPT_BYTES: Final = 8_192
MAX_SIGHTINGS: Final = 400
"""Of one Liveness, so that it fits into a gossip message."""
SIGHTING_BYTES: Final = 9
MAX_MESSAGE_BYTES: Final = 65_536
MAX_ORDER_BYTES: Final = 262_144
"""A job order may carry a long script and many variables."""
MAX_SEALED_BYTES: Final = MAX_MESSAGE_BYTES + 48
"""Of secrets: a NaCl sealed box is 48 bytes longer than what is in it."""
MAX_PROGRAM_BYTES: Final = 8 << 20
"""Of the program by which a caller proves a machine."""
