"""What can be told to people of how this node stands in the world."""

from __future__ import annotations

from dataclasses import dataclass

from qubixd.paths.surroundings import Seen
from qubixd.wire import Wire


@dataclass(frozen=True)
class Reach:
    """As far as it is known; addresses are IP:PORT."""

    nat: str
    """"none", "cone", "symmetric" or "" (not known), as in PathOffer."""
    outside: tuple[str, ...]
    """One fresh port of this machine, as each node that was asked saw it."""
    only_ports: tuple[int, ...]
    """The only TCP ports that get out; empty where no such firewall was noticed."""
    reachable: bool | None
    """Whether others could open connections to it; None while nobody has tried."""
    reached_at: tuple[str, ...]


def reach_of(seen: Seen, wire: Wire) -> Reach:
    """What the look around and the other nodes have told."""
    outside = wire.observed()
    return Reach(
        nat=seen.nat,
        outside=tuple(str(end) for end in seen.outside),
        only_ports=seen.ports,
        reachable=outside.reachable,
        reached_at=outside.reached_at,
    )
