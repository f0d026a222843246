"""The market over the control socket: one daemon asks, others offer, and every answer has its shape."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio.testing

from protocol.control_market import DirectoriesView, MarketView, OfferView, ScoreView, WhyView
from protocol.signing import NodeKey
from qubixd.control import open_control
from qubixd.wire import Verdict
from qubixd.wire_libp2p import peer_id_of
from tests.support.front_end import Failed, FrontEnd, front_end
from tests.support.market_values import card, entry
from tests.support.world import World
from tests.support.world_jobs import job, now_ms

Clock = trio.testing.MockClock
PRICES = {"anna": 3_000_000, "carl": 3_600_000, "dora": 4_000_000}


@asynccontextmanager
async def asking(root: Path) -> AsyncIterator[tuple[World, FrontEnd]]:
    """A front end of bob's daemon, which knows three providers."""
    async with World(root) as world:
        for name, price in PRICES.items():
            await world.start(name, provider=True, price=price, region="eu" if name < "c" else "us")
        bob = await world.start("bob")
        await world.until_offered(bob, len(PRICES))
        async with open_control(bob.up) as path, front_end(path) as front:
            yield world, front


def names(view: MarketView) -> list[str]:
    return [offer.name for offer in view.offers]


async def test_filter_sort_limit(tmp_path: Path, autojump_clock: Clock) -> None:
    async with asking(tmp_path) as (_, front):
        view: MarketView = await front.ask("market")
        assert names(view) == list(PRICES) and (view.total, view.known) == (3, 3)
        assert view.peers == 3 and view.order == "price all in" and view.use_case is None
        view = await front.ask("market", filter="region=us", limit=1)
        assert (names(view), view.total, view.known) == (["carl"], 2, 3)
        view = await front.ask("market", filter="region in (us, eu) and price>=3000001", sort="-price")
        assert names(view) == ["dora", "carl"] and view.order == "price, most first"
        assert (await front.ask("market", gpu="RTX 4090")).offers == []
        assert names(await front.ask("market", gpu="c p-u")) == list(PRICES)
        runner = (await front.ask("market", limit=1)).offers[0].runner
        view = await front.ask("market", filter=f"runner={runner} price<=4M")
        assert names(view) == list(PRICES) and view.unmet == []
        view = await front.ask("market", filter="runner=elsewhere price<=4M region=eu")
        assert view.offers == [] and view.unmet == ["runner=elsewhere"]
        view = await front.ask("market", filter="region=us price<=3M")
        assert view.offers == [] and view.unmet == []


async def test_what_is_told_of_an_offer(tmp_path: Path, autojump_clock: Clock) -> None:
    async with asking(tmp_path) as (world, front):
        anna = world.people["anna"]
        await anna.up.offers.publish()
        view: MarketView = await front.ask("market", measure=True, image="test:1", disk_mib=1 << 20, limit=1)
        (offer,) = view.offers
        assert isinstance(offer, OfferView)
        assert offer.peer_id == peer_id_of(anna.peer) and not offer.own
        assert offer.all_in_qu_per_hour == offer.price_qu_per_hour + offer.storage_qu_per_tib_hour
        assert offer.rtt_ms is not None and offer.start_s is not None
        assert offer.newcomer and offer.score is not None and offer.score < 0.5
        assert offer.shared_gpu_with == offer.missing_at == [] and offer.not_hired == ""


async def test_a_use_case_has_words_and_excludes_a_sort(tmp_path: Path, autojump_clock: Clock) -> None:
    async with asking(tmp_path) as (_, front):
        view: MarketView = await front.ask("market", use_case="sdxl")
        assert view.offers == [] and view.use_case is not None and view.use_case.min_vram_gib > 0
        view = await front.ask("market", use_case="docker")
        assert view.offers and all(offer.reasons for offer in view.offers)
        paged = [await front.ask("market", use_case="docker", limit=1, after=page) for page in range(4)]
        assert [name for page in paged for name in names(page)] == names(view)
        assert {page.total for page in paged} == {3}
        with pytest.raises(Failed, match="the first 10,000"):
            await front.ask("market", use_case="docker", after=10_001)
        with pytest.raises(Failed, match="give one of them"):
            await front.ask("market", use_case="docker", sort="price")


