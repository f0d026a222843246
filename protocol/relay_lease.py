"""Renting a relay: a lease as any other, whose job is an allowance instead of a container.

While it runs, the relay counts none of its caller's traffic against what it carries for nothing. So the
lease itself says whether the allowance is on: nothing beside it has to be kept or found again.
"""

from __future__ import annotations

from typing import Final

from protocol.lease_state import Lease, Phase, Role
from protocol.messages import Terms, Wish

RELAY: Final = "relay"
"""In the place of a runner's name."""
RELAY_IMAGE: Final = "qubix:relay"
RELAY_WISH: Final = Wish("", 0, 0, cpu_millis=1, memory_mib=1, disk_mib=1)
"""Nothing of the machine's capacity, which is counted apart, but no quote is made for less."""


def is_relay(terms: Terms) -> bool:
    return terms.runner == RELAY


def lets_through(lease: Lease) -> bool:
    """Whether the traffic of this lease's caller is paid for now. Not while its vouchers are wanting, nor
    while the caller itself has frozen it."""
    if lease.role is not Role.PROVIDER or not is_relay(lease.terms):
        return False
    return lease.phase is Phase.RUNNING and not lease.frozen
