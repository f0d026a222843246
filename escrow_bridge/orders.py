"""What the bridge can be told to do with money, as plain data.

`opened`: the tick in which an escrow is known to have opened. A node that is not past it yet knows of no such
escrow, which must not pass for its end.
`held`: the deposit that an escrow is known to hold. It never falls, so a node that shows less is behind, and
what is above it there must not pass for worthless.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.units import EscrowId, LeaseId, Qu, QubicId, Tick


@dataclass(frozen=True)
class OpenOrder:
    provider: QubicId
    terms: LeaseId
    deposit: Qu
    deadline_ticks: int
    """From the opening tick on."""
    challenge_ticks: int
    look_back: bool = False
    """Search the ticks that nodes remember before sending a first deposit: what this node remembers may
    be older than what it did."""


@dataclass(frozen=True)
class TopUpOrder:
    """More deposit and a later deadline for an open channel, by its caller."""

    escrow_id: EscrowId
    opened: Tick
    before: Qu
    """The deposit as the contract holds it now; if it is another by then, the contract takes nothing."""
    deposit: Qu
    """As it is to be: at least 1 QU more."""
    deadline_tick: Tick
    """As it is to be: no earlier than it is."""

    @property
    def added(self) -> Qu:
        return Qu(self.deposit - self.before)


@dataclass(frozen=True)
class RedeemOrder:
    escrow_id: EscrowId
    cumulative: Qu
    signature: bytes
    opened: Tick = Tick(0)
    held: Qu = Qu(0)


@dataclass(frozen=True)
class CloseOrder:
    """`cumulative` 0 with any signature closes without taking anything more."""

    escrow_id: EscrowId
    cumulative: Qu
    signature: bytes
    opened: Tick = Tick(0)
    held: Qu = Qu(0)


@dataclass(frozen=True)
class RequestCloseOrder:
    escrow_id: EscrowId
    opened: Tick = Tick(0)


@dataclass(frozen=True)
class FinalizeOrder:
    escrow_id: EscrowId
    opened: Tick = Tick(0)
