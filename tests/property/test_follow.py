"""What the bridge makes of a channel's transactions is what the contract made of them, to the QU and tick.

Anybody sends anything about one channel; after each transaction the bridge, which sees only the transactions,
must know the channel as the compiled contract holds it. (All senders hold what they attach: that is not to be
seen in a transaction.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hypothesis import event, given, settings
from hypothesis import strategies as st

from escrow_bridge import layout
from escrow_bridge.escrow import follow
from escrow_bridge.layout import EscrowView, Procedure
from escrow_bridge.qubic import Transaction
from protocol.units import EscrowId, Qu, QubicId, Tick
from tests.support.escrow import CONTRACT, GET_ESCROW, MAX_DEADLINE, PURSE, Desk
from tests.support.probes import QUBIX

DEPOSIT: Final = 1_000
DEADLINE: Final = 60
around = st.sampled_from([0] * 10 + [-1, 1])
"""By how much something is beside what it should be."""
Call = tuple[int, bytes, int, int]
"""Procedure, payload, attached amount, who sends it: 0 the caller, 1 the provider, 2 a stranger."""
Maker = Callable[[Desk, EscrowView], Call]


def who(usual: int) -> st.SearchStrategy[int]:
    return st.sampled_from([usual] * 6 + [0, 1, 2])


@st.composite
def vouchers(draw: st.DrawFn) -> Callable[[Desk, EscrowView], bytes]:
    share, beside, signer = draw(st.integers(1, 10)), draw(around), draw(who(0))
    lost = draw(st.sampled_from([False] * 9 + [True]))

    def make(desk: Desk, view: EscrowView) -> bytes:
        cumulative = max(0, view.paid + (view.deposit - view.paid) * share // 10 + beside)
        escrow = bytes(32) if lost else view.escrow_id
        return desk.voucher(escrow, cumulative, by=(desk.caller, desk.provider, desk.stranger)[signer])

    return make


@st.composite
def payments(draw: st.DrawFn) -> Maker:
    procedure, voucher = draw(st.sampled_from([Procedure.REDEEM, Procedure.CLOSE])), draw(vouchers())
    by, bond = draw(who(1)), 100 + draw(around)
    return lambda desk, view: (procedure, voucher(desk, view), bond, by)


@st.composite
def batches(draw: st.DrawFn) -> Maker:
    made, by, beside = draw(st.lists(vouchers(), min_size=1, max_size=9)), draw(who(1)), draw(around)

    def make(desk: Desk, view: EscrowView) -> Call:
        payload = layout.redeem_many_input([voucher(desk, view) for voucher in made])
        return Procedure.REDEEM_MANY, payload, 100 * len(made) + beside, by

    return make


@st.composite
def top_ups(draw: st.DrawFn) -> Maker:
    by, amount, beside = draw(who(0)), draw(st.sampled_from([500, 500, 500, 1, 0, PURSE // 4])), draw(around)
    later = draw(st.sampled_from([30, 30, 0, 0, 1, -1, MAX_DEADLINE, MAX_DEADLINE + 1]))
    cut = draw(st.sampled_from([48] * 12 + [47, 43, 40, 32, 8]))

    def make(desk: Desk, view: EscrowView) -> Call:
        since = desk.host.tick if later >= MAX_DEADLINE else view.deadline_tick
        payload = layout.top_up_input(view.escrow_id, Qu(view.deposit + beside), Tick(since + later))
        return Procedure.TOP_UP, payload[:cut], amount, by

    return make


@st.composite
def requests(draw: st.DrawFn) -> Maker:
    by = draw(who(0))
    return lambda desk, view: (Procedure.REQUEST_CLOSE, bytes(view.escrow_id), 0, by)


KINDS: Final = [*[top_ups()] * 8, *[payments()] * 6, batches(), requests()]
makers = st.integers(0, 15).flatmap(lambda number: KINDS[number])
steps = st.lists(st.tuples(makers, st.sampled_from([0, 0, 0, 1, 5, 30])), min_size=10, max_size=15)


@settings(max_examples=100, deadline=None)
@given(steps)
def test_the_bridge_follows_what_the_contract_does(plan: list[tuple[Maker, int]]) -> None:
    desk = Desk()
    view = read(desk, EscrowId(desk.opened(DEPOSIT, deadline=DEADLINE)))
    for maker, ticks in plan:
        assert view is not None
        procedure, payload, amount, by = maker(desk, view)
        wallet = (desk.caller, desk.provider, desk.stranger)[by]
        had = desk.balances()[0]
        desk.host.apply(wallet.public_key, CONTRACT, amount, procedure, payload)
        sent = Transaction(
            *(QubicId(wallet.public_key), QubicId(CONTRACT), Qu(amount), Tick(desk.host.tick)),
            *(procedure, payload, bytes(64)),
        )
        told, closed = follow(view, QUBIX, [sent])
        if told != view:
            event(f"{Procedure(procedure).name} was taken")
        seen = read(desk, view.escrow_id)
        assert closed == (seen is None)
        if seen is None:
            assert desk.balances()[0] - had == told.deposit - told.paid
            return
        assert told == seen
        assert follow(told, QUBIX, [sent]) == (told, False), "a tick that is read again changes nothing"
        desk.tick_to(desk.host.tick + ticks)
        view = read(desk, view.escrow_id)
        if view is None:
            assert desk.host.tick > told.last_tick, "it went before its time"
            return


def read(desk: Desk, escrow: EscrowId) -> EscrowView | None:
    reading = layout.decode_reading(escrow, desk.host.query(QUBIX, GET_ESCROW, escrow))
    assert reading is not None
    return reading.view
