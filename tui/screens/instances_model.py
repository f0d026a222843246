"""How a lease is shown: a word, a colour, how far it has come, what it has cost and what is left. Pure.

Money is whole QU, time seconds. A colour never stands alone: its word is always beside it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from protocol.control import LeaseView
from protocol.errors import UsageError
from protocol.relay_lease import RELAY_IMAGE
from protocol.units import Qu, Seconds, amount_due, fee_of, seconds_covered
from tui import show
from tui.safe import safe_line

Tone = Literal["running", "completed", "failed", "busy", "waiting", "cancelled"]
TONES: Final[dict[Tone, str]] = {
    "running": "success",
    "completed": "primary",
    "failed": "error",
    "busy": "accent",
    "waiting": "warning",
    "cancelled": "foreground",
}
"""The theme's variable for each: running green, completed blue, failed red."""
ENDED: Final = frozenset({"done", "failed", "cancelled"})
LIVE: Final = frozenset({"running", "paused"})
BEGINNING: Final = frozenset({"quoted", "funding", "provisioning"})
EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
MAX_SECONDS: Final = 366 * UNITS["d"]


@dataclass(frozen=True)
class Status:
    """`mark` is one character that is different for each tone, `word` one or two words."""

    word: str
    mark: str
    tone: Tone
    sentence: str
    """What happens now, or why it ended as it did."""


STATUSES: Final[dict[str, tuple[str, str, Tone]]] = {
    "quoted": ("agreeing", "…", "busy"),
    "funding": ("paying in", "…", "busy"),
    "provisioning": ("preparing", "…", "busy"),
    "running": ("running", "▶", "running"),
    "paused": ("waiting", "!", "waiting"),
    "stopping": ("ending", "…", "busy"),
    "settling": ("settling", "…", "busy"),
    "done": ("completed", "✓", "completed"),
    "failed": ("failed", "✗", "failed"),
    "cancelled": ("cancelled", "-", "cancelled"),
}


def status_of(lease: LeaseView) -> Status:
    """Of any lease, a phase that a newer daemon may know included."""
    word, mark, tone = STATUSES.get(lease.phase, (safe_line(lease.phase, 12), "?", "waiting"))
    if lease.frozen and lease.phase in LIVE:
        word, mark, tone = "paused", "‖", "waiting"
    sentence = lease.sentence if lease.phase in ENDED else lease.detail
    if lease.differences:
        word, mark = f"{word}, differs", "!"
        sentence = f"{sentence}; the chain says otherwise: {', '.join(lease.differences)}"
    return Status(word, mark, tone, safe_line(sentence, 500))


def is_relay(lease: LeaseView) -> bool:
    """A rented relay: there is no job to look into."""
    return lease.image == RELAY_IMAGE


def what_of(lease: LeaseView) -> str:
    """The rented machine in a few words: "1 x RTX4090", "CPU", "relay"."""
    return "relay" if is_relay(lease) else safe_line(lease.gpu, 40)


def spent(lease: LeaseView) -> int:
    """What it has cost so far: what is signed for, and when it is settled what was paid."""
    return lease.paid if lease.settled else lease.promised


def money_left(lease: LeaseView) -> int:
    """Of the deposit, what is not signed away yet; when it has ended, what came back."""
    return lease.refunded if lease.settled else max(0, lease.deposit - lease.promised)


def seconds_left(lease: LeaseView) -> int:
    """Of the rented time."""
    return 0 if lease.phase in ENDED else max(0, lease.max_seconds - lease.seconds)


def share_used(lease: LeaseView) -> float:
    """Of the rented time, 0..1."""
    return min(1.0, lease.seconds / lease.max_seconds) if lease.max_seconds else 0.0


