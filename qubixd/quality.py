"""How good the way to a peer is for playing: several pings over it, their middle and how much they differ.

Measured before a lease there is the wire's own connection, direct or through a relay. Once the job runs its
streams may find a better way (qubixd/paths), hardly ever a worse one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import trio

from protocol.errors import QubixError
from protocol.paths import PathKind
from protocol.units import PeerKey
from qubixd.wire import Wire

PINGS: Final = 15
PAUSE_SECONDS: Final = 0.04
PATIENCE_SECONDS: Final = 6.0
PICTURE_MS: Final = 1_000 / 60
"""How long a picture is shown at 60 a second."""
FEEL: Final = (
    (20.0, "as if the machine stood in your house"),
    (40.0, "good for all but the fastest games"),
    (80.0, "fine for slow games; in fast ones you will notice it"),
)
FAR: Final = "only for games that wait for you"


@dataclass(frozen=True)
class Quality:
    kind: PathKind
    rtt_ms: float
    """The median."""
    jitter_ms: float
    """Between the fastest and all but the slowest tenth."""


async def measure(
    wire: Wire,
    peer: PeerKey,
    addresses: Sequence[str] = (),
    pings: int = PINGS,
    seconds: float = PATIENCE_SECONDS,
) -> Quality | None:
    """None if the peer cannot be reached or does not answer in time."""
    taken: list[float] = []
    with trio.move_on_after(seconds):
        try:
            for _ in range(pings):
                taken.append(1_000 * await wire.round_trip(peer, addresses))
                await trio.sleep(PAUSE_SECONDS)
        except QubixError:
            return None
    kind = wire.path_of(peer)
    return quality_of(taken, kind) if taken and kind else None


def quality_of(taken: Sequence[float], kind: PathKind) -> Quality:
    """`taken`: round trips in ms, at least one."""
    ordered = sorted(taken)
    last = ordered[-1 - len(ordered) // 10]
    return Quality(kind, round(median(ordered), 2), round(last - ordered[0], 2))


def words(one: Quality) -> str:
    """What it means for playing."""
    feel = next((said for most, said in FEEL if one.rtt_ms <= most), FAR)
    said = f"{_ms(one.rtt_ms)} there and back, varying by {_ms(one.jitter_ms)}: {feel}"
    if one.jitter_ms > PICTURE_MS:
        said += "; it varies by more than a picture lasts, so that pictures will stutter"
    if one.kind is PathKind.RELAYED:
        said += (
            "; a relay carries it, too slowly for a game unless it is rented (`qubix relay`); "
            "a better way is looked for once the job runs"
        )
    return said


def _ms(value: float) -> str:
    return f"{value:.0f} ms" if value >= 1 else "less than 1 ms"
