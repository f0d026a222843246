"""Choosing: from all that is known of the market to the providers that could take a job, best first.

The book's index does the coarse work; what is left is looked at one by one. Scores and round trips are
learnt only where a choice hangs on them, of the first that else fit, and kept in the book.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Final

import trio

from protocol import query
from protocol.all_in import all_in
from protocol.errors import QubixError
from protocol.images import LocalImage, estimated_start_s
from protocol.messages import Wish
from protocol.query import Condition, Filter, SortKey, Values
from protocol.score import NEWCOMER, Score
from protocol.units import PeerKey, Qu, Seconds, UnixMs
from qubixd.book import Entry, OfferBook, Page
from qubixd.demand import Barred, Demand, Seen, fits
from qubixd.standing import Standings
from qubixd.wire import Wire

PAGE: Final = 128
"""Offers looked at before others have a turn."""
LOOKED_PAGE: Final = 512
"""The same, where there are many pages."""
MEASURED_AT_ONCE: Final = 16
MEASURE_SECONDS: Final = 2.0
"""How many round trips are measured together, and how long that may take."""
MAX_LEARNT: Final = 64
"""Providers whose score or round trip is learnt for one choice."""
WAIT_SECONDS_PER_PRICE: Final = 6_000
"""So long a wait for an image counts like the price once more: a minute is one percent."""
MAX_LOOKED: Final = 20_000
"""Offers that are looked at one by one to say why none fits."""
LEARNT: Final = frozenset({"score", "reliability", "rtt"})
BY_PRICE: Final = (SortKey("price"),)
BETTER_THAN_NEW: Final = Condition("score", ">", (NEWCOMER.g,))

ImageHere = Callable[[str], Awaitable[LocalImage | None]]
"""What this machine's own engine knows of an image."""
Image = tuple[str, LocalImage | None]
"""An image's name and what is known of it here."""
Scores = Callable[[Sequence[PeerKey]], Awaitable[Mapping[PeerKey, Score]]]
"""Computes what is not known yet and keeps it in the book."""


@dataclass(frozen=True)
class Candidate:
    """A provider whose offer fits."""

    seen: Seen
    all_in: Qu
    start: Seconds
    """Estimate, with the job's image."""

    @property
    def entry(self) -> Entry:
        return self.seen.entry

    @property
    def weight(self) -> int:
        """The price, dearer by one percent for each minute of waiting."""
        return self.all_in * (WAIT_SECONDS_PER_PRICE + self.start)


