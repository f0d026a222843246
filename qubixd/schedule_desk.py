"""The control API's verb `preview`: what a price and a schedule bring in a week, and how one is shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Final

from protocol import schedule
from protocol.control_schedule import PreviewArgs, PreviewView, ScheduleView, SpanView
from protocol.errors import ConfigInvalid
from protocol.lease_state import Lease, Role
from protocol.relay_lease import is_relay
from protocol.schedule import WEEK_MINUTES, Schedule, Span
from protocol.units import MAX_QU, Qu, UnixMs, net_of
from qubixd.node import Node
from qubixd.shop import clock_words, hours_of, read_schedule, zone_here, zone_of

Emit = Callable[[object], Awaitable[None]]
HOUR_MS: Final = 3_600_000
WEEK_MS: Final = 168 * HOUR_MS
WEEKS: Final = 4
"""Looked back."""
ALWAYS: Final = (Span(0, WEEK_MINUTES, schedule.USUAL),)


@dataclass(frozen=True)
class Use:
    """Card-hours in each hour of a usual week, Monday 00:00 first, on the average of so many weeks."""

    hours: Sequence[float]
    weeks: float


async def preview(node: Node, args: PreviewArgs, emit: Emit) -> PreviewView:
    if not node.config.provider:
        raise ConfigInvalid("this daemon offers nothing; start it with `qubix up --provider`")
    shop, now = node.shop, node.parts.now_ms()
    price = shop.price_qu_per_hour if args.price_qu_per_hour is None else Qu(args.price_qu_per_hour)
    if price > MAX_QU:
        raise ConfigInvalid(f"a price is at most {MAX_QU} QU per hour")
    plan = shop.schedule if args.schedule is None else read_schedule(args.schedule)
    zone = zone_of(plan.zone if plan else zone_here())
    use = use_of(await node.all_leases(), zone, now)
    return PreviewView(
        usual_price_qu_per_hour=price,
        schedule=view(plan, price, now),
        week_qu=worth(use, plan, price),
        week_now_qu=worth(use, shop.schedule, shop.price_qu_per_hour),
        used_hours=round(sum(use.hours), 2),
        lost_hours=round(sum(use.hours) - _open_use(use, plan), 2),
        open_hours=sum(one.end - one.begin for one in spans_of(plan) if one.state.open) / 60,
        weeks=round(use.weeks, 2),
    )


def view(plan: Schedule | None, usual: Qu, now: UnixMs) -> ScheduleView | None:
    """How a schedule is shown; None for none."""
    if plan is None:
        return None
    hours = hours_of(plan, usual, now)
    return ScheduleView(
        text=str(plan),
        zone=plan.zone,
        open=hours.open,
        price_qu_per_hour=hours.price,
        until_ms=hours.until if hours.changes else 0,
        until=clock_words(hours.until, plan.zone) if hours.changes else "",
        then=str(schedule.at(plan, zone_of(plan.zone), hours.until)) if hours.changes else "",
        closes_at_ms=hours.closes_at,
        spans=[SpanView(one.begin, one.end, one.state.open, _price(one, usual)) for one in spans_of(plan)],
        usual_price_qu_per_hour=usual,
    )


def spans_of(plan: Schedule | None) -> Sequence[Span]:
    return ALWAYS if plan is None else schedule.week(plan)


def _price(span: Span, usual: Qu) -> Qu:
    return usual if span.state.price is None else span.state.price


# --- use and what it is worth -------------------------------------------------------------------


def use_of(leases: Iterable[Lease], zone: tzinfo, now: UnixMs) -> Use:
    """Of the last weeks, or since the first job of a machine that is not so old; a week at least. A job
    counts for as long as it was metered, up to its end."""
    mine = [one for one in leases if one.role is Role.PROVIDER and one.seconds and not is_relay(one.terms)]
    hours = [0.0] * 168
    if not mine:
        return Use(hours, 0.0)
    since = max(min(one.opened_at for one in mine), now - WEEKS * WEEK_MS)
    weeks = min(WEEKS, max(1.0, (now - since) / WEEK_MS))
    for lease in mine:
        end = lease.ended_at or now
        cards = max(1, lease.terms.wish.gpu_count)
        for at, share in _slices(max(since, end - lease.seconds * 1_000), end):
            local = datetime.fromtimestamp(at / 1_000, zone)
            hours[local.weekday() * 24 + local.hour] += share * cards / weeks
    return Use(hours, weeks)


def _slices(begin: int, end: int) -> Iterable[tuple[float, float]]:
    """The middle of each clock hour that a job was in, and how much of an hour it was there."""
    while begin < end:
        stop = min(end, begin - begin % HOUR_MS + HOUR_MS)
        yield (begin + stop) / 2, (stop - begin) / HOUR_MS
        begin = stop


def worth(use: Use, plan: Schedule | None, usual: Qu) -> Qu:
    """What a week of this use brings, net of the fee."""
    return net_of(Qu(round(sum(amount * _price(one, usual) for one, amount in _shared(use, plan)))))


def _open_use(use: Use, plan: Schedule | None) -> float:
    return sum(amount for _, amount in _shared(use, plan))


def _shared(use: Use, plan: Schedule | None) -> Iterable[tuple[Span, float]]:
    """Card-hours in each open span."""
    for span in spans_of(plan):
        if not span.state.open:
            continue
        for hour in range(span.begin // 60, -(-span.end // 60)):
            minutes = min(span.end, 60 * hour + 60) - max(span.begin, 60 * hour)
            yield span, use.hours[hour] * minutes / 60
