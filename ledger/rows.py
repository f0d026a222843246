"""The rows that the ledger gives out and the queries shared by the daemon (trio, `journal` and
`offers`) and by readers in asyncio processes (`reader`). Needs neither of the two loops.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

LEASE_COLUMNS: Final = "lease_id, role, phase, state, steps, created_ms, updated_ms"
OFFER_COLUMNS: Final = "peer, sequence, expires_ms, record"


@dataclass(frozen=True)
class PendingEffect:
    lease_id: bytes
    seq: int
    """Rises within a lease and is never used twice, from 0."""
    lane: str
    kind: str
    payload: bytes
    scratch: bytes
    """What `save_scratch` kept for it, b"" at first."""


@dataclass(frozen=True)
class LeaseRow:
    lease_id: bytes
    role: str
    phase: str
    state: bytes
    steps: int
    """Events committed so far."""
    created_ms: int
    updated_ms: int


@dataclass(frozen=True)
class OfferRow:
    peer: bytes
    """The provider's key, 32 bytes."""
    sequence: int
    expires_ms: int
    record: bytes


def leases_query(phases: Collection[str] | None) -> tuple[str, tuple[str, ...]]:
    """SQL and its values for `leases`."""
    values = () if phases is None else tuple(phases)
    where = "" if phases is None else f"WHERE phase IN ({', '.join('?' * len(values))})"
    return f"SELECT {LEASE_COLUMNS} FROM leases {where} ORDER BY created_ms, lease_id", values