@dataclass(frozen=True)
class Chooser:
    book: OfferBook
    wire: Wire
    own: PeerKey
    standing: Standings
    scores: Scores
    image_here: ImageHere
    now_ms: Callable[[], UnixMs]

    async def candidates(
        self, demand: Demand, order: Sequence[SortKey], image: str, most: int
    ) -> list[Candidate]:
        """The best that fit, best first: by `order`, then by price and waiting."""
        named = (image, await self.image_here(image))
        used = {key.field for key in order} | {condition.field for condition in demand.conditions}
        if not used & LEARNT:
            return await self._nearest(demand, order, named, most)
        known = tuple(one for one in demand.conditions if one.field not in LEARNT)
        unknown = replace(demand, conditions=known)
        nearest = await self._nearest(unknown, (), named, MAX_LEARNT)
        await self.learn([one.entry for one in nearest], used)
        again = (self.candidate(self.look(one.entry), demand.wish, named) for one in nearest)
        fitting = [one for one in again if fits(one.seen, demand)]
        return sorted(fitting, key=lambda one: rank(one, order))[:most]

    async def trusted(
        self, demand: Demand, order: Sequence[SortKey], image: str, most: int
    ) -> list[Candidate]:
        """The best that fit of those known to be better than newcomers, best first."""
        known = replace(demand, conditions=(*demand.conditions, BETTER_THAN_NEW))
        return await self._nearest(known, order, (image, await self.image_here(image)), most)

    async def cheapest(self, where: Filter, wish: Wish, limit: int) -> Page:
        """The cheapest offers, all in, of all that match: each page's machines cost no less than those of
        the page before, and no all-in price is below its machine's."""
        best: list[tuple[Qu, PeerKey, Entry, Values]] = []
        after: int | None = 0
        total = 0
        while after is not None:
            page = self.book.query(where, BY_PRICE, max(PAGE, limit), self.now_ms(), after)
            best += [
                (all_in(entry.offer, wish), entry.provider, entry, values)
                for entry, values in zip(page.entries, page.values, strict=True)
            ]
            best = sorted(best, key=itemgetter(0, 1))[:limit]
            after, total = page.next, page.total
            if len(best) == limit and page.entries[-1].offer.price_qu_per_hour >= best[-1][0]:
                break
            await trio.lowlevel.checkpoint()
        return Page(tuple(one[2] for one in best), tuple(one[3] for one in best), total, None)

    async def learn(self, entries: Sequence[Entry], fields: set[str]) -> None:
        """Score and round trip of these providers, as far as they are wanted."""
        async with trio.open_nursery() as nursery:
            if "rtt" in fields:
                nursery.start_soon(self.measure, entries)
            if fields & {"score", "reliability"}:
                nursery.start_soon(self.scores, [entry.provider for entry in entries])

    async def measure(self, entries: Sequence[Entry]) -> None:
        """Round trips to those whose is not known, some at a time and not for long."""
        now, free = self.now_ms(), trio.CapacityLimiter(MEASURED_AT_ONCE)
        unknown = [one for one in entries if self.book.values(one, now).get("rtt") is None]
        with trio.move_on_after(MEASURE_SECONDS * (1 + len(unknown) // MEASURED_AT_ONCE)):
            async with trio.open_nursery() as nursery:
                for entry in unknown:
                    nursery.start_soon(self._measure, entry, free)

    async def _measure(self, entry: Entry, free: trio.CapacityLimiter) -> None:
        async with free:
            with trio.move_on_after(MEASURE_SECONDS):
                try:
                    seconds = await self.wire.round_trip(entry.provider, entry.offer.addresses)
                except QubixError:
                    return
                self.book.measure(entry.provider, rtt_ms=seconds * 1_000)

    async def _nearest(
        self, demand: Demand, order: Sequence[SortKey], image: Image, most: int
    ) -> list[Candidate]:
        """No offer behind the last page can be better: none is cheaper than its machine."""
        best: list[Candidate] = []
        where, sort = Filter((*demand.conditions, *_as_conditions(demand))), tuple(order) or BY_PRICE
        after: int | None = 0
        while after is not None:
            page = self.book.query(where, sort, PAGE, self.now_ms(), after)
            seen = (self.look(entry) for entry in page.entries if entry.provider != self.own)
            best += (self.candidate(one, demand.wish, image) for one in seen if fits(one, demand))
            best = sorted(best, key=lambda one: rank(one, order))[:most]
            after = page.next
            if len(best) == most and (order or _too_dear(page.entries[-1], best[-1])):
                break
            await trio.lowlevel.checkpoint()
        return best

    def look(self, entry: Entry) -> Seen:
        """All that is known here of a provider."""
        now = self.now_ms()
        return Seen(entry, self.book.values(entry, now), self.barred(entry.provider, now))

    def barred(self, provider: PeerKey, now: UnixMs) -> Barred | None:
        """Whether it is denied or has failed lately."""
        why = self.standing.allowed(provider, now)
        if why is None:
            return None
        one = self.standing.of(provider, now)
        if one.denied:
            return Barred("denied", why)
        return Barred("backed_off", why, max(1, -(-(one.until_ms - now) // 1_000)))

    async def everybody(self, demand: Demand) -> tuple[list[Seen], int]:
        """The live offers but one's own, and how many there are. Of more than MAX_LOOKED half are the
        cheapest of all and half the cheapest whose machine would do: what could be changed is among them."""
        found: dict[PeerKey, Seen] = {}
        machine = Filter(tuple(one for one in _as_conditions(demand) if one.field != "price"))
        total = await self._collect(found, Filter(), MAX_LOOKED)
        if total > MAX_LOOKED:
            found.clear()
            for where in (machine, Filter()):
                await self._collect(found, where, MAX_LOOKED // 2)
        mine = found.pop(self.own, None) or self.book.get(self.own, self.now_ms())
        return list(found.values()), total - (mine is not None)

    async def _collect(self, found: dict[PeerKey, Seen], where: Filter, most: int) -> int:
        """The cheapest `most` that match; how many do. Others have a turn after each page. A page begins at
        the price where the last one ended, since an index must count its way to a place far behind."""
        price, skip, count, total = 0, 0, 0, 1
        while count < min(most, total):
            now = self.now_ms()
            rest = Filter((*where.conditions, Condition("price", ">=", (price,))))
            page = self.book.query(rest, BY_PRICE, LOOKED_PAGE, now, skip)
            total = total if count else page.total
            if not page.entries or total > most == MAX_LOOKED:
                break
            for entry, values in zip(page.entries, page.values, strict=True):
                found[entry.provider] = Seen(entry, values, self.barred(entry.provider, now))
            count += len(page.entries)
            prices = [entry.offer.price_qu_per_hour for entry in page.entries]
            skip = prices.count(prices[-1]) + (skip if prices[-1] == price else 0)
            price = prices[-1]
            await trio.lowlevel.checkpoint()
        return total

    def candidate(self, seen: Seen, wish: Wish, image: Image) -> Candidate:
        offer = seen.entry.offer
        return Candidate(seen, all_in(offer, wish), estimated_start_s(offer, *image))


def rank(one: Candidate, order: Sequence[SortKey]) -> tuple[object, int, PeerKey]:
    """Sorts the best first."""
    return query.order(order, one.seen.values), one.weight, one.entry.provider


def _too_dear(entry: Entry, last: Candidate) -> bool:
    return entry.offer.price_qu_per_hour * WAIT_SECONDS_PER_PRICE >= last.weight


def _as_conditions(demand: Demand) -> Iterator[Condition]:
    """What an index can tell of a demand; it lets nothing fall that fits."""
    wish = demand.wish
    yield Condition("price", "<=", (demand.max_price,))
    yield Condition("cpus", ">=", (wish.cpu_millis / 1_000,))
    yield Condition("ram", ">=", (wish.memory_mib / 1_024,))
    yield Condition("disk", ">=", (wish.disk_mib / 1_024,))
    if wish.gpu_count:
        yield Condition("gpus", ">=", (wish.gpu_count,))
        yield Condition("vram", ">=", (wish.gpu_vram_mib / 1_024,))
