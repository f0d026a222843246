"""The history of prices: candles in the ledger, what is news of a market, hours that become days."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from ledger import prices
from ledger.prices import DAY_MS, HOUR_MS, KEEP_HOURS_MS, PriceRow
from ledger.store import Store, inline, open_store
from protocol.control_prices import PriceSeriesView, PricesView
from protocol.signing import NodeKey
from protocol.units import PeerKey
from qubixd.book import Ask
from qubixd.control import open_control
from qubixd.prices import FIRST_LOOK_SECONDS, LOOK_SECONDS, gpu_rows, news, provider_row, tidy
from qubixd.wire import Verdict
from qubixd.wire_libp2p import peer_id_of
from tests.support.front_end import Failed, front_end
from tests.support.market_values import card, entry
from tests.support.world import World
from tests.support.world_jobs import now_ms

Clock = trio.testing.MockClock
HOUR = 1_800_000_000_000 // HOUR_MS * HOUR_MS
DAY = HOUR // DAY_MS * DAY_MS
ALICE, BOB = PeerKey(b"a" * 32), PeerKey(b"b" * 32)
ALL = 1_000


def ask(provider: PeerKey, price: int, gpu: str = "4090", gpus: int = 1) -> Ask:
    return Ask(provider, gpu, price, gpus)


def row(subject: bytes, start: int, price: int, kind: prices.Kind = "provider") -> PriceRow:
    return PriceRow(kind, subject, HOUR_MS, start, price, price, price, price, price, 1, 1)


def test_the_middle_and_the_cheapest_of_a_class() -> None:
    asks = [ask(PeerKey(bytes([n]) * 32), price) for n, price in enumerate((900, 10, 12, 11))]
    (one,) = gpu_rows([*asks, ask(BOB, 5, gpu="")], HOUR + 5)
    assert (one.subject, one.start_ms, one.open, one.close) == (b"4090", HOUR, 11, 11)
    assert (one.cheapest, one.offers, one.gpus) == (10, 4, 4)


def test_made_up_classes_are_too_many_to_note() -> None:
    crowd = [ask(PeerKey(n.to_bytes(32, "big")), 1, gpu=f"fake{n}") for n in range(300)]
    known = gpu_rows([*crowd, ask(ALICE, 7), ask(BOB, 8)], HOUR)
    assert len(known) == 256 and known[0].subject == b"4090"


def test_only_a_changed_price_is_news_of_a_provider() -> None:
    asked: dict[bytes, int] = {}
    assert [one.kind for one in news([ask(ALICE, 7)], asked, HOUR)] == ["gpu", "provider"]
    assert [one.kind for one in news([ask(ALICE, 7)], asked, HOUR + 9)] == ["gpu"]
    changed = news([ask(ALICE, 9)], asked, HOUR + HOUR_MS + 9)[1]
    assert (changed.start_ms, changed.open, changed.high, changed.low, changed.close) == (
        HOUR + HOUR_MS, 7, 9, 7, 9,
    )  # fmt: skip


async def test_what_comes_later_to_an_hour_widens_its_candle() -> None:
    async with open_store(":memory:", inline) as store:
        for before, price in ((7, 7), (7, 9), (9, 5), (5, 6)):
            await prices.note(store, [provider_row(ask(ALICE, price), before, HOUR)])
        again = provider_row(ask(ALICE, 6), 5, HOUR)
        await prices.note(store, [again, again])
        (one,) = await prices.history(store, "provider", ALICE, 0, ALL)
        assert (one.open, one.high, one.low, one.close, one.cheapest) == (7, 9, 5, 6, 5)
        assert await prices.newest(store) == {ALICE: 6}


async def test_history_begins_with_what_held_then_and_keeps_the_newest() -> None:
    made = [row(ALICE, HOUR + n * HOUR_MS, n) for n in (0, 1, 5, 6)]
    async with open_store(":memory:", inline) as store:
        await prices.note(store, [*made, row(BOB, HOUR, 3), row(b"4090", HOUR, 8, "gpu")])
        assert await prices.history(store, "provider", ALICE, HOUR + 3 * HOUR_MS, ALL) == tuple(made[1:])
        assert await prices.history(store, "provider", ALICE, 0, ALL) == tuple(made)
        assert await prices.history(store, "provider", ALICE, 0, 2) == tuple(made[2:])
        assert await prices.gpus(store, HOUR + 1) == ("4090",)
        assert await prices.gpus(store, HOUR + HOUR_MS) == ()


async def test_hours_become_days_and_nothing_is_counted_twice() -> None:
    async with open_store(":memory:", inline) as store:
        asked = ((0, 5), (3, 9), (23, 2), (24, 7))
        for hours, price in asked:
            await prices.note(store, [row(ALICE, DAY + hours * HOUR_MS, price)])
        await tidy(store, DAY + 2 * DAY_MS - 1 + KEEP_HOURS_MS)
        await tidy(store, DAY + 2 * DAY_MS - 1 + KEEP_HOURS_MS)
        day, hour = await prices.history(store, "provider", ALICE, 0, ALL)
        assert (day.start_ms, day.span_ms) == (DAY, DAY_MS)
        assert (day.open, day.high, day.low, day.close) == (5, 9, 2, 2)
        assert hour == row(ALICE, DAY + DAY_MS, 7)
        await tidy(store, DAY + 3 * DAY_MS + KEEP_HOURS_MS)
        assert [one.span_ms for one in await prices.history(store, "provider", ALICE, 0, ALL)] == [DAY_MS] * 2


async def test_the_oldest_providers_make_room() -> None:
    async with open_store(":memory:", inline) as store:
        await prices.note(store, [row(bytes([n]) * 32, HOUR + n * HOUR_MS, n) for n in range(9)])
        await prices.note(store, [row(b"4090", HOUR, 8, "gpu")])
        assert await prices.forget(store, 0, most=4) == 5
        assert len(await prices.newest(store)) == 4
        assert await prices.gpus(store, 0) == ("4090",)


# --- the verb ---------------------------------------------------------------------------------


def closes(series: PriceSeriesView) -> list[int]:
    return [span.close_qu for span in series.spans]


def consider(world: World, who: str, name: str, price: int, sequence_at: int, vram: str = "RTX_4090") -> None:
    key = NodeKey(name.encode().ljust(32, b"."))
    made = entry(key, name=name, price=price, gpus=(card(),), gpu_class=vram, at=sequence_at)
    book = world.people[who].up.offers.book
    assert book.consider(made.raw, now_ms(), key.public) is Verdict.ACCEPT


async def written(store: Store) -> int:
    return int((await store.read(lambda db: db.execute("SELECT count(*) FROM prices").fetchone()))[0])


async def test_a_daemon_notes_and_tells(tmp_path: Path, autojump_clock: Clock) -> None:
    async with World(tmp_path) as world:
        anna = await world.start("anna", provider=True, price=3_000_000)
        bob = await world.start("bob")
        await world.until_offered(bob, 1)
        async with open_control(bob.up) as path, front_end(path) as front:
            before: PricesView = await front.ask("prices", provider="anna", gpu="cpu")
            assert [closes(one) for one in before.series] == [[3_000_000], [3_000_000]]
            assert before.series[0].peer_id == peer_id_of(anna.peer) and before.series[1].gpu == "CPU"
            assert await written(bob.up.parts.store) == 0
            await trio.sleep(FIRST_LOOK_SECONDS + 1)
            assert await written(bob.up.parts.store) == 2
            await trio.sleep(2 * LOOK_SECONDS)
            after: PricesView = await front.ask("prices")
            assert [one.gpu for one in after.series] == ["CPU"] and after.series[0].spans[-1].offers == 1
            with pytest.raises(Failed, match="no provider known here"):
                await front.ask("prices", provider="nobody")
            with pytest.raises(Failed, match="no name of a GPU"):
                await front.ask("prices", gpu="--")


async def test_every_memory_size_of_a_model_and_a_class_nobody_knows(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with World(tmp_path) as world:
        bob = await world.start("bob")
        for name, gpu in (("small", "A100_40GB"), ("large", "A100_80GB"), ("odd", "Odd Card\x1b[2J")):
            consider(world, "bob", name, 500, now_ms(), gpu)
        async with open_control(bob.up) as path, front_end(path) as front:
            view: PricesView = await front.ask("prices", gpu="a100")
            assert {one.gpu for one in view.series} == {"A100_40GB", "A100_80GB"}
            view = await front.ask("prices", gpu="A100 80GB")
            assert [one.gpu for one in view.series] == ["A100_80GB"]
            view = await front.ask("prices")
            assert {one.gpu for one in view.series} == {"A100_40GB", "A100_80GB", "oddcard2j"}


# --- the list, page by page -------------------------------------------------------------------


async def test_the_market_is_read_page_by_page(tmp_path: Path, autojump_clock: Clock) -> None:
    async with World(tmp_path) as world:
        bob = await world.start("bob")
        for number in range(7):
            consider(world, "bob", f"rig{number}", 500 + number, now_ms())
        async with open_control(bob.up) as path, front_end(path) as front:
            pages = [
                await front.ask("market", sort="price", limit=3, after=after, brief=True)
                for after in (0, 3, 6, 9)
            ]
            assert [[offer.name for offer in page.offers] for page in pages] == [
                ["rig0", "rig1", "rig2"], ["rig3", "rig4", "rig5"], ["rig6"], [],
            ]  # fmt: skip
            assert {page.total for page in pages} == {7}
            assert pages[0].offers[0].score is None
            with pytest.raises(Failed, match="page by page"):
                await front.ask("market", after=3)
