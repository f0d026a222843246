"""The watch over a machine's images keeps its offer's word true: after each fetch, now and then, and not
while the engine is away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import trio
import trio.testing

from protocol.errors import EngineUnreachable
from protocol.images import LocalImage
from protocol.lease_state import Lease, Phase, Role
from protocol.units import LeaseId, UnixMs
from qubixd.runner import Stock
from qubixd.runner.docker_images import MIB, Pace, local_image
from qubixd.stock import ANSWER_SECONDS, LOOK_SECONDS, StockWatch, image_of
from tests.support.lease_plan import make_terms
from tests.support.world_jobs import Engine

OTHER = Stock((b"8 bytes!",), 12)


class Shop(Engine):
    """An engine whose stock a test changes, and which can be away."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.away = False
        self.delay_s = 0.0

    async def stock(self) -> Stock:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if self.away:
            raise EngineUnreachable("gone for lunch")
        return self.stock_now

    async def image(self, name: str) -> LocalImage | None:
        await trio.sleep(self.delay_s)
        if self.away:
            raise EngineUnreachable("gone for lunch")
        return LocalImage((name,), (), 1)


async def running(shop: Shop, test: Callable[[StockWatch, list[Stock]], Awaitable[None]]) -> None:
    """A watch at work, and what it told of, for the time of a test."""
    told: list[Stock] = []
    watch = StockWatch(shop)
    watch.on_change.append(lambda: told.append(watch.stock))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        await trio.testing.wait_all_tasks_blocked()
        await test(watch, told)
        nursery.cancel_scope.cancel()


async def test_asks_at_once_and_tells_only_of_changes(autojump_clock: trio.testing.MockClock) -> None:
    shop = Shop()

    async def test(watch: StockWatch, told: list[Stock]) -> None:
        assert (shop.asked, told) == (1, [])
        shop.stock_now = OTHER
        await trio.sleep(LOOK_SECONDS * 1.5)
        assert (shop.asked, told, watch.stock) == (2, [OTHER], OTHER)
        await trio.sleep(LOOK_SECONDS)
        assert (shop.asked, told) == (3, [OTHER])

    await running(shop, test)


async def test_asks_again_once_when_a_lease_s_image_has_come(
    autojump_clock: trio.testing.MockClock,
) -> None:
    shop, fetching = Shop(), a_lease()

    async def test(watch: StockWatch, told: list[Stock]) -> None:
        watch.lease_changed(fetching)
        await trio.testing.wait_all_tasks_blocked()
        assert shop.asked == 1
        shop.stock_now = OTHER
        for vouchers in range(3):
            watch.lease_changed(replace(fetching, has_image=True, vouchers=vouchers))
            await trio.testing.wait_all_tasks_blocked()
        assert (shop.asked, told) == (2, [OTHER])
        watch.lease_changed(replace(fetching, has_image=True, phase=Phase.DONE))
        assert not watch._fetched

    await running(shop, test)


async def test_an_engine_that_is_away_changes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    shop = Shop()
    shop.stock_now = OTHER

    async def test(watch: StockWatch, told: list[Stock]) -> None:
        shop.away = True
        await trio.sleep(3 * LOOK_SECONDS + 1)
        assert (shop.asked, told, watch.stock) == (4, [OTHER], OTHER)

    await running(shop, test)


async def test_an_image_is_asked_for_with_little_patience(autojump_clock: trio.testing.MockClock) -> None:
    shop = Shop()
    assert await image_of(shop, "python") == LocalImage(("python",), (), 1)
    shop.delay_s = ANSWER_SECONDS * 10
    began = trio.current_time()
    assert await image_of(shop, "python") is None
    assert trio.current_time() - began == ANSWER_SECONDS
    shop.delay_s, shop.away = 0, True
    assert await image_of(shop, "python") is None


def test_an_engine_that_answers_in_another_way_is_no_failure() -> None:
    odd = {
        "RepoTags": ["<none>:<none>", "mine:1"],
        "RepoDigests": None,
        "RootFS": {"Layers": ["sha512:" + "a" * 128, "sha256:" + "b" * 64, "b"]},
        "Size": None,
    }
    assert local_image(odd) == LocalImage(("mine:1",), (b"\xbb" * 8,), 0)
    assert local_image({}) == LocalImage((), (), 0)


def test_pace_is_that_of_the_last_pulls() -> None:
    pace = Pace()
    assert pace.mib_per_s == 0
    pace.add(MIB - 1, 9.0)  # too little to tell anything
    assert pace.mib_per_s == 0
    pace.add(100 * MIB, 10.0)
    assert pace.mib_per_s == 10
    pace.add(MIB, 91.0)
    assert pace.mib_per_s == 1
    for _ in range(5):
        pace.add(300 * MIB, 2.0)
    assert pace.mib_per_s == 150


def a_lease() -> Lease:
    return Lease(
        lease_id=LeaseId(bytes(32)),
        role=Role.PROVIDER,
        terms=make_terms(),
        phase=Phase.FUNDING,
        opened_at=UnixMs(0),
        timer_at=UnixMs(0),
    )
