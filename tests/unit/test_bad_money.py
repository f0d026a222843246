"""The table of bad input in docs/money.md, line by line: what is wrong is refused and no QU goes astray."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from escrow_bridge import layout
from escrow_bridge.bridge import OpenOrder, RedeemOrder
from escrow_bridge.devnet.__main__ import CONTRACT_INDEX
from escrow_bridge.layout import EscrowView
from escrow_bridge.qubic import contract_id, sign_transaction
from escrow_bridge.transfer import TransferOrder
from protocol import lease_model as m
from protocol.errors import FundingFailed, LeaseUnknown, QubixError, VoucherInvalid
from protocol.lease_state import Lease, Phase, Role
from protocol.messages import Voucher
from protocol.units import EscrowId, LeaseId, Qu, Seconds, Tick, UnixMs
from qubixd.desk import check_voucher
from qubixd.escrows import objection_to
from qubixd.quotes import deposit_of
from tests.support.chains import FUNDS, Store, World, make_world, wallet_of
from tests.support.lease_plan import make_terms

OTHER = LeaseId(b"o" * 32)
TOO_MUCH = TransferOrder(wallet_of(2).public_key, Qu(FUNDS + 1))
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
async def world(nursery: trio.Nursery) -> World:
    world = make_world()
    nursery.start_soon(world.tick_for_ever)
    return world


def untouched(world: World) -> bool:
    whole = world.balance(world.caller) == world.balance(world.provider) == FUNDS
    return whole and world.locked == 0


async def in_its_tick(world: World, raw: bytes, tick: Tick) -> None:
    await world.chain.broadcast(raw)
    while world.chain.engine.tick_info().tick <= tick:
        await trio.sleep(0.5)
    assert raw in (world.chain.engine.past(tick) or {}).values(), "it was in its tick"


@pytest.mark.parametrize("input_type", [0, 99, 65_535])
async def test_money_to_an_unknown_procedure_comes_back(
    world: World, autojump_clock: MockClock, input_type: int
) -> None:
    tick = Tick(world.chain.engine.tick_info().tick + 5)
    to = contract_id(CONTRACT_INDEX)
    raw = sign_transaction(world.caller, to, Qu(5_000), tick, input_type, b"")
    await in_its_tick(world, raw, tick)
    assert untouched(world)


async def test_a_deposit_of_nothing_opens_nothing(world: World, autojump_clock: MockClock) -> None:
    with pytest.raises(FundingFailed):
        await world.open(0)
    assert untouched(world)
    assert deposit_of(Qu(0), Seconds(3_600)) == 1, "quotes never ask for a deposit of 0"


async def test_a_voucher_of_another_lease_is_refused_before_it_is_sent(
    world: World, autojump_clock: MockClock
) -> None:
    mine = await world.open(1_000)
    order = OpenOrder(world.provider.public_key, OTHER, Qu(1_000), 200, challenge_ticks=16)
    other = await world.bridge(world.caller).open_escrow(order, b"", Store().save)
    voucher = world.voucher(mine.escrow_id, 500)
    sent = len(world.chain.broadcasts)
    with pytest.raises(VoucherInvalid, match="not signed by the caller"):
        await world.bridge(world.provider).redeem(
            replace(voucher, escrow_id=other.escrow_id), b"", Store().save
        )
    assert len(world.chain.broadcasts) == sent and world.balance(world.provider) == FUNDS


async def test_a_voucher_for_less_than_was_paid_pays_nothing_more(
    world: World, autojump_clock: MockClock
) -> None:
    escrow = await world.open(1_000)
    bridge = world.bridge(world.provider)
    await bridge.redeem(world.voucher(escrow.escrow_id, 500), b"", Store().save)
    after = world.balance(world.provider)
    for cumulative in (499, 500):
        view = await bridge.redeem(world.voucher(escrow.escrow_id, cumulative), b"", Store().save)
        assert view is not None and view.paid == 500
    assert world.balance(world.provider) == after


async def test_a_voucher_of_an_ended_lease_pays_nothing(world: World, autojump_clock: MockClock) -> None:
    escrow = await world.open(1_000)
    bridge = world.bridge(world.provider)
    await bridge.close(world.closing(escrow.escrow_id, 500), b"", Store().save)
    after = world.balance(world.provider)
    assert await bridge.redeem(world.voucher(escrow.escrow_id, 900), b"", Store().save) is None
    await by_force(world, world.voucher(escrow.escrow_id, 900))
    assert world.balance(world.provider) == after


async def by_force(world: World, order: RedeemOrder) -> None:
    """Past the bridge's own checks, straight to the contract."""
    tick = Tick(world.chain.engine.tick_info().tick + 5)
    payload = layout.pay_input(order.escrow_id, order.cumulative, order.signature)
    to, bond = contract_id(CONTRACT_INDEX), layout.SIGNATURE_BOND
    raw = sign_transaction(world.provider, to, bond, tick, layout.Procedure.REDEEM, payload)
    await in_its_tick(world, raw, tick)


@pytest.mark.parametrize("wrong", ["above", "less", "same", "signature", "other"])
async def test_the_contract_itself_refuses_too(world: World, autojump_clock: MockClock, wrong: str) -> None:
    """A false signature costs its bond, which is burned; nothing else moves."""
    escrow = await world.open(1_000)
    await by_force(world, world.voucher(escrow.escrow_id, 300))
    before, good = world.balance(world.provider), world.voucher(escrow.escrow_id, 500)
    orders = {
        "above": world.voucher(escrow.escrow_id, 1_001),
        "less": world.voucher(escrow.escrow_id, 299),
        "same": world.voucher(escrow.escrow_id, 300),
        "signature": replace(good, signature=bytes(64)),
        "other": replace(good, signature=world.voucher(EscrowId(bytes(32)), 500).signature),
    }
    await by_force(world, orders[wrong])
    view = await world.bridge(world.provider).reader.read(escrow.escrow_id)
    assert view is not None and view.paid == 300
    lost = before - world.balance(world.provider)
    assert lost == (layout.SIGNATURE_BOND if wrong in ("signature", "other") else 0)


