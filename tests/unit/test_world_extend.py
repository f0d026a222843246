"""More time for a running lease between two nodes: the verb, refusals, deaths on the way, and the books."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from protocol.control_extend import ExtendArgs, ExtendView
from protocol.errors import BalanceTooLow, PeerRefused, PriceAboveLimit, UsageError
from protocol.lease_state import Lease, locked
from qubixd.extend_desk import extend
from qubixd.wallet_desk import wallet
from tests.support.rental import Rental, due, rental
from tests.support.world_jobs import job

Clock = trio.testing.MockClock
MINUTE = 60 / 3_600


async def nobody(event: object) -> None: ...


async def more(one: Rental, seconds: int = 60, **how: object) -> ExtendView:
    args = ExtendArgs(one.lease_id.hex(), seconds, **{"order": "one", **how})  # type: ignore[arg-type]  # fields
    return await extend(one.bob.up, args, nobody)


async def running(one: Rental, seconds: float = 100) -> None:
    """For a minute at most, by its terms."""
    await one.rent(job(seconds=seconds, hours=MINUTE))
    await one.until_paid(due(5))


async def until_longer(one: Rental, seconds: int = 120) -> Lease:
    return await one.world.until(one.lease_id, one.alice, lambda lease: lease.terms.max_seconds == seconds)


def check_books(one: Rental, served: Lease, paid: Lease, seconds: float) -> None:
    assert paid.paid == served.paid == due(seconds)
    assert paid.paid + paid.refunded == locked(paid) == locked(served)
    assert one.world.balance(one.bob) == one.world.funds - paid.paid
    one.world.check_conservation()


async def test_a_job_is_given_time_and_runs_to_its_own_end(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await running(one)
        checked = await more(one, check=True)
        assert (checked.state, checked.cost_qu, checked.locks_qu) == ("checked", due(60), due(60))
        assert (await one.bob.up.leases.get(one.lease_id)).terms.max_seconds == 60
        view = await more(one, max_cost_qu=checked.cost_qu)
        assert (view.state, view.deposit, view.lease.max_seconds, view.seconds) == (
            "extended",
            due(120),
            120,
            60,
        )
        assert (await wallet(one.bob.up)).balance == one.world.funds - due(120)
        await until_longer(one)
        served, paid = await one.ended()
        assert (served.reason, paid.reason) == ("job.completed", "job.completed")
        check_books(one, served, paid, 100)


async def test_an_order_is_carried_out_once(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await running(one)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(lambda: more(one))
        again = await more(one)
        assert (again.state, again.max_seconds, again.deposit) == ("extended", 120, due(120))
        longer = await more(one, 30, order="two")
        assert (longer.max_seconds, longer.deposit) == (150, due(150))
        with pytest.raises(UsageError, match="another has come after"):
            await more(one)
        served, paid = await one.ended()
        check_books(one, served, paid, 100)


async def test_it_is_refused_before_anything_moves(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await running(one, seconds=20)
        with pytest.raises(PriceAboveLimit):
            await more(one, max_cost_qu=due(60) - 1)
        with pytest.raises(BalanceTooLow, match="your wallet"):
            await more(one, one.world.funds // due(1))
        one.alice.up.shop.open_for_business = False
        with pytest.raises(PeerRefused, match="adds no time at the moment"):
            await more(one)
        with pytest.raises(UsageError, match="only who rented"):
            await extend(one.alice.up, ExtendArgs(one.lease_id.hex(), 60, "one"), nobody)
        served, paid = await one.ended()
        with pytest.raises(UsageError, match="nothing to extend"):
            await more(one)
        assert locked(paid) == due(60)
        check_books(one, served, paid, 20)


@pytest.mark.parametrize("who", ["alice", "bob"])
@pytest.mark.parametrize("after", [0.0, 1.0, 4.0])
async def test_a_node_that_dies_on_the_way_goes_on_with_it(
    tmp_path: Path, autojump_clock: Clock, who: str, after: float
) -> None:
    async with rental(tmp_path) as one:
        await running(one)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(order_and_forget, one)
            await one.world.until(one.lease_id, one.bob, lambda lease: bool(lease.orders))
            await trio.sleep(after)
            await one.world.kill(one.alice if who == "alice" else one.bob)
            nursery.cancel_scope.cancel()
        await one.world.start(who, **({"provider": True} if who == "alice" else {}))
        await until_longer(one)
        view = await more(one)
        assert (view.state, view.deposit) == ("extended", due(120))
        served, paid = await one.ended()
        assert paid.reason == "job.completed"
        assert paid.paid + paid.refunded == due(120) == locked(served)
        assert one.world.balance(one.bob) == one.world.funds - paid.paid
        one.world.check_conservation()


async def order_and_forget(one: Rental) -> None:
    with trio.CancelScope():
        await more(one)
