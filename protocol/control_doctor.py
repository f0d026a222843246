"""The doctor's part of the local control API: what works from this machine, what does not, what to change.

Arguments and answer of `doctor`; frames and all else are in protocol/control.py. Addresses are IP:PORT or
[IP]:PORT, relays and directories peer ids, times milliseconds since 1970.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

from protocol.control_provider import HindranceView


class Level(enum.StrEnum):
    GOOD = "good"
    NOTE = "note"
    """Works, with limits that a person may want to lift."""
    BAD = "bad"
    """Something that this node is for does not work."""


@dataclass(frozen=True)
class DoctorArgs:
    patience_seconds: Annotated[float, Meta(ge=0.1, le=60)] = 6.0
    """So long others have for their answers."""


@dataclass(frozen=True)
class Facts:
    """What was found. Everything that the doctor says follows from it."""

    provider: bool
    relay: bool
    """It carries others' connections."""
    listening: list[str]
    announced: list[str]
    """Addresses that a person has told it to name."""
    own_ips: list[str]
    """Of this machine's networks, without loopback."""
    outside_ips: list[str]
    """From where others see it come, what most say first."""
    reachable: bool | None
    """Whether others could open a connection to it; None if nobody has tried."""
    reached_at: list[str]
    nat: str
    """"none", "cone" (one outer port for all), "symmetric" (another one for each), "" if not known."""
    only_ports: list[int]
    """The only ports that it reaches outside; empty if no firewall keeps it from others."""
    low_ports: bool
    """It may listen on ports below 1024."""
    ipv6: bool
    """This machine has an address and a route for it."""
    peers: int
    relayed_peers: int
    relays: list[str]
    """That bring others to it."""
    directories: list[str]
    offers: int
    chain: str
    chain_error: str
    """Why it does not answer; "" if it does."""
    waiting: str
    """Why what was sent to the chain has to wait; "" if nothing does unusually long."""
    tick: int
    balance: int | None
    runner: str
    hindrances: list[HindranceView]
    """Why it takes no jobs, or not all; of a provider only."""
    clock_ahead_seconds: float | None
    """Of what others say, in the middle; None if nobody said anything."""


@dataclass(frozen=True)
class FindingView:
    code: str
    level: Level
    sentence: str
    change: str = ""
    """What would help; "" if nothing needs to."""


@dataclass(frozen=True)
class OutlookView:
    """The best way from here to one sort of place."""

    whom: str
    path: str
    """One of protocol.paths.PathKind, or "" for none."""
    sentence: str


@dataclass(frozen=True)
class DoctorView:
    at_ms: int
    peer_id: str
    facts: Facts
    findings: list[FindingView] = field(default_factory=list)
    """The worst first."""
    outlook: list[OutlookView] = field(default_factory=list)
