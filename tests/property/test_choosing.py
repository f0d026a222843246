"""What the index helps to choose is what looking at every offer would choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.store import inline, open_store
from protocol import query, signing
from protocol.all_in import all_in
from protocol.images import image_tag
from protocol.jobspec import parse
from protocol.messages import Wish
from protocol.query import SortKey, parse_filter
from protocol.signing import NodeKey
from protocol.units import PeerKey, UnixMs
from qubixd import choosing
from qubixd.book import OfferBook
from qubixd.choosing import Candidate, Chooser, rank
from qubixd.demand import Demand, fits
from qubixd.hiring import demand_of
from qubixd.standing import Standings
from tests.support.market_values import card, entry

NOW = UnixMs(1_000)
KEYS = [NodeKey(bytes([number]) * 32) for number in range(1, 25)]
IMAGE = "test:1"
JOB = "resources: {{image: '{image}', gpu: RTX4090, cpus: 4, disk: 100GB}}\nrun: x\n{extra}"
WISHES = ["", "max_price: 120", "region: eu", "filter: cpus>=5 price<=100"]
ORDERS = ["order_by: -price", "order_by: cpus,-disk"]
DISKS = [204_800] * 5 + [51_200]
MODELS = ["RTX 4090"] * 5 + ["A100"]
small_pages = patch.object(choosing, "PAGE", 4)


@st.composite
def books(draw: st.DrawFn) -> OfferBook:
    book = OfferBook("devnet", 28)
    for number, key in enumerate(KEYS[: draw(st.integers(0, len(KEYS)))]):
        made = entry(
            key,
            name=f"p{number}",
            region=draw(st.sampled_from(["eu", "us"])),
            price=draw(st.integers(0, 150)),
            storage=draw(st.sampled_from([0, 500, 2_000])),
            gpus=(card(draw(st.sampled_from(MODELS)), number=number),),
            sizes=(
                draw(st.sampled_from([8_000, 4_000, 6_000, 3_000])),
                32_768,
                draw(st.sampled_from(DISKS)),
            ),
            layers=(image_tag(IMAGE),) if draw(st.booleans()) else (),
        )
        assert book.take(signing.opened(made.raw), NOW).value == "accept"
    return book


async def no_image(name: str) -> None: ...


async def no_scores(providers: Sequence[PeerKey]) -> dict[PeerKey, Any]:
    return {}


def chooser(book: OfferBook, own: PeerKey = KEYS[3].public) -> Chooser:
    standing = Standings(None)  # type: ignore[arg-type]  # nothing is written
    wire: Any = None
    return Chooser(book, wire, own, standing, no_scores, no_image, lambda: NOW)


def demanded(extra: str) -> tuple[Demand, tuple[SortKey, ...]]:
    job = parse(JOB.format(image=IMAGE, extra=extra))
    return demand_of(job, None, ""), job.choice.order


@settings(max_examples=80)
@given(books(), st.sampled_from([*WISHES, *ORDERS]), st.integers(1, 8))
def test_the_best_of_all_that_fit(book: OfferBook, extra: str, most: int) -> None:
    some, (demand, order) = chooser(book), demanded(extra)
    with small_pages:
        found = trio.run(some.candidates, demand, order, IMAGE, most)
    everybody = [some.look(entry) for entry in book.entries(NOW) if entry.provider != some.own]
    named = (IMAGE, None)
    fitting = [some.candidate(one, demand.wish, named) for one in everybody if fits(one, demand)]
    best = sorted(fitting, key=lambda one: rank(one, order))[:most]
    # Where several are equal and the page ends among them, any of them may be there.
    keys = [[(query.order(order, one.seen.values), one.weight) for one in some] for some in (found, best)]
    assert (keys[0] == keys[1]) if not order else [k[0] for k in keys[0]] == [k[0] for k in keys[1]]
    assert set(names(found)) <= set(names(fitting)) and len(set(names(found))) == len(found)


def names(some: Sequence[Candidate]) -> list[str]:
    return [one.entry.offer.name for one in some]


@settings(max_examples=80)
@given(books(), st.sampled_from(["", "region=eu", "cpus>=8"]), st.integers(1, 8))
def test_the_cheapest_all_in(book: OfferBook, where: str, limit: int) -> None:
    wish = Wish("", 0, 0, 0, 0, 102_400)
    with small_pages:
        page = trio.run(chooser(book).cheapest, parse_filter(where), wish, limit)
    matching = book.query(parse_filter(where), (), 1_000, NOW)
    best = sorted(all_in(one.offer, wish) for one in matching.entries)
    assert [all_in(one.offer, wish) for one in page.entries] == best[:limit]
    assert page.total == len(best) == matching.total


@pytest.mark.parametrize("most", [1_000, 10])
def test_of_very_many_the_cheapest_and_those_whose_machine_would_do(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "MAX_LOOKED", most)
    monkeypatch.setattr(choosing, "LOOKED_PAGE", 5)
    book = OfferBook("devnet", 28)
    for number, key in enumerate(KEYS):
        gpus = (card(number=number),) if number % 4 == 0 else ()
        book.take(signing.opened(entry(key, name=f"p{number}", price=number // 6, gpus=gpus).raw), NOW)
    seen, total = trio.run(chooser(book).everybody, demanded("")[0])
    assert total == len(KEYS) - 1
    cheapest = {one.entry.offer.name for one in seen}
    if most > len(KEYS):
        assert len(seen) == total
    else:
        assert {"p0", "p4", "p8", "p12", "p16"} <= cheapest, "those whose machine would do"
        others = cheapest - {"p0", "p4", "p8", "p12", "p16"}
        assert others <= {"p1", "p2", "p5"} and len(others) >= 2, "the cheapest of all; p3 is this node"


async def test_standings_are_read_from_the_ledger(tmp_path: Path) -> None:
    async with open_store(tmp_path / "ledger.sqlite", inline) as store:
        standing = Standings(store)
        await standing.deny(KEYS[0].public, "it lied", NOW)
        await standing.failed(KEYS[1].public, "net.peer_unreachable", NOW)
        some = replace(chooser(OfferBook("devnet", 28)), standing=standing)
        denied, failed = (some.barred(key.public, NOW) for key in KEYS[:2])
        assert denied and (denied.code, denied.seconds) == ("denied", 0) and "it lied" in denied.sentence
        assert failed and (failed.code, failed.seconds) == ("backed_off", 60)
        assert some.barred(KEYS[2].public, NOW) is None
