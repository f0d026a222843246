"""Opening hours in the local control API: what a provider's schedule says, and what another one would bring.

Arguments and answer of `preview`, and the view that `provider` and `offer` show as well. The words of a
schedule are protocol/schedule.py's. Money is whole QU an hour and GPU, minutes are those of the week from
Monday 00:00.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

ScheduleText = Annotated[str, Meta(max_length=1_000)]


@dataclass(frozen=True)
class SpanView:
    begin: int
    end: int
    open: bool
    price_qu_per_hour: int


@dataclass(frozen=True)
class ScheduleView:
    text: str
    """As it can be written again; it names its zone."""
    zone: str
    open: bool
    """By the schedule; whether jobs come is ShopView's."""
    price_qu_per_hour: int
    """Now."""
    until_ms: int
    """When that changes; 0: not for weeks."""
    until: str
    """The same on the schedule's clock: "Mon 08:00 (Europe/Berlin)"; "" if it does not."""
    then: str
    """What holds then: "closed", "open" (at the usual price) or "price 400000"."""
    closes_at_ms: int
    """Jobs whose rented time would end later are not taken; 0: it does not close for weeks."""
    spans: list[SpanView]
    """Of a usual week, without gaps."""
    usual_price_qu_per_hour: int = 0


@dataclass(frozen=True)
class PreviewArgs:
    """What a week would bring with this price and this schedule ("": none); what is left out stays."""

    price_qu_per_hour: Annotated[int, Meta(ge=0)] | None = None
    schedule: ScheduleText | None = None


@dataclass(frozen=True)
class PreviewView:
    """Nothing is changed. What another price does to the demand nobody knows: the use is that of the weeks
    before."""

    usual_price_qu_per_hour: int
    schedule: ScheduleView | None
    week_qu: int
    """Net of the fee, without disk."""
    week_now_qu: int
    """The same with the price and schedule that are in force."""
    used_hours: float
    """Of cards (or of the machine without) a week, all jobs together."""
    lost_hours: float
    """Of those, in hours that would be closed."""
    open_hours: float
    """A week."""
    weeks: float
    """So many weeks were looked at: 4 at most, 0 for a machine that has run no job."""
