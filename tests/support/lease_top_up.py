"""More time in the small world of the lease tests: what both sides agree on, and how its money travels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from protocol import lease_model as m
from protocol.lease_job import longest
from protocol.lease_model import Event
from protocol.lease_state import LIVE, Lease, locked
from protocol.messages import Extension, encode
from protocol.units import Qu, Seconds, Tick, UnixMs, amount_due
from tests.support.lease_plan import LEASE, OPEN_TICKS, START_MS

if TYPE_CHECKING:
    from tests.support.lease_world import LeaseWorld

COPY_AFTER_TICKS: Final = 9
SPARE_TICKS: Final = 600


class TopUps:
    """Transactions of the caller that add to the deposit: some are lost, each is sent again as a copy."""

    def __init__(self) -> None:
        self.under_way: list[tuple[int, m.ChainTopUp]] = []
        self.lost = 0
        self.ordered = Qu(0)
        """The highest deposit that the caller ever agreed to."""

    def perform(self, world: LeaseWorld, order: m.ChainTopUp, now: UnixMs) -> tuple[bool, Event | None]:
        escrow = world.escrow
        assert escrow
        self.ordered = max(self.ordered, order.deposit)
        if escrow.gone or escrow.close_tick:
            return True, m.ChainTopUpFailed(order.number, "the escrow is being closed", now)
        if escrow.deposit >= order.deposit:
            return True, m.ChainToppedUp(escrow.deposit, Tick(escrow.deadline), now)
        if not any(one == order for _, one in self.under_way):
            self.under_way.append((world._tick() + OPEN_TICKS, order))
        return False, None

    def run(self, world: LeaseWorld, tick: int) -> None:
        due = [order for at, order in self.under_way if at <= tick]
        self.under_way = [one for one in self.under_way if one[0] > tick]
        for order in due:
            if self.lost:
                self.lost -= 1
            elif world.escrow:
                if world.escrow.deposit == order.before:
                    self.under_way.append((tick + COPY_AFTER_TICKS, order))
                world.escrow.top_up(tick, order.before, order.deposit, order.deadline_tick)


def agreed(world: LeaseWorld, seconds: int) -> m.ActionExtend | None:
    """What a person's order for more time comes to; None if the provider cannot be asked."""
    caller, provider = world.caller, world.provider
    away = not (caller.up and provider.up) or world.now < world.link_down_until
    if away or caller.lease is None or provider.lease is None:
        return None
    if caller.lease.phase not in LIVE or provider.lease.phase not in LIVE:
        return None
    more = _signed(world, caller.lease, provider.lease, seconds)
    return m.ActionExtend(more, encode(more), str(more.number), world.clock(caller))


def _signed(world: LeaseWorld, caller: Lease, provider: Lease, seconds: int) -> Extension:
    longer = Seconds(longest(caller.terms) + seconds)
    due = amount_due(caller.terms.price_qu_per_hour, longer)
    elapsed = (world.now - START_MS) // 1_000
    ticks = elapsed + longer + caller.terms.challenge_ticks + SPARE_TICKS
    return Extension(
        lease_id=LEASE,
        number=caller.extensions + 1,
        max_seconds=longer,
        deposit=Qu(max(due, locked(provider) + 1)),
        deadline_ticks=max(caller.terms.deadline_ticks, ticks),
        valid_until=UnixMs(world.now + 60_000),
    )