def bar(share: float, width: int) -> str:
    """A bar of so many characters, in eighths of one."""
    eighths = round(min(1.0, max(0.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (EIGHTHS[rest] if rest else "")).ljust(width, "░")[:width]


def started(lease: LeaseView, now_ms: int) -> str:
    """When it began: "14:03" today, else "11-22 14:03"; of one that never ran, when it was opened."""
    return moment(lease.started_at_ms or lease.opened_at_ms, now_ms)


def moment(at_ms: int, now_ms: int) -> str:
    then, now = time.localtime(at_ms / 1_000), time.localtime(now_ms / 1_000)
    return time.strftime("%H:%M" if then[:3] == now[:3] else "%m-%d %H:%M", then)


# --- all of them ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Statistics:
    """Of the leases that this node has rented."""

    active: int
    spent_qu: int
    seconds: int
    qu_per_hour: int
    """What runs now costs."""

    def words(self) -> str:
        """One line."""
        now = f" ({show.qu(self.qu_per_hour)} QU/h)" if self.qu_per_hour else ""
        hours = self.seconds / UNITS["h"]
        return f"{self.active} active{now} · {show.qu(self.spent_qu)} QU spent · {hours:,.1f} hours used"


def statistics(leases: Iterable[LeaseView]) -> Statistics:
    ours = [one for one in leases if one.role == "caller"]
    return Statistics(
        active=sum(one.phase not in ENDED for one in ours),
        spent_qu=sum(spent(one) for one in ours),
        seconds=sum(one.seconds for one in ours),
        qu_per_hour=sum(one.price_qu_per_hour for one in ours if one.phase in LIVE),
    )


def ordered(leases: Iterable[LeaseView]) -> list[LeaseView]:
    """Ours: what goes on first, and in each part the newest first."""
    ours = [one for one in leases if one.role == "caller"]
    return sorted(ours, key=lambda one: (one.phase in ENDED, -one.opened_at_ms, one.lease_id))


# --- the billing calculator -------------------------------------------------------------------


@dataclass(frozen=True)
class Bill:
    """What a lease will have cost if it is ended so many seconds from now."""

    seconds: int
    """Metered in all by then."""
    cost: int
    fee: int
    """Contained in the cost."""
    comes_back: int
    capped: bool
    """The rented time ends before: more cannot be used, or paid."""


def bill_after(lease: LeaseView, more_seconds: int) -> Bill:
    """By the arithmetic of protocol/units.py, which both sides and the contract follow."""
    wanted = lease.seconds + max(0, more_seconds)
    seconds = min(wanted, max(lease.max_seconds, lease.seconds))
    due = amount_due(Qu(lease.price_qu_per_hour), Seconds(seconds))
    cost = Qu(min(max(due, lease.promised), lease.deposit))
    return Bill(seconds, cost, fee_of(cost), lease.deposit - cost, wanted > seconds)


def cost_of(lease: LeaseView, seconds: int) -> int:
    """Of so much time at a lease's price."""
    return amount_due(Qu(lease.price_qu_per_hour), Seconds(seconds))


def time_for(price_qu_per_hour: int, amount: int) -> int:
    """How many seconds so much money buys."""
    return min(MAX_SECONDS, seconds_covered(Qu(price_qu_per_hour), Qu(amount)))


def parse_span(text: str) -> int:
    """Seconds of "90m", "1h30m", "2.5h", "2 h" or, without a unit, hours. UsageError."""
    compact = text.replace(" ", "").lower()
    parts = re.findall(r"(\d{1,6}(?:\.\d{1,3})?)([smhd])", compact)
    if compact and "".join(number + unit for number, unit in parts) == compact:
        seconds = round(sum(float(number) * UNITS[unit] for number, unit in parts))
    elif re.fullmatch(r"\d{1,6}(\.\d{1,3})?", compact):
        seconds = round(float(compact) * UNITS["h"])
    else:
        raise UsageError(f"{safe_line(text, 20)!r} is no time; write 90m, 2h or 1h30m")
    if not 0 < seconds <= MAX_SECONDS:
        raise UsageError("a time is more than nothing and at most 366 days")
    return seconds


def parse_qu(text: str) -> int:
    """Whole QU of "12000", "12,000", "12_000", "12 000". UsageError."""
    digits = re.sub(r"[ ,_]", "", text.strip().upper().removesuffix("QU"))
    if not re.fullmatch(r"[0-9]{1,15}", digits):
        raise UsageError(f"{safe_line(text, 20)!r} is no amount; write whole QU, such as 12,000")
    return int(digits)