async def test_a_card_offered_twice_and_an_offer_that_a_directory_hides(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with asking(tmp_path) as (world, front):
        book = world.people["bob"].up.offers.book
        honest, liar, seen_by, hidden_by = (NodeKey(bytes([number]) * 32) for number in range(4))
        book.choose([seen_by.public, hidden_by.public])
        for key, name, price in ((honest, "honest", 12_000), (liar, "liar", 9_000)):
            made = entry(key, name=name, price=price, gpus=(card(),), at=now_ms())
            assert book.consider(made.raw, now_ms(), seen_by.public) is Verdict.ACCEPT
        view: MarketView = await front.ask("market", use_case="sdxl")
        assert names(view) == ["liar", "honest"] and all(offer.reasons for offer in view.offers)
        first = view.offers[0]
        assert first.shared_gpu_with == [f"honest ({peer_id_of(honest.public)})"]
        assert first.missing_at == [peer_id_of(hidden_by.public)]
        shown = {one.peer_id: (one.offers, one.missing) for one in view.directories}
        assert shown[peer_id_of(seen_by.public)][0] == 2
        assert shown[peer_id_of(hidden_by.public)][0] == 0
        assert (await front.ask("directories")).directories == view.directories
        assert names(await front.ask("market", gpu="NVIDIA GeForce RTX 4090", filter="vram>=24")) == names(
            view
        )


WRONG: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "no field": ("market", {"filter": "vrom>=24"}, "query.invalid", "did you mean vram?\n  vrom>=24\n  ^"),
    "no value": ("market", {"filter": "vram>="}, "query.invalid", "\n        ^"),
    "no sort key": ("market", {"sort": "beauty"}, "query.invalid", "no field is called"),
    "no use": ("market", {"use_case": "knitting"}, "usage.error", "no use case known"),
    "no GPU": ("market", {"gpu": "--"}, "usage.error", "no name of a GPU"),
    "nobody": ("score", {"provider": "zoe"}, "not_found", "no provider known here is called 'zoe'"),
    "nobody to deny": ("deny", {"add": "zoe"}, "not_found", "zoe"),
    "nothing failed yet": ("why", {}, "not_found", "name a job file"),
    "no job file": ("why", {"job_yaml": "x"}, "job.invalid", "line 1"),
    "no condition": ("why", {"job_yaml": job(), "where": "x"}, "query.invalid", "no field"),
}


@pytest.mark.parametrize(("verb", "args", "code", "sentence"), WRONG.values(), ids=WRONG)
async def test_what_cannot_be_answered(
    tmp_path: Path, autojump_clock: Clock, verb: str, args: dict[str, Any], code: str, sentence: str
) -> None:
    async with asking(tmp_path) as (_, front):
        with pytest.raises(Failed) as failed:
            await front.ask(verb, **args)
        assert failed.value.code == code and sentence in failed.value.body["message"]
        assert failed.value.body["exit_code"] in (2, 3)


async def test_why_score_deny_and_directories(tmp_path: Path, autojump_clock: Clock) -> None:
    async with asking(tmp_path) as (world, front):
        view: WhyView = await front.ask("why", job_yaml=job(), max_price_qu_per_hour=2_900_000)
        assert (view.known, view.fitting) == (3, 0)
        assert view.changes[0].fields == {"max_price": "3000000"} and view.changes[0].providers == 1
        with pytest.raises(Failed, match=r"cheapest offer that fits asks 3,000,000"):
            args = {"job_yaml": job(), "base_dir": str(world.root), "output_dir": str(world.root / "o")}
            await front.ask("run", **args, max_price_qu_per_hour=2_900_000)
        assert (await front.ask("why")).groups == view.groups
        score: ScoreView = await front.ask("score", provider="anna")
        assert score.newcomer and score.evidence == "" and score.reasons
        denied = (await front.ask("deny", add="anna")).denied
        assert [(one.name, one.reason, one.until_ms) for one in denied] == [("anna", "denied", 0)]
        assert (await front.ask("deny")).denied == denied
        assert (await front.ask("deny", remove="anna")).denied == []
        assert await front.ask("directories") == DirectoriesView([])


async def test_a_run_takes_conditions_and_an_order(tmp_path: Path, autojump_clock: Clock) -> None:
    async with asking(tmp_path) as (world, front):
        args = {"job_yaml": job(seconds=1), "base_dir": str(world.root), "output_dir": str(world.root / "o")}
        events, last = await front.follow("run", **args, where="region=us", order_by="-price")
        assert last.lease.peer_id == peer_id_of(world.people["dora"].peer)
        asked = next(event.detail for event in events if event.phase == "quoting")
        assert asked.startswith("asking dora: 4,000,000 QU/h all in, image is there; carl: 3,600,000 QU/h")
        with pytest.raises(Failed, match="no field is called"):
            await front.ask("run", **args, where="colour=red")
