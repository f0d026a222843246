"""What a provider decides while its node runs, and what the ledger remembers: price, hours and pause."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import trio

import ledger.settings
from ledger.store import Store
from protocol import schedule
from protocol.errors import ConfigInvalid, QubixError
from protocol.schedule import Schedule
from protocol.units import Qu, UnixMs
from qubixd.config import Config

PRICE: Final = "provider price"
"""The price a person set, and behind a blank the configured one that it replaced ("-" for none)."""
PAUSED: Final = "provider paused"
SCHEDULE: Final = "provider schedule"
"""Its canonical text, which names the zone; empty for none."""
RISE_MS: Final = 60_000
"""So long after the schedule has raised the price, quotes are still at the one before: who asks has the offer
as it was, and whoever quotes more than it offered counts as a cheat."""
LOOK_AGAIN_MS: Final = 86_400_000
"""Where nothing changes for weeks."""
_LOCALTIME: Final = Path("/etc/localtime")
_ALWAYS: Final = UnixMs(2**62)


@dataclass(frozen=True)
class Hours:
    """What the schedule says, at least from one moment up to another."""

    since: UnixMs
    until: UnixMs
    """When something else holds."""
    open: bool
    price: Qu
    closes_at: UnixMs
    """When it closes next; 0: never, as far as can be seen."""
    changes: bool = True
    """At `until`; else that is only when to look again."""


@dataclass
class Shop:
    """Mutable, because a person may change it while the node runs."""

    price_qu_per_hour: Qu
    """The usual one, where the schedule names no other."""
    open_for_business: bool
    """A person wants jobs to come; whether they can is another matter."""
    schedule: Schedule | None = None
    renewed: trio.Event = field(default_factory=trio.Event, repr=False)
    """Set, and replaced, when price or schedule have been changed."""
    _hours: Hours | None = field(default=None, repr=False)
    _before: Hours | None = field(default=None, repr=False)
    """What held a while before those."""
    _of: tuple[Schedule | None, Qu] | None = field(default=None, repr=False)
    """Both follow from this schedule and this usual price."""

    def hours(self, now: UnixMs) -> Hours:
        """What holds now; looked up anew when it has changed."""
        known, of = self._hours, (self.schedule, self.price_qu_per_hour)
        if known is None or of != self._of or not known.since <= now < known.until:
            before = UnixMs(now - RISE_MS)
            self._before = hours_of(self.schedule, self.price_qu_per_hour, before)
            known = self._hours = hours_of(self.schedule, self.price_qu_per_hour, now)
            self._of = of
        return known

    def quoted_price(self, now: UnixMs) -> Qu:
        """What is asked of somebody who may not know yet what holds since just now."""
        here, before = self.hours(now), self._before
        if before is None or not before.open or now - here.since >= RISE_MS:
            return here.price
        return min(before.price, here.price)

    def changed(self) -> None:
        """To be called when price or schedule have been."""
        self.renewed.set()
        self.renewed = trio.Event()


def hours_of(plan: Schedule | None, usual: Qu, now: UnixMs) -> Hours:
    if plan is None:
        return Hours(UnixMs(0), _ALWAYS, True, usual, UnixMs(0), changes=False)
    zone = zone_of(plan.zone)
    state = schedule.at(plan, zone, now)
    until = schedule.next_change(plan, zone, now)
    price = usual if state.price is None else state.price
    closes = schedule.closes_at(plan, zone, now)
    # A minute's beginning, so that a rise within this minute is seen as one.
    since = UnixMs(now - now % 60_000)
    again = UnixMs(now + LOOK_AGAIN_MS)
    return Hours(since, until or again, state.open, price, closes or UnixMs(0), until is not None)


# --- what the ledger remembers ------------------------------------------------------------------


async def reopen(store: Store, config: Config, suggested: Qu) -> Shop:
    """The shop as it was left. A price that a person set while the node ran holds until the settings name
    another one than they did then."""
    configured = suggested if config.price is None else Qu(config.price)
    kept = await ledger.settings.get(store, PRICE)
    price, _, replaced = (kept or b"").decode().partition(" ")
    paused = bool(await ledger.settings.get(store, PAUSED))
    plan = (await ledger.settings.get(store, SCHEDULE) or b"").decode()
    still = price and replaced == _setting(config)
    return Shop(
        Qu(int(price)) if still else configured,
        config.provider and not paused,
        read_schedule(plan),
    )


async def set_price(store: Store, config: Config, shop: Shop, price: Qu) -> None:
    await ledger.settings.put(store, PRICE, f"{price} {_setting(config)}".encode())
    shop.price_qu_per_hour = price
    shop.changed()


async def set_open(store: Store, shop: Shop, open_for_business: bool) -> None:
    await ledger.settings.put(store, PAUSED, b"" if open_for_business else b"yes")
    shop.open_for_business = open_for_business


async def set_schedule(store: Store, shop: Shop, text: str) -> None:
    """Follow this one from now on; an empty text: none. ScheduleInvalid, ConfigInvalid."""
    plan = read_schedule(text)
    await ledger.settings.put(store, SCHEDULE, str(plan or "").encode())
    shop.schedule = plan
    shop.changed()


def _setting(config: Config) -> str:
    return "-" if config.price is None else str(config.price)


# --- zones --------------------------------------------------------------------------------------


def read_schedule(text: str) -> Schedule | None:
    """With the zone of this machine if it names none; None for an empty text. ScheduleInvalid; ConfigInvalid
    for a zone that nobody here knows."""
    if not text.strip():
        return None
    plan = schedule.parse(text)
    if not plan.zone:
        plan = replace(plan, zone=zone_here())
    zone_of(plan.zone)
    return plan


def zone_of(name: str) -> tzinfo:
    """ConfigInvalid if this machine knows no such zone."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigInvalid(
            f"this machine knows no time zone {name!r}; write one such as `zone Europe/Berlin` or `zone UTC` "
            "(the system's package tzdata brings them)"
        ) from error


def zone_here() -> str:
    """The IANA name of this machine's zone; UTC where it has none."""
    said = os.environ.get("TZ", "").removeprefix(":")
    linked = str(_LOCALTIME.resolve()).partition("/zoneinfo/")[2] if _LOCALTIME.is_symlink() else ""
    for name in (said, linked):
        try:
            zone_of(name)
        except QubixError:
            continue
        return name
    return "UTC"


def clock_words(at_ms: UnixMs, zone: str) -> str:
    """A moment on the schedule's clock: "Mon 08:00 (Europe/Berlin)"."""
    local = datetime.fromtimestamp(at_ms // 1_000, zone_of(zone))
    return f"{schedule.DAYS[local.weekday()].capitalize()} {local:%H:%M} ({zone})"
