"""Which ways to a peer are worth a try, in which order: a list made of facts, without I/O.

A step begins when the one before it has failed, or has had its `patience`; the first that succeeds wins. So a
way that is likely good starts first, and one that would hang for seconds holds up nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from protocol.paths import PathKind
from qubixd.paths.endpoints import Endpoint

DIAL_PATIENCE: Final = 0.25
DIAL_BACK_PATIENCE: Final = 0.5
PUNCH_PATIENCE: Final = 5.0
FIRST_PUNCH_PATIENCE: Final = 1.5
"""When somebody waits and there is a slower way already: what is found later is for the next time."""
PUNCHES: Final = 2
CONE: Final = "cone"
LAST_RESORT_PORT: Final = 443
SYMMETRIC: Final = "symmetric"
OPEN: Final = "none"


class Way(enum.Enum):
    DIAL = "dial"
    """Connect to an address of the peer."""
    DIAL_BACK = "dial back"
    """Ask the peer to connect to us."""
    PUNCH = "punch"
    """Both connect at once."""
    WIRE = "wire"
    """A stream of the connection that there is."""


@dataclass(frozen=True)
class Side:
    """What one of the two has said of itself."""

    ends: tuple[Endpoint, ...] = ()
    """Where the other may dial it."""
    nat: str = ""
    """"none", "cone", "symmetric" or "" (not known), as in PathOffer."""
    ports: tuple[int, ...] = ()
    """The only ports it reaches outside; empty: all."""

    def reaches(self, end: Endpoint) -> bool:
        """As far as it knows: `ports` may be wrong, so this decides only about what comes first."""
        return not self.ports or end.port in self.ports or not end.is_public


@dataclass(frozen=True)
class Step:
    way: Way
    kind: PathKind
    patience: float = 0.0
    """Seconds until the next step begins beside it."""
    end: Endpoint | None = None
    """Of DIAL."""
    attempt: int = 0
    """Of PUNCH."""


def plan(
    me: Side, peer: Side, wire: PathKind | None, better_than: PathKind | None = None, hurry: bool = True
) -> tuple[Step, ...]:
    """The steps to a carrier that is better than that, or to any. `wire` is the way there is already."""
    steps = [
        *_dials(me, peer),
        *_dial_back(me, peer, wire),
        *_punches(me, peer, wire, hurry),
        *([Step(Way.WIRE, wire)] if wire else []),
    ]
    return tuple(step for step in steps if better_than is None or step.kind.rank < better_than.rank)


def _dials(me: Side, peer: Side) -> list[Step]:
    ends = sorted(peer.ends, key=lambda end: not me.reaches(end))
    return [Step(Way.DIAL, PathKind.DIRECT, DIAL_PATIENCE, end) for end in ends]


def _dial_back(me: Side, peer: Side, wire: PathKind | None) -> list[Step]:
    """It needs a word with the peer, and an address of ours that it may get at."""
    if wire is None or not me.ends:
        return []
    return [Step(Way.DIAL_BACK, PathKind.DIRECT, DIAL_BACK_PATIENCE)]


def _punches(me: Side, peer: Side, wire: PathKind | None, hurry: bool) -> list[Step]:
    """Through two routers that show one port to all. With one of them out in the open, dialling does it."""
    if wire is None or SYMMETRIC in (me.nat, peer.nat) or (me.nat == peer.nat == OPEN):
        return []
    patience = FIRST_PUNCH_PATIENCE if hurry else PUNCH_PATIENCE
    return [Step(Way.PUNCH, PathKind.PUNCHED, patience, attempt=attempt) for attempt in range(PUNCHES)]


def source_port(peer_ports: Sequence[int], attempt: int) -> int:
    """From which port to punch: 0 for a fresh one. The one that the peer's firewall lets it dial, if it knows
    of such a firewall; in the second attempt the other way round, since either may be wrong."""
    if attempt == 0:
        return peer_ports[0] if peer_ports else 0
    return 0 if peer_ports else LAST_RESORT_PORT
