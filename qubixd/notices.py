"""What a person wants to hear of wherever he looks just now: found by comparing a lease with what it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from protocol.control_watch import NoticeView
from protocol.lease_caller import quiet_ms
from protocol.lease_job import longest
from protocol.lease_state import BEFORE_RUNNING, FUNDED, LIVE, TERMINAL, Lease, Phase, Role
from protocol.units import UnixMs, net_of

Severity = Literal["good", "info", "warning", "bad"]

BUDGET_PERMILLE: Final = 800
QUIET_INTERVALS: Final = 2
QUIET_SLACK_MS: Final = 10_000
"""A provider is heard of at every interval; after so many of them, and this, it is called lost."""
ENDS: Final[dict[Phase, tuple[Severity, str]]] = {
    Phase.DONE: ("good", "has completed"),
    Phase.FAILED: ("bad", "has failed"),
    Phase.CANCELLED: ("info", "was cancelled"),
}


def notices_of(before: Lease | None, after: Lease, now: UnixMs) -> list[NoticeView]:
    """What is to be told of a lease's change; `before` is None for one that is new."""
    found = _caller(before, after) if after.role is Role.CALLER else _provider(before, after)
    return [
        NoticeView(code, severity, f"{after.name or 'a job'} {words}", after.lease_id.hex(), now)
        for code, severity, words in (*found, *_extended(before, after), *_ended(before, after))
    ]


def is_quiet(lease: Lease, now: UnixMs) -> bool:
    """Its provider should have been heard of since, and was not."""
    patience_ms = QUIET_INTERVALS * lease.terms.interval_seconds * 1_000 + QUIET_SLACK_MS
    return lease.role is Role.CALLER and lease.phase in LIVE and quiet_ms(lease, now) > patience_ms


def quiet_notice(lease: Lease, now: UnixMs, *, lost: bool) -> NoticeView:
    """That its provider has fallen silent, or is heard of again."""
    name, lease_id = lease.name or "a job", lease.lease_id.hex()
    if not lost:
        return NoticeView("lease.peer_back", "good", f"{name}: its provider answers again", lease_id, now)
    seconds = quiet_ms(lease, now) // 1_000
    words = f"{name}: its provider was not heard of for {seconds} s; nothing is paid meanwhile"
    return NoticeView("lease.peer_lost", "bad", words, lease_id, now)


def _caller(before: Lease | None, after: Lease) -> Iterator[tuple[str, Severity, str]]:
    if before and before.phase in BEFORE_RUNNING and after.phase in LIVE:
        yield "lease.ready", "good", "is ready: the machine is yours and the job runs"
    if before and after.phase in LIVE and _used(before) < BUDGET_PERMILLE <= _used(after):
        minutes = (longest(after.terms) - after.seconds) // 60
        yield "lease.budget", "warning", f"has used 80 % of its rented time ({minutes} min left)"


def _provider(before: Lease | None, after: Lease) -> Iterator[tuple[str, Severity, str]]:
    if after.phase in FUNDED and (before is None or before.phase not in FUNDED):
        yield "lease.taken", "good", "has come: a caller has rented this machine"
    if after.settled and not (before and before.settled) and after.paid:
        yield "wallet.payout", "good", f"was settled: {net_of(after.paid):,} QU were paid out to you"
    if before and (before.phase, after.phase) == (Phase.RUNNING, Phase.PAUSED):
        yield "lease.peer_lost", "warning", "waits: its caller does not pay at present"
    if before and (before.phase, after.phase) == (Phase.PAUSED, Phase.RUNNING):
        yield "lease.peer_back", "good", "goes on: its caller pays again"


def _extended(before: Lease | None, after: Lease) -> Iterator[tuple[str, Severity, str]]:
    if before and after.terms.max_seconds != before.terms.max_seconds:
        minutes = (longest(after.terms) - longest(before.terms)) // 60
        yield "lease.extended", "good", f"has been given {minutes} min more"


def _ended(before: Lease | None, after: Lease) -> Iterator[tuple[str, Severity, str]]:
    if after.phase in TERMINAL and (before is None or before.phase not in TERMINAL):
        severity, words = ENDS[after.phase]
        why = f": {after.sentence}" if after.sentence and after.phase is not Phase.DONE else ""
        yield "lease.ended", severity, f"{words}{why}"


def _used(lease: Lease) -> int:
    """Permille of the rented time."""
    return lease.seconds * 1_000 // max(1, longest(lease.terms))
