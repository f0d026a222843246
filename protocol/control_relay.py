"""The control API's verbs of relays: `relay` shows those that are used, `rent_relay` rents one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final

from msgspec import Meta

Address = Annotated[str, Meta(max_length=256)]
MAX_RENTED_SECONDS: Final = 30 * 24 * 3_600
"""The price of all of it is locked at once."""

# --- arguments --------------------------------------------------------------------------------


@dataclass(frozen=True)
class RelayArgs:
    """Relays through which this node is reached, and `ask` (a multiaddress or peer id), if it is given."""

    ask: Address = ""


@dataclass(frozen=True)
class RentRelayArgs:
    """Rent a relay. Events and answer as for `run`, with the quote to confirm if `ask`; the answer comes as
    soon as the lease runs or has ended."""

    relay: Address
    """A multiaddress, or the peer id of one that is used or connected; empty: the cheapest that is used."""
    seconds: Annotated[int, Meta(ge=1, le=MAX_RENTED_SECONDS)]
    max_price_qu_per_hour: Annotated[int, Meta(ge=0)] | None = None
    ask: bool = False


# --- answers ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class UsedRelayView:
    """A relay as it answers just now."""

    peer_id: str
    addresses: list[str]
    used: bool
    """This node has a place there and is reached through it."""
    free_bytes: int = 0
    """So much each day for nothing, both ways together."""
    gone_bytes: int = 0
    """Of them, today."""
    bytes_per_second: int = 0
    """At most; 0 for as much as there is."""
    price_qu_per_hour: int = 0
    """0: not for rent."""
    rented: str = ""
    """The id of this node's lease with it."""
    sentence: str = ""
    """Why it did not answer."""


@dataclass(frozen=True)
class OwnRelayView:
    """This node's own work as a relay."""

    places: int
    """Nodes that are reached through it now."""
    joined: int
    """Connections that it carries now."""
    renters: int
    price_qu_per_hour: int


@dataclass(frozen=True)
class RelaysView:
    relays: list[UsedRelayView] = field(default_factory=list)
    own: OwnRelayView | None = None
    """None: this node relays for nobody."""
