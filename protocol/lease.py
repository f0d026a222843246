"""THE lease machine: `step(lease, event) -> (lease, effects)`. Pure; both sides run it.

    quoted -> funding -> provisioning -> running <-> paused -> stopping -> settling -> done
                                                                                     | failed
                                                                                     | cancelled

An event that means nothing in the present phase changes nothing, so every event may come twice.
The state is in `lease_state`, the vocabulary in `lease_model`, the two halves in `lease_caller` and
`lease_provider`.
"""

from __future__ import annotations

from typing import Final

from protocol import lease_caller, lease_provider
from protocol.lease_model import Effect, Event
from protocol.lease_state import Lease, Role
from protocol.messages import Terms
from protocol.units import SECONDS_PER_HOUR, Qu

TABLES: Final = {Role.CALLER: lease_caller.TABLE, Role.PROVIDER: lease_provider.TABLE}

CASHING_SECONDS: Final = 60
"""In which a voucher is cashed as good as certainly, also if several transactions are lost on the way."""


def step(lease: Lease, event: Event) -> tuple[Lease, tuple[Effect, ...]]:
    """What an event makes of a lease, and what is to be done about it."""
    entry = TABLES[lease.role].get(type(event))
    if entry is None or lease.phase not in entry[0]:
        return lease, ()
    return entry[1](lease, event)


def max_loss(role: Role, terms: Terms) -> Qu:
    """The most one side can lose if the other vanishes at the worst moment, in QU."""
    return _at_most(terms, _seconds_at_risk(role, terms))


def max_loss_if_gone(terms: Terms) -> Qu:
    """The most of what its job has earned that a provider loses if its own daemon never comes back, in QU.

    What it earned from one cashing to the next, which may come as late as a voucher does, and while the
    transaction of that one was under way. Nobody pays for what the job does after that death.
    """
    seconds = lease_provider.REDEEM_EVERY_MS // 1_000 + CASHING_SECONDS
    seconds += 3 * _seconds_at_risk(Role.PROVIDER, terms)
    return _at_most(terms, min(seconds, terms.max_seconds))


def max_loss_intervals(role: Role, terms: Terms) -> float:
    """The same in voucher intervals."""
    return _seconds_at_risk(role, terms) / terms.interval_seconds


def max_loss_words(role: Role, terms: Terms) -> str:
    """What each side is shown before it signs."""
    intervals = max_loss_intervals(role, terms)
    return f"at most {max_loss(role, terms):,} QU = {intervals:.3g} intervals of {terms.interval_seconds} s"


def _at_most(terms: Terms, seconds: int) -> Qu:
    """What so many seconds cost at most, wherever in the lease they lie: what is due is rounded down, so its
    rise over them can be up to the next whole QU."""
    cost = -(-terms.price_qu_per_hour * seconds // SECONDS_PER_HOUR)
    return Qu(min(cost, terms.deposit))


def _seconds_at_risk(role: Role, terms: Terms) -> int:
    """Caller: it signs only for time its own watch has seen, but believes the provider for some time before
    it heard of the start, for an interval after it asked for the end, and for the watch's slack.
    Provider: the intervals that may run unpaid, the one that is running, and a second to notice."""
    if role is Role.CALLER:
        seconds = lease_caller.credit_seconds(terms) + terms.interval_seconds
        seconds += lease_caller.METER_SLACK_MS // 1_000
    else:
        seconds = terms.interval_seconds * (terms.unpaid_intervals + 1) + 1
    return min(seconds, terms.max_seconds)
