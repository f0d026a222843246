"""Who is not asked again at once: back-off after failures, and the list of denied providers.

A provider that failed by its own fault is left alone for a minute, then two, four, ... up to six hours. One
success ends that, and so does a week without a failure. A denial stays until a person takes it back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from ledger import standing
from ledger.standing import StandingRow
from ledger.store import Store
from protocol.faults import is_fault
from protocol.units import PeerKey, UnixMs

FIRST_WAIT_MS: Final = 60_000
LONGEST_WAIT_MS: Final = 6 * 3_600_000
FORGIVEN_AFTER_MS: Final = 7 * 86_400_000
MAX_WHY_CHARS: Final = 200


@dataclass(frozen=True)
class Standing:
    """How one provider stands with this node."""

    provider: PeerKey
    denied: bool
    failures: int
    """In a row, by its own fault."""
    code: str
    """Of the last failure."""
    until_ms: UnixMs
    """It is not asked before; 0: it may be."""
    why: str
    """In words why it is not asked; "" if it may be."""


class Standings:
    """All of them, in memory as in the ledger."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: dict[PeerKey, StandingRow] = {}

    async def load(self) -> None:
        """Take up what the ledger says; to be awaited before anything else is asked."""
        self._rows = {PeerKey(row.provider): row for row in await standing.all_rows(self._store)}

    def allowed(self, provider: PeerKey, now: UnixMs) -> str | None:
        """None: it may be asked. Else the sentence that says why not."""
        row = self._rows.get(provider)
        return (_why(row, now) or None) if row else None

    def all(self, now: UnixMs) -> list[Standing]:
        """Those who are denied or have failed, by provider."""
        return [self.of(provider, now) for provider in sorted(self._rows)]

    def of(self, provider: PeerKey, now: UnixMs) -> Standing:
        """How one stands, of whom nothing need be known."""
        row = self._row(provider)
        return Standing(provider, row.denied, row.failures, row.code, _until(row), _why(row, now))

    def after_failure(self, provider: PeerKey, code: str, now: UnixMs) -> StandingRow | None:
        """The row that a failure leads to; None if it is not the provider's fault."""
        if not is_fault(code):
            return None
        row = self._row(provider)
        before = row.failures if now - row.failed_ms < FORGIVEN_AFTER_MS else 0
        return replace(row, failures=before + 1, code=code, failed_ms=now)

    def after_success(self, provider: PeerKey) -> StandingRow | None:
        """The row that a success leads to; None if it changes nothing."""
        row = self._row(provider)
        return replace(row, failures=0, code="", failed_ms=0) if row.failures else None

    async def failed(self, provider: PeerKey, code: str, now: UnixMs) -> None:
        """It failed, in a quote or a lease. Codes that are not its fault change nothing. DiskFull."""
        await self._put(self.after_failure(provider, code, now))

    async def succeeded(self, provider: PeerKey) -> None:
        """It did what it had promised: earlier failures are forgiven. DiskFull."""
        await self._put(self.after_success(provider))

    async def deny(self, provider: PeerKey, why: str, now: UnixMs) -> None:
        """Never ask it again, until `forgive`. DiskFull."""
        await self._put(replace(self._row(provider), denied=True, why=why[:MAX_WHY_CHARS]))

    async def forgive(self, provider: PeerKey) -> None:
        """End denial and back-off. DiskFull."""
        await self._put(_fresh(provider))

    async def _put(self, row: StandingRow | None) -> None:
        if row is not None:
            await standing.put(self._store, row)
            self.took(row)

    def took(self, row: StandingRow) -> None:
        """The ledger has this row now."""
        self._rows[PeerKey(row.provider)] = row
        if not row.failures and not row.denied:
            del self._rows[PeerKey(row.provider)]

    def _row(self, provider: PeerKey) -> StandingRow:
        return self._rows.get(provider) or _fresh(provider)


def _fresh(provider: PeerKey) -> StandingRow:
    return StandingRow(provider, failures=0, code="", failed_ms=0, denied=False, why="")


def _until(row: StandingRow) -> UnixMs:
    if not row.failures:
        return UnixMs(0)
    # No shift by a number that a long row of failures could make huge.
    wait_ms = min(LONGEST_WAIT_MS, FIRST_WAIT_MS << min(row.failures - 1, 16))
    return UnixMs(row.failed_ms + wait_ms)


def _why(row: StandingRow, now: UnixMs) -> str:
    if row.denied:
        return f"you have denied it: {row.why}" if row.why else "you have denied it"
    left_ms = _until(row) - now
    # A clock that was put back must not lock a provider out for longer than was meant.
    if not 0 < left_ms <= LONGEST_WAIT_MS:
        return ""
    times = f"{row.failures} times in a row" if row.failures > 1 else "the last time"
    minutes = -(-left_ms // 60_000)
    return f"it failed {times} ({row.code}) and is asked again in {minutes} min"
