"""More time for a running job, in the local control API: verb `extend`.

Frames and all else are in protocol/control.py. Money is whole QU, instants are Unix milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from protocol.control_leases import LeaseView


@dataclass(frozen=True)
class ExtendArgs:
    """Add time to a job that this node has rented and that runs; the answer comes when the money for it is
    locked. Asked again with the same `order` it is added once. Events are WaitingEvent, where it takes
    unusually long."""

    lease: str
    """A lease id or an unambiguous prefix of one."""
    seconds: Annotated[int, Meta(ge=1, le=366 * 86_400)]
    order: Annotated[str, Meta(min_length=1, max_length=64)]
    """Any text, new for every time that is to be added."""
    max_cost_qu: Annotated[int, Meta(ge=0)] | None = None
    """Add nothing if the time would cost more."""
    check: bool = False
    """Only ask the provider what it takes: nothing is paid or written down."""


@dataclass(frozen=True)
class ExtendView:
    """An extension, asked for (`checked`) or in force (`extended`)."""

    state: Literal["checked", "extended"]
    lease: LeaseView
    """As it is now."""
    seconds: int
    """That are added; 0 if an earlier request has added them."""
    cost_qu: int
    """Of the time that is added, if it is all used."""
    max_seconds: int
    """The rented time with it."""
    ends_at_ms: int
    """When that is over, if nothing pauses for want of vouchers until then."""
    deposit: int
    """What is locked with it."""
    locks_qu: int
    """Of that, what the wallet has to add."""
    balance: int
    max_loss_qu: int
    """As in LeaseView, with the new time."""
    closes_at_ms: int = 0
    """When the provider's schedule closes, as it said in the terms; 0: it does not."""
