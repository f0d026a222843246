"""The network's part of the local control API: who is there, how each is reached, and how well it all works.

Arguments and answer of `network`. Peers are peer ids, rates bytes a second, times milliseconds (of the
machine's clock since 1970 where a name ends in `at_ms`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from protocol.control_relay import OwnRelayView

MAX_PEERS: Final = 500
"""Told one by one, those with leases first; `total` counts all."""


@dataclass(frozen=True)
class NetworkArgs:
    """How this node stands in its network. `measure`: take the round trip to the first peers now."""

    measure: bool = False


@dataclass(frozen=True)
class PeerView:
    """A peer with a connection."""

    peer_id: str
    name: str
    """As its offer says; empty without one."""
    way: str
    """A PathKind: of the link that carries tunnels where there is one, else of libp2p's connection."""
    address: str
    """IP:PORT of the other end; empty if only a relay knows."""
    relay: str
    """Peer id of who carries it, if anybody does."""
    roles: list[str]
    """Of: lease (there is one with it), provider (it offers), directory, relay (this node is reached through
    it)."""
    rtt_ms: float | None = None
    sent_per_second: int | None = None
    received_per_second: int | None = None
    """Of tunnels, over the last seconds; None where there is no link for any."""
    sent_bytes: int | None = None
    received_bytes: int | None = None
    streams: int = 0
    """Tunnels that are open."""


@dataclass(frozen=True)
class GossipView:
    topics: list[str]
    """Joined: markets whose offers are read by gossip, and those of directories."""
    received: int
    """Messages since the start."""
    ignored: int
    """Old or seen before."""
    rejected: int
    """Wrong ones; whoever sends many is dropped."""
    peers_dropped: int
    offers: int
    """Live ones, known here."""
    settled: bool
    """Directories keep this machine's offer alive."""
    served: bool
    """Directories bring the market."""
    dropped: dict[str, int]
    """Everything that was refused or dropped, by reason."""


@dataclass(frozen=True)
class DirectoryUseView:
    peer_id: str
    heartbeats: bool
    """This machine's signs of life go there."""
    reads: bool
    """Its book is read."""
    live: bool
    """It does its work at the moment."""
    offers: int
    """Live ones that it has shown."""
    missing: int
    """That others show and it does not."""


@dataclass(frozen=True)
class RelayUseView:
    """A relay at which this node has a place."""

    peer_id: str
    free_bytes: int
    """A day, for nothing."""
    used_bytes: int
    """Of them, when the place was last asked for."""
    bytes_per_second: int
    """At most; 0 for as much as there is."""
    price_qu_per_hour: int
    """0: not for rent."""


@dataclass(frozen=True)
class ChainView:
    name: str
    """Who is asked, in words."""
    network: str
    contract_index: int
    state: str
    """"ok", "slow" (no new tick for long), "waiting" (something waits for it), "silent" (it has never
    answered)."""
    sentence: str
    """What that means; empty if all is well."""
    tick: int
    epoch: int
    ticks_of_epoch: int
    tick_ms: int
    """How long one lasts, as seen."""
    age_ms: int
    """Since the last new tick was seen."""
    differences: int
    """Between chain and ledger, that stand (docs/money.md)."""


@dataclass(frozen=True)
class NetworkView:
    at_ms: int
    peer_id: str
    addresses: list[str]
    """Where others dial this node."""
    outside_ips: list[str]
    """As others see it, what most say first."""
    reachable: bool | None
    """Whether others could open connections to it; None while nobody has tried."""
    total: int
    """Connected peers."""
    relayed: int
    """Of them, through a third node."""
    peers: list[PeerView]
    gossip: GossipView
    chain: ChainView
    directories: list[DirectoryUseView] = field(default_factory=list)
    serving: int | None = None
    """If this node is a directory: providers heard from lately."""
    relays: list[RelayUseView] = field(default_factory=list)
    own_relay: OwnRelayView | None = None
    """None: this node relays for nobody."""
