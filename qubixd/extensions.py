"""More time for a running lease: what a provider signs for, what a caller checks first, and the desk's part.

The numbers are pure: both sides work them out from the same terms. Asking moves nothing and is kept by
nobody; protocol/lease_extension.py is what comes of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from protocol import lease_model as m
from protocol import signing
from protocol.errors import (
    CapacityTaken,
    ConfigInvalid,
    PriceAboveLimit,
    QuoteChanged,
    QuoteExpired,
    Refused,
    ShopCloses,
    SignatureInvalid,
)
from protocol.lease_job import longest
from protocol.lease_state import LIVE, Lease, Role, locked
from protocol.messages import MAX_EXTENSION_BYTES, Ack, Extend, Extended, Extension
from protocol.relay_lease import is_relay
from protocol.signing import Signed
from protocol.units import MAX_QU, LeaseId, Qu, Seconds, Tick, UnixMs, amount_due
from qubixd.quotes import MAX_TICK_DISAGREEMENT, SETTLE_SECONDS, TICK_MARGIN, VALID_MS, House

if TYPE_CHECKING:
    from qubixd.desk import Desk

HONOURED_MS: Final = 3_600_000
"""How long after the time to pay for it the news of the payment is yet waited for."""
CLOCKS_APART_SECONDS: Final = 120
"""By how much the two sides may differ about what is left, and about the tick."""


def make_extension(house: House, lease: Lease, wanted: Extend, now: UnixMs) -> Extension:
    """What it takes for a lease here to last so long in all. A Refused whose sentence travels to the caller.

    Refuses what a quote would, but for the capacity, which the lease has.
    """
    if lease.phase not in LIVE:
        raise Refused("time can be added only while the job runs")
    if not house.open_for_business:
        raise CapacityTaken("this provider adds no time at the moment; the job runs as long as was agreed")
    if wanted.max_seconds <= longest(lease.terms):
        raise ConfigInvalid(f"the job may run for {longest(lease.terms)} s as it is")
    left = Seconds(wanted.max_seconds - lease.seconds)
    _check_closing(house, lease, left, now)
    due = amount_due(lease.terms.price_qu_per_hour, wanted.max_seconds)
    if due > MAX_QU:
        raise PriceAboveLimit(f"the deposit would be {due} QU; at most {MAX_QU} QU can be locked")
    deadline = house.tick + lease.terms.challenge_ticks + _span(left, house.tick_duration_ms)
    return Extension(
        lease_id=lease.lease_id,
        number=wanted.number,
        max_seconds=wanted.max_seconds,
        deposit=Qu(max(due, locked(lease) + 1)),  # a top-up brings something, and so it can be told from none
        deadline_ticks=max(lease.deadline_tick, deadline) - lease.open_tick,
        valid_until=UnixMs(now + VALID_MS),
    )


def _check_closing(house: House, lease: Lease, left: Seconds, now: UnixMs) -> None:
    """The schedule never ends what runs, so that nothing is added that would run into its end."""
    open_s = (house.closes_at - now) // 1_000
    if house.closes_at and left > open_s:
        most = max(0, open_s - (longest(lease.terms) - lease.seconds)) // 60
        raise ShopCloses(
            f"this provider closes in {open_s // 3_600} h {open_s % 3_600 // 60} min; at most {most} min can "
            "be added"
        )


def _span(left: int, tick_duration_ms: int) -> int:
    """Ticks for what is left of a lease, with the time to settle it."""
    per_second = 1_000 / max(100, tick_duration_ms)
    return math.ceil((max(0, left) + SETTLE_SECONDS) * per_second * TICK_MARGIN)


def check_extension(more: Extension, wanted: Extend, lease: Lease, tick: Tick, tick_duration_ms: int) -> None:
    """The caller's side: QuoteChanged unless an extension is what was asked, at the price of the terms."""
    due = amount_due(lease.terms.price_qu_per_hour, wanted.max_seconds)
    asked = (wanted.lease_id, wanted.number, wanted.max_seconds)
    if (more.lease_id, more.number, more.max_seconds) != asked:
        raise QuoteChanged("the provider answered for another time than was asked for")
    if not due <= more.deposit <= max(due, locked(lease) + 1):
        raise QuoteChanged(f"the time costs {due:,} QU in all, the provider wants {more.deposit:,} locked")
    if more.deposit <= locked(lease):
        raise QuoteChanged("the provider has not seen the last top-up yet; ask again in a moment")
    if not _is_usual(more, lease, tick, tick_duration_ms):
        raise QuoteChanged("the extension's deadline makes no sense")


def _is_usual(more: Extension, lease: Lease, tick: Tick, tick_duration_ms: int) -> bool:
    """Too late a deadline would keep the money locked, too early a one would end the job before its time."""
    left = more.max_seconds - lease.seconds
    slow, fast = tick_duration_ms * MAX_TICK_DISAGREEMENT, tick_duration_ms // MAX_TICK_DISAGREEMENT
    lasts = lease.open_tick + more.deadline_ticks - lease.terms.challenge_ticks - tick
    latest = max(
        _span(left + CLOCKS_APART_SECONDS, fast), lease.deadline_tick - lease.terms.challenge_ticks - tick
    )
    return _span(left - CLOCKS_APART_SECONDS, slow) <= lasts <= latest


# --- the desk -------------------------------------------------------------------------------------


async def extend(desk: Desk, signed: Signed) -> object:
    """How much more a caller has to lock for more time."""
    wanted: Extend = signed.message
    lease = await desk.leases.shared(LeaseId(wanted.lease_id), signed.signer, Role.PROVIDER)
    house = desk.relay_house() if is_relay(lease.terms) else desk.house()
    return make_extension(house, lease, wanted, desk.now_ms())


async def extended(desk: Desk, signed: Signed) -> object:
    """A caller has paid for what this node signed; the watch over the escrow sees the money."""
    told: Extended = signed.message
    lease = await desk.leases.shared(LeaseId(told.lease_id), signed.signer, Role.PROVIDER)
    own = signing.verify(told.signed_extension, MAX_EXTENSION_BYTES)
    more, now = own.message, desk.now_ms()
    if own.signer != desk.key.public or not isinstance(more, Extension) or more.lease_id != lease.lease_id:
        raise SignatureInvalid("this extension was not signed by this provider for this lease")
    if now > more.valid_until + HONOURED_MS:
        raise QuoteExpired("the extension was to be paid for long ago")
    await desk.leases.feed(lease.lease_id, m.ReceiveExtended(more, now))
    return Ack()
