"""Short stories for the unit tests of the lease machine: a lease, some events, what came of them."""

from __future__ import annotations

from dataclasses import replace

from protocol import lease_caller, lease_provider
from protocol import lease_model as m
from protocol.lease import step
from protocol.lease_model import Effect, Event
from protocol.lease_state import Lease
from protocol.messages import Terms
from protocol.units import EscrowId, Qu, Seconds, Tick, UnixMs
from tests.support.lease_plan import ESCROW, LEASE, START_MS, make_terms

TERMS = make_terms()
"""1,000 QU a second, 60 seconds, an interval of 5 and 2 of them unpaid."""


def at(second: float) -> UnixMs:
    return UnixMs(START_MS + round(second * 1_000))


def play(lease: Lease, *events: Event) -> tuple[Lease, list[Effect]]:
    """The lease after all events, and every effect on the way."""
    effects: list[Effect] = []
    for event in events:
        lease, more = step(lease, event)
        effects += more
    return lease, effects


def new_caller(terms: Terms = TERMS) -> Lease:
    return lease_caller.new(
        LEASE, terms, signed_terms=b"t", peer_addresses=(), name="job", output_dir="/out", now=at(0)
    )[0]


def new_provider(terms: Terms = TERMS) -> Lease:
    return lease_provider.new(LEASE, terms, peer_addresses=(), now=at(0))[0]


def opened(second: float, escrow_id: EscrowId = ESCROW) -> m.ChainOpened:
    return m.ChainOpened(escrow_id, Tick(1_000), Tick(4_000), at(second))


def funded(second: float) -> m.ReceiveFunded:
    return m.ReceiveFunded(ESCROW, Tick(1_000), at(second))


def voucher(amount: int, second: float) -> m.ReceiveVoucher:
    return m.ReceiveVoucher(Qu(amount), b"signature of %d" % amount, at(second))


def told_exited(
    second: float, seconds: int = 10, reason: str = "job.completed", size: int = 7
) -> m.ReceiveExited:
    return m.ReceiveExited(0, reason, "it is over", Seconds(seconds), b"o" * 32, size, at(second))


def job_exited(second: float, code: int = 0, reason: str = "exited", began: float = 10) -> m.RunExited:
    return m.RunExited(code, reason, at(began), at(second), at(second))


def collected(second: float) -> m.RunCollected:
    return m.RunCollected(b"o" * 32, 7, at(second))


def closed(second: float, paid: int, terms: Terms = TERMS) -> m.ChainClosed:
    return m.ChainClosed(Qu(paid), Qu(terms.deposit - paid), at(second))


def running_caller(terms: Terms = TERMS) -> Lease:
    """Runs since second 10."""
    return play(
        new_caller(terms), m.ReceiveAccepted(at(1)), opened(5), m.ReceiveRunning(age_ms=500, now=at(10.5))
    )[0]


def ready_provider(terms: Terms = TERMS) -> Lease:
    """Everything there but the escrow, which opens at second 5; the engine is starting the job."""
    return play(new_provider(terms), m.RunPulled(at(2)), m.ReceiveInputs(at(3)), funded(4), opened(5))[0]


def running_provider(terms: Terms = TERMS) -> Lease:
    """Runs since second 10."""
    return play(ready_provider(terms), m.RunStarted(at(8), at(9)), m.RunReady(at(10), at(10.5)))[0]


def paused_provider() -> Lease:
    """Paused at second 25 for want of any voucher."""
    return play(running_provider(), *(m.ClockPassed(at(second)) for second in (15, 20, 25)))[0]


def without_clock(lease: Lease) -> Lease:
    """For comparisons that do not ask when."""
    return replace(lease, timer_at=UnixMs(0))
