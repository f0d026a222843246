"""Chain against ledger: each difference has a name, and is repaired or kept in sight."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from escrow_bridge.bridge import Bridge, CloseOrder
from escrow_bridge.devnet.__main__ import CONTRACT_INDEX
from escrow_bridge.escrow import Settled
from escrow_bridge.layout import EscrowView, Function, Procedure
from escrow_bridge.qubic import parse_transaction
from protocol import control
from protocol.lease import step
from protocol.lease_state import STATES, TERMINAL, Lease, Phase, Role
from protocol.units import EscrowId, Qu, Tick, UnixMs
from qubixd import reconcile as r
from qubixd.control import status
from qubixd.lease_desk import ps
from qubixd.leases import decode_state
from qubixd.reconcile import OnChain, judge
from tests.support.chains import Store
from tests.support.lease_plan import ESCROW, LEASE, make_terms
from tests.support.rental import Rental, due, rental
from tests.support.world import Person
from tests.support.world_jobs import job

Clock = trio.testing.MockClock
NOW = UnixMs(1_800_000_000_000)
TERMS = make_terms()

# --- judging ----------------------------------------------------------------------------------


def lease(**changes: object) -> Lease:
    plain = Lease(LEASE, Role.CALLER, TERMS, Phase.RUNNING, NOW, UnixMs(0))
    known = replace(plain, escrow_id=ESCROW, open_tick=Tick(10), deadline_tick=Tick(900), promised=Qu(500))
    return replace(known, **changes)  # type: ignore[arg-type]  # a test's own words


def view(**changes: object) -> EscrowView:
    plain = EscrowView(
        escrow_id=ESCROW,
        caller=TERMS.caller_id,
        provider=TERMS.provider_id,
        deposit=TERMS.deposit,
        paid=Qu(0),
        deadline_tick=Tick(900),
        close_tick=Tick(0),
        challenge_ticks=30,
        open_tick=Tick(10),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # a test's own words


ENDED = {"phase": Phase.DONE, "reason": "job.completed", "settled": True, "paid": Qu(500)}
UNFUNDED = {"escrow_id": EscrowId(b""), "phase": Phase.FUNDING, "promised": Qu(0)}


@pytest.mark.parametrize(
    ("codes", "one", "chain", "repaired"),
    [
        ([], lease(), OnChain(view(), None), False),
        ([], lease(**UNFUNDED), OnChain(None, None), False),
        ([], lease(**ENDED), OnChain(None, Settled(Qu(500), Qu(0), True)), False),
        ([], lease(**ENDED), OnChain(None, None), False),
        ([r.UNKNOWN], lease(**UNFUNDED), OnChain(view(), None), True),
        ([r.UNKNOWN], lease(**UNFUNDED | {"phase": Phase.FAILED}), OnChain(view(), None), False),
        ([r.GONE], lease(), OnChain(None, Settled(Qu(400), Qu(600), True)), True),
        ([r.GONE], lease(), OnChain(None, None), True),
        ([r.GONE, r.ABOVE_PROMISE], lease(), OnChain(None, Settled(Qu(501), Qu(0), True)), True),
        ([r.STILL_OPEN], lease(**ENDED), OnChain(view(), None), False),
        ([r.DIFFERS], lease(), OnChain(view(deposit=Qu(1)), None), False),
        ([r.DIFFERS], lease(), OnChain(view(deadline_tick=Tick(901)), None), False),
        ([r.ABOVE_PROMISE], lease(), OnChain(view(paid=Qu(501)), None), False),
        ([r.CLOSING], lease(), OnChain(view(close_tick=Tick(99)), None), False),
        ([r.CLOSING], lease(role=Role.PROVIDER), OnChain(view(close_tick=Tick(99)), None), True),
        ([], lease(closing=True), OnChain(view(close_tick=Tick(99)), None), False),
        ([r.PAID_DIFFERS], lease(**ENDED), OnChain(None, Settled(Qu(499), Qu(1), True)), False),
    ],
)
def test_each_difference_has_its_code(codes: list[str], one: Lease, chain: OnChain, repaired: bool) -> None:
    found = judge(one, chain, NOW)
    assert [difference.code for difference in found] == codes
    assert set(codes) <= set(r.CODES)
    assert any(difference.repair is not None for difference in found) == repaired


amounts = st.sampled_from([0, 1, 499, 500, 501, TERMS.deposit]).map(Qu)
leases = st.builds(
    lambda role, phase, known, promised, settled, paid, closing: replace(
        lease(role=role, phase=phase, promised=promised, closing=closing),
        **{"settled": settled, "paid": paid} if known else {"escrow_id": EscrowId(b"")},
    ),
    *(st.sampled_from(Role), st.sampled_from(Phase), st.booleans(), amounts),
    *(st.booleans(), amounts, st.booleans()),
)
chains = st.one_of(
    st.builds(
        lambda paid, close: OnChain(view(paid=paid, close_tick=close), None), amounts, st.just(Tick(99))
    ),
    st.builds(lambda paid: OnChain(view(paid=paid), None), amounts),
    st.builds(lambda paid: OnChain(None, Settled(paid, Qu(TERMS.deposit - paid), True)), amounts),
    st.just(OnChain(None, None)),
)


@given(leases, chains)
def test_a_repair_repairs(one: Lease, chain: OnChain) -> None:
    for difference in judge(one, chain, NOW):
        assert difference.drift >= 0 and difference.sentence
        if difference.repair is not None:
            after, _ = step(one, difference.repair)
            if after != one:  # the machine knows of phases in which it waits for something else first
                assert difference.code not in {again.code for again in judge(after, chain, NOW)}


# --- with real nodes --------------------------------------------------------------------------


def ledger_of(person: Person) -> Path:
    return person.root / "ledger.sqlite"


def rewrite(person: Person, lease_id: bytes, change: Callable[[Lease], Lease]) -> None:
    """Make a dead node's ledger say something else of a lease, and forget what is to be done."""
    with sqlite3.connect(ledger_of(person)) as db:
        (state,) = db.execute("SELECT state FROM leases WHERE lease_id = ?", (lease_id,)).fetchone()
        changed = change(decode_state(state))
        db.execute(
            "UPDATE leases SET state = ?, phase = ? WHERE lease_id = ?",
            (STATES.encode(changed), changed.phase, lease_id),
        )
        db.execute("DELETE FROM outbox WHERE lease_id = ?", (lease_id,))
    db.close()


