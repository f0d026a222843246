"""How two nodes that know each other find the best way between them: what they tell of themselves and
agree on before they dial. Travels on `/qubix/paths/1`, over whatever way there is already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from protocol.message_fields import Address, Bytes32, Count32, Word

MAX_CERTIFICATE_BYTES = 1_024


@dataclass(frozen=True)
class PathOffer:
    """Where a node can be reached and by what it will be known there. Asked and answered alike."""

    certificate: Annotated[bytes, Meta(max_length=MAX_CERTIFICATE_BYTES)]
    """DER of the one that its links show; good until its daemon ends."""
    addresses: Annotated[tuple[Address, ...], Meta(max_length=8)]
    """Where it listens for links, as others see it; none that goes through a relay."""
    nat: Word
    """"none", "cone" (one outer port for all it talks to), "symmetric", or "" where it does not know."""
    ports: Annotated[tuple[Annotated[int, Meta(ge=1, le=65_535)], ...], Meta(max_length=8)] = ()
    """The only ports it reaches outside, where a firewall keeps it from all others."""
    outside: Annotated[str, Meta(max_length=45)] = ""
    """The IP that others see it come from, where it knows: who has another is not in its network."""


@dataclass(frozen=True)
class DialBack:
    """Please dial me at what my PathOffer said: I am easier to reach than you. Answer: Ack."""

    nonce: Bytes32


@dataclass(frozen=True)
class Punch:
    """Both dial at once, each from the port whose outside it names here. Asked and answered alike; the
    asker begins half a round trip after the answer has come."""

    nonce: Bytes32
    observed: Address
    """IP:PORT as a third node sees the asker's (or answerer's) socket."""
    attempt: Count32
