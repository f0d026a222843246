"""What a provider has earned: kept in memory from its ledger, so that looking at it costs nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from protocol.control_provider import DAYS, LAST_ENDED, DayView, EarningsView
from protocol.lease_state import TERMINAL, Lease, Role
from protocol.units import LeaseId, Qu, UnixMs, amount_due, net_of

DAY_MS: Final = 24 * 3_600_000
WEEK_DAYS: Final = 7
MONTH_DAYS: Final = 30


@dataclass(frozen=True)
class _Settled:
    day: int
    """Days since 1970, UTC."""
    qu: Qu
    seconds: int


class Earnings:
    """`note` every lease of this node whenever it has changed, and those of the ledger once."""

    def __init__(self) -> None:
        self._settled: dict[LeaseId, _Settled] = {}
        self._ended: dict[LeaseId, Lease] = {}

    def note(self, lease: Lease, now: UnixMs) -> None:
        if lease.role is not Role.PROVIDER:
            return
        if lease.settled and lease.paid:
            day = (lease.ended_at or now) // DAY_MS
            self._settled[lease.lease_id] = _Settled(day, net_of(lease.paid), lease.seconds)
        if lease.phase in TERMINAL:
            self._ended[lease.lease_id] = lease
            newest = sorted(self._ended.values(), key=lambda one: one.ended_at)[-LAST_ENDED:]
            self._ended = {one.lease_id: one for one in newest}

    def ended(self) -> list[Lease]:
        """The last ones, the newest first."""
        return sorted(self._ended.values(), key=lambda one: -one.ended_at)

    def view(self, active: Iterable[Lease], now: UnixMs) -> EarningsView:
        """`active`: leases whose money is still under way."""
        today = now // DAY_MS
        qu, leases, seconds = Counter[int](), Counter[int](), Counter[int]()
        for one in self._settled.values():
            age = today - one.day
            qu[age] += one.qu
            leases[age] += 1
            seconds[age] += one.seconds
        open_ones = [one for one in active if one.role is Role.PROVIDER and not one.settled]
        return EarningsView(
            today_qu=qu[0],
            week_qu=sum(qu[age] for age in range(WEEK_DAYS)),
            month_qu=sum(qu[age] for age in range(MONTH_DAYS)),
            total_qu=qu.total(),
            leases=leases.total(),
            promised_qu=sum(net_of(one.promised) for one in open_ones),
            owed_qu=sum(owed(one) for one in open_ones),
            days=[DayView(_date(today - age), qu[age], leases[age], seconds[age]) for age in range(DAYS)],
        )


def owed(lease: Lease) -> Qu:
    """What has been metered and is not promised yet, before the fee."""
    return Qu(max(0, amount_due(lease.terms.price_qu_per_hour, lease.seconds) - lease.promised))


def _date(day: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(day * DAY_MS // 1_000))