def copy_of(person: Person, to: Path) -> None:
    to.mkdir()
    for file in person.root.glob("ledger.sqlite*"):
        if file.suffix != ".lock":
            shutil.copy(file, to)


def put_back(person: Person, copy: Path) -> None:
    for file in person.root.glob("ledger.sqlite*"):
        file.unlink()
    for file in copy.iterdir():
        shutil.copy(file, person.root)


def opened(one: Rental) -> int:
    """How many different deposits were sent."""
    raws = {parse_transaction(raw) for raw in one.world.chain.broadcasts}
    return sum(transaction.input_type == Procedure.OPEN for transaction in raws)


async def nobody(event: object) -> None: ...


async def shown(person: Person) -> control.StatusView:
    return await status(person.up, control.StatusArgs(), nobody)


async def until_looked(person: Person) -> dict[str, int]:
    """The counters once the first round is over."""
    with trio.fail_after(30):
        while not person.up.reconciler.counters.get("reconcile.rounds"):
            await trio.sleep(0.1)
    return person.up.reconciler.counters


async def test_nothing_differs_in_a_lease_that_goes_well(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=150))
        one.check_books(*await one.ended())
        await trio.sleep(3 * r.PERIOD_S)
        for person in (one.alice, one.bob):
            counters = person.up.reconciler.counters
            assert counters.pop("reconcile.rounds") > 3
            assert not any(counters.values()), counters
            assert (await shown(person)).differences == []


@pytest.mark.parametrize("phase", [Phase.QUOTED, Phase.FUNDING])
async def test_a_ledger_put_back_to_before_the_deposit_locks_no_second_one(
    tmp_path: Path, autojump_clock: Clock, phase: Phase
) -> None:
    async with rental(tmp_path) as one:
        one.when(one.bob, phase, lambda: copy_of(one.bob, tmp_path / "copy"))
        await one.rent(job(seconds=1_000))
        await one.until_paid(due(5))
        await one.world.kill(one.bob)
        await trio.sleep(70)
        put_back(one.bob, tmp_path / "copy")
        await one.world.start("bob")
        served, paid = await one.ended()
        assert opened(one) == 1
        assert served.paid >= due(5)
        if phase is Phase.FUNDING:
            assert paid.paid == served.paid and paid.phase is Phase.FAILED
        assert one.world.balance(one.bob) == one.world.funds - served.paid
        one.world.check_conservation()


