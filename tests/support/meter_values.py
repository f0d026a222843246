"""Samples for tests, and a ledger that has a lease to keep them for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from ledger import journal
from ledger.store import Store, inline, open_store
from protocol.messages import GpuUse, Sample
from protocol.units import LeaseId, UnixMs

LEASE: Final = LeaseId(b"l" * 32)
OTHER: Final = LeaseId(b"o" * 32)
START: Final = UnixMs(1_800_000_000_000)
"""The first instant of an hour."""
CARD: Final = GpuUse(b"g" * 32, use_permille=500, memory_mib=1_000, temperature_c=60, power_mw=200_000)


def at(seconds: float) -> UnixMs:
    return UnixMs(START + round(seconds * 1_000))


def sample(seconds: float, **changes: Any) -> Sample:
    """Of an idle job without a GPU, so long after START."""
    usual = Sample(
        at=at(seconds),
        cpu_millis=0,
        memory_mib=10,
        disk_mib=1,
        received_bytes=0,
        sent_bytes=0,
        gpus=(),
    )
    return replace(usual, **changes)


@asynccontextmanager
async def ledger(path: Path | Literal[":memory:"] = ":memory:") -> AsyncIterator[Store]:
    """With two leases that began at once."""
    async with open_store(path, inline) as store:
        for lease_id in (LEASE, OTHER):
            if await journal.lease(store, lease_id) is None:
                await journal.commit(
                    store,
                    lease_id=lease_id,
                    role="provider",
                    phase="running",
                    event=b"e",
                    state=b"s",
                    outbox=(),
                    now_ms=START,
                    expected_steps=0,
                )
        yield store
