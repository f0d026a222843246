"""Whatever happens to a book, its mirror ends with the book's live offers, and so do its readers.

Offers come, change, are withdrawn, fall silent, live again, are scored and are driven out by others; the
mirror ends in the middle of it and begins again, and its readers look when they like.
"""

from __future__ import annotations

import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.mirror_schema import NAMES, NUMBERS
from protocol.units import UnixMs
from qubixd import book_facts
from qubixd.book import ALIVE_MS, OfferBook
from tests.support.crowd import peer, sighting, take
from tests.support.deals import CONTRACT, NETWORK, NOW
from tests.support.mirrors import Follower, live, mirroring, rows

NAMES_OF_PROVIDERS = [f"rig-{number}" for number in range(8)]
PLACES = 6
"""Fewer than there are providers, so that some drive others out."""
names = st.sampled_from(NAMES_OF_PROVIDERS)
steps = st.one_of(
    st.tuples(st.just("offer"), names, st.integers(1, 60)),
    st.tuples(st.just("withdraw"), names, st.just(0)),
    st.tuples(st.just("alive"), names, st.integers(0, 90)),
    st.tuples(st.just("score"), names, st.integers(0, 100)),
    st.tuples(st.just("wait"), st.just(""), st.sampled_from([1, 20, ALIVE_MS // 1_000, 4_000])),
    st.tuples(st.just("read"), st.just(""), st.just(0)),
    st.tuples(st.just("restart"), st.just(""), st.integers(0, 100)),
)


class Life:
    """A book, its mirror's file, and two readers: one looks every time, one when it likes."""

    def __init__(self, path: Path) -> None:
        self.path, self.passed = path, 0.0
        self.begin()
        self.often, self.seldom = Follower(path), Follower(path)
        self.sequence = 0

    def begin(self) -> None:
        """The daemon itself starts, and knows nobody."""
        self.book = OfferBook(NETWORK, CONTRACT, places=PLACES, lots=random.Random(1))

    def now(self) -> UnixMs:
        return UnixMs(int(NOW + 1_000 * (trio.current_time() - self.passed)))

    async def wait(self, seconds: float) -> None:
        """As the offer service does, sweep every second or (nobody looks) at the end."""
        await trio.sleep(seconds)
        self.book.sweep(self.now())

    async def step(self, kind: str, name: str, number: int) -> None:
        self.sequence += 1
        now, who = self.now(), peer(name)
        match kind:
            case "wait":
                await self.wait(number)
            case "read":
                self.seldom.follow()
            case "restart" if number < 50:
                self.begin()
            case "offer":
                take(self.book, name, now, sequence=self.sequence, price_qu_per_hour=number)
            case "withdraw":
                take(self.book, name, now, sequence=self.sequence, withdrawn=True)
            case "alive":
                self.book.heard(sighting(name, number), now)
            case "score":
                self.book.measure(who, score=number / 100, reliability=0.5)

    def check(self) -> None:
        expected = {entry.provider: entry.raw for entry in self.book.entries(self.now())}
        assert live(self.path) == expected
        assert self.often.live == expected
        for one in self.often.held.values():
            entry = self.book.get(one["peer"], self.now())
            assert entry is not None
            assert {field: one[field] for field in (*NUMBERS, *NAMES)} == self.facts(entry)

    def facts(self, entry: Any) -> dict[str, object]:
        """As the book would be searched."""
        (sight,) = self.book.sights([entry.provider])
        numbers = book_facts.steps_of(entry.offer, sight.measured)
        found = dict(zip(book_facts.NUMBERS, numbers, strict=True))
        del found["rtt"]
        return found | dict(zip(book_facts.NAMES, book_facts.names_of(entry.offer), strict=True))


AWAY = 3
"""Steps that nobody mirrors, at a restart."""


async def live_through(life: Life, plan: list[tuple[str, str, int]]) -> None:
    life.passed, left = trio.current_time(), [*plan, ("read", "", 0)]
    while left:
        async with mirroring(life.path, life.book, life.now):
            await trio.testing.wait_all_tasks_blocked()
            life.check()
            while left and left[0][0] != "restart":
                await life.step(*left.pop(0))
                await life.wait(1.1)
                await trio.sleep(1.1)
                life.book.sweep(life.now())
                life.check()
        away, left = left[: AWAY + 1], left[AWAY + 1 :]
        for step in away:
            await life.step(*step)
    assert life.seldom.live == life.often.live


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, min_size=1, max_size=25))
def test_a_mirror_and_its_readers_end_with_the_books_live_offers(plan: list[tuple[str, str, int]]) -> None:
    with TemporaryDirectory() as folder:
        life = Life(Path(folder) / "mirror.db")
        trio.run(live_through, life, plan, clock=trio.testing.MockClock(autojump_threshold=0))
        changes = [change for (change,) in rows(life.path, "SELECT change FROM offers")]
        assert len(set(changes)) == len(changes)
