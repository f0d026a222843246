"""One lease machine alone, against a peer, a chain and an engine that say anything at any time.

`QUBIX_LEASE_EXAMPLES` as in `test_lease_world`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import lease_model as m
from protocol.lease import step
from protocol.lease_caller import METER_SLACK_MS
from protocol.lease_extension import extended
from protocol.lease_job import longest
from protocol.lease_model import EVENTS, Event
from protocol.lease_provider import REDEEM_EVERY_MS
from protocol.lease_state import LIVE, STATES, TERMINAL, Lease, Phase, Role, locked
from protocol.messages import Extension, Terms
from protocol.units import EscrowId, Qu, Seconds, Tick, UnixMs, amount_due
from tests.support.lease_plan import LEASE, START_MS, make_terms
from tests.support.lease_play import TERMS, new_caller, new_provider, running_provider
from tests.support.lease_world import FREE_TO_REPEAT
from tests.support.values import any_value

EXAMPLES = int(os.environ.get("QUBIX_LEASE_EXAMPLES", "200"))


def as_a_daemon_says(event: Any) -> Any:
    """Its own errors have a code, and escrow ids have been checked at the door."""
    if isinstance(event, m.RunFailed | m.ChainOpenFailed) and not event.code:
        event = replace(event, code="some.code")
    if isinstance(event, m.ChainOpened | m.ReceiveFunded):
        event = replace(event, escrow_id=EscrowId(event.escrow_id[:32].ljust(32, b"e")))
    return event


any_event = st.one_of(*(any_value(kind) for kind in EVENTS.kinds.values())).map(as_a_daemon_says)
instants = st.integers(0, 400_000).map(lambda ms: UnixMs(START_MS + ms))
seconds = st.integers(0, 400).map(Seconds)
amounts = st.one_of(st.integers(0, TERMS.deposit), st.just(TERMS.deposit + 1)).map(Qu)


extensions = st.builds(
    Extension,
    lease_id=st.just(LEASE),
    number=st.integers(1, 4),
    max_seconds=st.sampled_from([30, 61, 90, 600]).map(Seconds),
    deposit=st.sampled_from([60_000, 61_000, 90_000, 600_000]).map(Qu),
    deadline_ticks=st.sampled_from([100, 3_000, 3_100, 4_000]),
    valid_until=instants,
)


def likely_event(kind: type) -> st.SearchStrategy[Any]:
    """Events with numbers near those that matter, so that they get somewhere."""
    near = {
        "now": instants,
        "started_at": instants,
        "finished_at": instants,
        "seconds": seconds,
        "cumulative": amounts,
        "paid": amounts,
        "age_ms": st.integers(0, 100_000),
        "extension": extensions,
        "deposit": st.sampled_from([0, 60_000, 61_000, 90_000, 700_000]).map(Qu),
        "deadline_tick": st.sampled_from([0, 4_000, 4_100, 5_000]).map(Tick),
    }
    return any_value(kind).flatmap(
        lambda event: st.fixed_dictionaries({name: near[name] for name in vars(event) if name in near}).map(
            lambda values: replace(as_a_daemon_says(event), **values)
        )
    )


any_terms = st.builds(
    make_terms,
    proof=st.booleans(),
    idle_seconds=st.sampled_from([0, 60]),
    budget=st.sampled_from([0, 20_000]),
)
stories = st.lists(st.one_of(any_event, *(likely_event(kind) for kind in EVENTS.kinds.values())), max_size=30)


def check_step(before: Lease, event: Event, after: Lease, effects: tuple[m.Effect, ...]) -> None:
    terms = after.terms
    assert before.promised <= after.promised <= terms.deposit
    assert before.seconds <= after.seconds <= terms.max_seconds
    assert amount_due(terms.price_qu_per_hour, after.seconds) <= terms.deposit
    assert (after.lease_id, after.role) == (before.lease_id, before.role)
    check_terms(before, event, after)
    if before.phase in TERMINAL:
        assert (after, effects) == (before, ()), "an ended lease changed"
    if after.phase in TERMINAL:
        assert after.reason and not after.timer_at
    for effect in effects:
        check_effect(before, event, after, effect)


def check_terms(before: Lease, event: Event, after: Lease) -> None:
    """They change only for time that was agreed on while the job runs, once its money is locked."""
    assert locked(before) <= locked(after)
    assert not before.escrow_id or before.deadline_tick <= after.deadline_tick
    if after.terms == before.terms:
        return
    assert isinstance(event, m.ChainToppedUp | m.ReceiveExtended) and before.phase in LIVE
    more = event.extension if isinstance(event, m.ReceiveExtended) else before.extending
    assert more is not None and after.terms == extended(before.terms, more)
    assert before.extensions <= more.number == after.extensions
    assert longest(before.terms) < longest(after.terms) == after.terms.max_seconds
    assert before.terms.deposit < after.terms.deposit <= locked(after)
    assert after.open_tick + after.terms.deadline_ticks <= after.deadline_tick


def check_effect(before: Lease, event: Event, after: Lease, effect: m.Effect) -> None:
    match effect:
        case m.ChainOpen():
            assert (before.phase, type(event)) == (Phase.QUOTED, m.ReceiveAccepted)
        case m.SendVoucher(escrow_id, cumulative):
            assert cumulative == after.promised > before.promised
            assert escrow_id == after.escrow_id
            watched = (event.now - after.started_at + METER_SLACK_MS) // 1_000
            assert cumulative <= amount_due(after.terms.price_qu_per_hour, Seconds(watched))
            assert not before.settled
            assert after.proved or not after.terms.proof, "signed for a machine that nobody has proved"
        case m.ChainTopUp(number, locked_before, deposit, _):
            assert type(event) is m.ActionExtend and not before.extending
            assert number > before.extensions and locked_before == locked(before) < deposit
        case m.SendExtended(signed):
            assert before.extending and after.terms != before.terms and signed == after.extension
        case m.ChainRequestClose(_):
            assert after.closing and not before.closing
        case m.ChainClose(_, cumulative, signature):
            assert before.phase is not Phase.SETTLING or not before.escrow_id, "closed twice"
            assert (cumulative, signature) == (after.promised, after.signature)
        case m.ChainRedeem(_, cumulative, signature):
            assert (cumulative, signature) == (after.promised, after.signature)
            assert after.phase in LIVE and after.redeemed_at - before.redeemed_at >= REDEEM_EVERY_MS
        case m.SendGo():
            assert type(event) is m.RunProved and not event.code and before.prepared and not before.proved
        case m.RunGo():
            assert after.container_at and not before.released
            assert type(event) is (m.ReceiveGo if before.terms.proof else m.RunStarted)
        case m.RunRestart(nonce):
            assert before.phase in LIVE and nonce == after.restarting
            assert type(event) is m.ReceiveRestart or after.restarts <= after.restarts_allowed
        case m.RunStart():
            assert after.has_inputs and after.has_image and after.escrow_id and not before.started_at
        case _:
            pass


def live_through(lease: Lease, story: list[Any]) -> None:
    for event in story:
        after, effects = step(lease, event)
        check_step(lease, event, after, effects)
        again, more = step(after, event)
        assert again == after, "twice is not once"
        assert all(isinstance(effect, FREE_TO_REPEAT) for effect in more)
        assert STATES.decode(STATES.encode(after), 1 << 20) == after
        lease = after


@settings(max_examples=EXAMPLES)
@given(any_terms, stories)
def test_a_caller_survives_anything(terms: Terms, story: list[Any]) -> None:
    live_through(new_caller(terms), [m.ReceiveAccepted(UnixMs(START_MS)), *story])


@settings(max_examples=EXAMPLES)
@given(any_terms, stories)
def test_a_provider_survives_anything(terms: Terms, story: list[Any]) -> None:
    live_through(new_provider(terms), story)


@settings(max_examples=EXAMPLES)
@given(any_terms, stories)
def test_a_running_job_survives_anything(terms: Terms, story: list[Any]) -> None:
    lease = running_provider(replace(terms, proof=False))
    live_through(replace(lease, restart="always", restarts_allowed=3), story)


@given(any_value(Lease), any_event)
def test_no_event_breaks_any_lease_whatever(lease: Lease, event: Event) -> None:
    after, _ = step(lease, event)
    assert after.role in Role
