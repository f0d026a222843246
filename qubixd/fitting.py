"""The fittest offers for a use out of a book of any size, looking at few of them.

Offers are split into groups whose best possible speed is known beforehand: by model of card and, where it
matters, by whether the rest of the machine is enough. A group comes cheapest first, so no offer behind the
last one seen can be worth more than that speed for that price. The group that promises most goes on, until
none can bring anything better than what is found (a threshold search). The loop is given to others after
each query.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Final

import trio

from protocol import fitness
from protocol.all_in import candidate
from protocol.catalogue import CPU_CLASS, GPUS, UseCase
from protocol.fitness import Candidate, Ranked
from protocol.messages import Wish
from protocol.query import Condition, Filter, SortKey, gpu_key
from protocol.units import PeerKey, UnixMs
from qubixd.book import Entry, OfferBook

FIRST_PAGE: Final = 8
PAGE: Final = 50
MAX_PAGES: Final = 60
"""Beyond the first of each group. A crowd of like offers cannot keep somebody waiting who asks: then the
order is that of the ones seen."""
MAX_CARDS: Final = 16
"""Of one machine, as messages allow."""
BY_PRICE: Final = (SortKey("price"),)
_KEYS: Final = {name: gpu_key(name) for name in GPUS if name != CPU_CLASS}
_BANDS: Final = {"cpu": "cpus", "memory": "ram"}
"""What a use calls enough of -> the field of filters."""


@dataclass(frozen=True)
class Fitting:
    """The best in order, and how many have room at all."""

    found: tuple[tuple[Entry, Ranked], ...]
    total: int


@dataclass(frozen=True)
class _Seen:
    entry: Entry
    candidate: Candidate
    value: float


@dataclass
class _Group:
    conditions: Filter
    best_speed: float
    seen: dict[PeerKey, _Seen] = field(default_factory=dict)
    total: int = 0
    after: int | None = 0
    dearest: int = 0
    """What the last machine seen costs at least."""

    @property
    def promise(self) -> float:
        """No offer not yet seen has more speed per QU."""
        return -1.0 if self.after is None else self.best_speed / max(1, self.dearest)


async def fittest(
    book: OfferBook, where: Filter, use: UseCase, wish: Wish, limit: int, now_ms: Callable[[], UnixMs]
) -> Fitting:
    """The `limit` best live offers of those that match a filter."""

    all_like = use.splits and use.min_vram_gib > 0  # then a group's machines have as many cards each

    async def look(group: _Group, size: int) -> None:
        page = book.query(group.conditions, BY_PRICE, size, now_ms(), group.after)
        for entry in page.entries:
            one = candidate(entry.provider, entry.offer, wish, use)
            group.seen[entry.provider] = _Seen(entry, one, fitness.value(one, use))
            group.dearest = entry.offer.price_qu_per_hour * (one.gpus if all_like else 1)
        group.total, group.after = page.total, page.next
        await trio.lowlevel.checkpoint()

    groups = [_Group(Filter((*where.conditions, *more)), speed) for more, speed in _split(use)]
    for group in groups:
        await look(group, FIRST_PAGE)
    for _ in range(MAX_PAGES):
        best = max(groups, key=lambda group: group.promise)
        if best.promise <= _threshold(groups, limit):
            break
        await look(best, PAGE)
    seen = {key: one for group in groups for key, one in group.seen.items()}
    ranked = fitness.rank((one.candidate for one in seen.values()), use, limit)
    found = tuple((seen[PeerKey(one.candidate.key)].entry, one) for one in ranked)
    return Fitting(found, sum(group.total for group in groups))


def _threshold(groups: list[_Group], limit: int) -> float:
    """Value of the last that would be shown now; below every promise but the empty while there are too
    few."""
    values = (one.value for group in groups for one in group.seen.values() if one.value)
    best = heapq.nlargest(limit, values)
    return best[-1] if len(best) == limit > 0 else -0.5


def _split(use: UseCase) -> Iterator[tuple[tuple[Condition, ...], float]]:
    """Conditions of groups that no offer is in two of, with the best speed there may be in each."""
    for rest, cards, (model, speed) in product(_rests(use), _cards(use), _models(use)):
        yield (*rest, *cards, *model), speed


def _rests(use: UseCase) -> list[tuple[Condition, ...]]:
    """By whether the machine's cores and memory are enough, if they are weighed."""
    enough = [(name, use.enough[figure]) for figure, name in _BANDS.items() if figure in use.weights]
    above = [Condition(name, ">=", (amount,)) for name, amount in enough]
    below = [Condition(name, "<", (amount,)) for name, amount in enough]
    return [(*above[:place], lacking) for place, lacking in enumerate(below)] + [tuple(above)]


def _cards(use: UseCase) -> list[tuple[Condition, ...]]:
    """By the number of cards, if their memory adds up; and with room."""
    if use.min_vram_gib == 0:
        return [()]
    if not use.splits:
        return [(Condition("vram", ">=", (use.min_vram_gib,)),)]
    return [
        (Condition("gpus", "=", (count,)), Condition("vram", ">=", (use.min_vram_gib / count,)))
        for count in range(1, MAX_CARDS + 1)
    ]


def _models(use: UseCase) -> list[tuple[tuple[Condition, ...], float]]:
    if use.min_vram_gib == 0:
        return [((), 1.0)]
    others = tuple(Condition("gpu", "!=", (key,)) for key in _KEYS.values())
    listed = [
        ((Condition("gpu", "=", (key,)),), fitness.best_speed(name, use)) for name, key in _KEYS.items()
    ]
    return [*listed, (others, fitness.best_speed("", use))]