async def test_a_ledger_put_back_to_an_earlier_voucher_is_told(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        one.when(one.bob, Phase.RUNNING, lambda: copy_of(one.bob, tmp_path / "copy"))
        await one.rent(job(seconds=1_000))
        await one.until_paid(due(20))
        await one.world.kill(one.bob)
        await one.stop(one.alice)
        served = await one.until(one.alice, *TERMINAL)
        put_back(one.bob, tmp_path / "copy")
        await one.world.start("bob")
        _, paid = await one.ended()
        counters = await until_looked(one.bob)
        assert counters[f"reconcile.{r.GONE}"] == counters[f"reconcile.{r.ABOVE_PROMISE}"] == 1
        assert counters["reconcile.repaired"] == 1
        assert paid.paid == served.paid
        one.check_balances(paid)


async def test_an_escrow_closed_elsewhere_while_both_were_away(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=1_000))
        held = await one.until_paid(due(5))
        await one.world.kill(one.bob)
        await one.world.kill(one.alice)
        elsewhere = Bridge(one.world.chain, one.alice.wallet, CONTRACT_INDEX)
        order = CloseOrder(held.escrow_id, held.promised, held.signature)
        await elsewhere.close(order, b"", Store().save)
        for person in (one.alice, one.bob):
            await one.world.start(person.name)
            counters = await until_looked(person)
            assert counters[f"reconcile.{r.GONE}"] == counters["reconcile.repaired"] == 1
        served, paid = await one.ended()
        assert served.paid == paid.paid == held.promised
        one.check_balances(paid)


async def test_an_escrow_that_only_a_signed_transaction_remembers(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=1_000))
        await one.until_paid(due(5))
        await one.world.kill(one.bob)

        def forgets(lease: Lease) -> Lease:
            return replace(
                lease, phase=Phase.FUNDING, escrow_id=EscrowId(b""), timer_at=UnixMs(0), started_at=UnixMs(0)
            )

        rewrite(one.bob, one.lease_id, forgets)
        await one.world.start("bob")
        counters = await until_looked(one.bob)
        assert counters[f"reconcile.{r.UNKNOWN}"] == counters["reconcile.repaired"] == 1
        served, paid = await one.ended()
        assert opened(one) == 1
        one.check_balances(paid)
        assert paid.paid == served.paid


async def test_what_no_event_can_repair_stays_in_sight(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=5))
        _, paid = await one.ended()
        await one.world.kill(one.bob)
        rewrite(one.bob, one.lease_id, lambda lease: replace(lease, paid=Qu(lease.paid + 7)))
        await one.world.start("bob")
        counters = await until_looked(one.bob)
        assert (counters["reconcile.standing"], counters["reconcile.drift_qu"]) == (1, 7)
        view = await shown(one.bob)
        assert [(one.code, one.drift_qu) for one in view.differences] == [(r.PAID_DIFFERS, 7)]
        assert f"{paid.paid} QU" in view.differences[0].sentence
        assert view.counters["reconcile.drift_qu"] == 7
        listed = await ps(one.bob.up, control.PsArgs(), nobody)
        assert [lease.differences for lease in listed.leases] == [[r.PAID_DIFFERS]]


async def test_a_chain_that_does_not_answer_is_waited_for(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=1_000))
        await one.until_paid(due(5))
        await one.world.kill(one.bob)
        one.world.chain.reachable = False
        await one.world.start("bob")
        await trio.sleep(30)
        assert "reconcile.rounds" not in one.bob.up.reconciler.counters
        one.world.chain.reachable = True
        await until_looked(one.bob)
        await one.stop(one.bob)
        one.check_books(*await one.ended())


@pytest.mark.parametrize("name", ["alice", "bob"])
async def test_a_node_that_is_catching_up_ends_no_lease(
    tmp_path: Path, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It does not know the escrow yet: that is no news of its end."""
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=30))
        before = await one.world.chain.query(CONTRACT_INDEX, Function.GET_ESCROW, bytes(32))
        await one.until_paid(due(5))
        person = {"alice": one.alice, "bob": one.bob}[name]
        await one.world.kill(person)
        real_query, old_until = one.world.chain.query, trio.current_time() + 8

        async def old_for_a_while(
            contract_index: int, input_type: int, payload: bytes, *, tick_at: int | None = None
        ) -> bytes:
            if input_type == Function.GET_ESCROW and trio.current_time() < old_until:
                return before
            return await real_query(contract_index, input_type, payload, tick_at=tick_at)

        monkeypatch.setattr(one.world.chain, "query", old_for_a_while)
        await one.world.start(name)
        served, paid = await one.ended()
        assert served.phase is paid.phase is Phase.DONE, (served.reason, paid.reason)
        one.check_books(served, paid)