def test_a_voucher_for_a_lease_that_has_ended_is_refused_at_the_desk() -> None:
    terms = make_terms()
    lease = Lease(LeaseId(b"l" * 32), Role.PROVIDER, terms, Phase.DONE, UnixMs(0), UnixMs(0))
    voucher = Voucher(lease.lease_id, EscrowId(b""), Qu(1), bytes(64))
    with pytest.raises(LeaseUnknown, match="takes no more vouchers"):
        check_voucher(voucher, lease)


def burns(view: EscrowView) -> EscrowView:
    return replace(view, burn_basis_points=1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda view: view, ""),
        (lambda view: None, "no such escrow"),
        (burns, "burns a part"),
        (lambda view: replace(view, deposit=Qu(view.deposit - 1)), "the terms ask for"),
        (lambda view: replace(view, paid=Qu(1)), "the terms ask for"),
        (lambda view: replace(view, close_tick=Tick(50)), "ends too early"),
        (lambda view: replace(view, deadline_tick=Tick(view.deadline_tick - 1)), "ends too early"),
        (lambda view: replace(view, challenge_ticks=29), "too short"),
        (lambda view: replace(view, open_tick=Tick(11)), "something else"),
    ],
)
def test_a_provider_takes_no_escrow_but_the_one_in_the_terms(change: Callable[..., Any], words: str) -> None:
    terms = make_terms()
    lease = Lease(LeaseId(b"l" * 32), Role.PROVIDER, terms, Phase.FUNDING, UnixMs(0), UnixMs(0))
    tick = Tick(10)
    escrow_id = layout.escrow_id(
        terms.caller_id, terms.provider_id, lease.lease_id, terms.contract_index, tick
    )
    right = EscrowView(
        escrow_id=escrow_id,
        caller=terms.caller_id,
        provider=terms.provider_id,
        deposit=terms.deposit,
        paid=Qu(0),
        deadline_tick=Tick(tick + terms.deadline_ticks),
        close_tick=Tick(0),
        challenge_ticks=terms.challenge_ticks,
        open_tick=tick,
    )
    objection = objection_to(change(right), m.ChainVerify(escrow_id, tick), lease)
    assert (words in objection) if words else (objection == "")


async def almost(world: World, tick: Tick) -> None:
    """So near that no transaction gets into a tick before it."""
    await world.chain.advance(tick - 3 - world.chain.engine.tick_info().tick)


async def test_a_voucher_that_comes_too_late_is_not_sent(world: World, autojump_clock: MockClock) -> None:
    escrow = await world.open(1_000, deadline_ticks=40)
    await almost(world, escrow.deadline_tick)
    sent = len(world.chain.broadcasts)
    with pytest.raises(VoucherInvalid, match=f"takes none from tick {escrow.deadline_tick} on"):
        await world.bridge(world.provider).redeem(world.voucher(escrow.escrow_id, 500), b"", Store().save)
    assert len(world.chain.broadcasts) == sent


@dataclass
class Said:
    """What was said to those who tried."""

    sentences: list[str] = field(default_factory=list)

    async def trying(self, attempt: Awaitable[object]) -> None:
        with pytest.raises(QubixError) as raised:
            await attempt
        self.sentences.append(f"{raised.value.code}: {raised.value}")

    def refused(self, attempt: Callable[[], object]) -> None:
        with pytest.raises(QubixError) as raised:
            attempt()
        self.sentences.append(f"{raised.value.code}: {raised.value}")


async def test_what_the_table_says_is_said(world: World, autojump_clock: MockClock) -> None:
    """Every sentence in the table of docs/money.md is one that somebody really gets to read."""
    said, escrow = Said(), await world.open(1_000, deadline_ticks=60)
    bridge = world.bridge(world.provider)
    good = world.voucher(escrow.escrow_id, 500)
    await said.trying(world.open(0))
    await said.trying(bridge.redeem(replace(good, signature=bytes(64)), b"", Store().save))
    await said.trying(world.bridge(world.caller).transfer(TOO_MUCH, b"", Store().save))
    await almost(world, escrow.deadline_tick)
    await said.trying(bridge.redeem(good, b"", Store().save))
    terms = make_terms(caller_id=world.caller.public_key)
    lease = Lease(LeaseId(b"l" * 32), Role.PROVIDER, terms, Phase.RUNNING, UnixMs(0), UnixMs(0))
    lease = replace(lease, escrow_id=escrow.escrow_id)
    voucher = Voucher(lease.lease_id, escrow.escrow_id, Qu(terms.deposit + 1), bytes(64))
    said.refused(lambda: check_voucher(voucher, lease))
    said.refused(lambda: check_voucher(replace(voucher, escrow_id=EscrowId(bytes(32))), lease))
    said.refused(lambda: check_voucher(replace(voucher, cumulative=Qu(1)), lease))
    said.refused(lambda: check_voucher(voucher, replace(lease, phase=Phase.DONE)))
    table = (DOCS / "money.md").read_text().partition("## What is refused")[2]
    for code, sentence in re.findall(r"`([a-z._]+)`: `([^`]+)`", table):
        pattern = f"{re.escape(code)}: {re.escape(sentence)}".replace("N", r"\d+")
        assert any(re.match(pattern, one) for one in said.sentences), f"nobody says {sentence!r}"
    assert {one.partition(":")[0] for one in said.sentences} <= set(re.findall(r"`([a-z._]+)`", table))
