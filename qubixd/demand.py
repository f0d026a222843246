"""What a caller demands of a provider, whether an offer meets it, and the least change after which it does.

Pure. A change of a demand is simply another Demand; how much a person gives up by it is its cost, which
adds up over what is different: a number costs log2 of its ratio (twice the price, half the memory: 1
each), a condition without numbers, a GPU model or a named provider has a fixed cost, waiting counts 1 for
every ten minutes. See docs/market.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from protocol.all_in import all_in, sold_mib
from protocol.messages import Offer, Wish
from protocol.query import Condition, Filter, Values, matches
from protocol.units import PeerKey, Qu
from qubixd.book import Entry
from qubixd.quotes import gpu_fits, plain
from qubixd.wire_libp2p import peer_id_of

OTHER_COST: Final = 0.5
"""Another model, region or provider than the one that was named."""
DROPPED_COST: Final = 1.0
"""A condition on a number given up altogether, or somebody taken off the deny list."""
WAIT_SECONDS_PER_COST: Final = 600
FILTER: Final = "filter."
"""Before the field's name in the code of an objection that a condition makes."""
MIN_TAIL: Final = 6
"""Characters of the end of a peer id that name a provider."""


@dataclass(frozen=True)
class Barred:
    """Why hiring leaves a provider out for the moment (`seconds` > 0) or until a person says otherwise."""

    code: str
    sentence: str
    seconds: int = 0


@dataclass(frozen=True)
class Seen:
    """All that is known here of one provider."""

    entry: Entry
    values: Values
    """Fields of the filter language."""
    barred: Barred | None = None

    @property
    def name(self) -> str:
        return self.entry.offer.name or self.entry.provider.hex()[:12]


@dataclass(frozen=True)
class Demand:
    wish: Wish
    max_price: Qu
    """All in, per hour."""
    conditions: tuple[Condition, ...] = ()
    provider: str = ""
    """The end or beginning of a peer id, or the beginning of a name; empty = anyone."""
    pardoned: frozenset[PeerKey] = frozenset()
    """Barred for good, but taken all the same."""
    wait_seconds: int = 0
    """Long enough for those barred for a moment."""


def is_named(entry: Entry, provider: str) -> bool:
    """By its name or peer id, or the beginning of one, or the end of its peer id as tables show it."""
    if entry.offer.name.startswith(provider):
        return True
    peer_id, tail = peer_id_of(entry.provider), provider.removeprefix("…")
    return peer_id.startswith(provider) or (len(tail) >= MIN_TAIL and peer_id.endswith(tail))


def objections(seen: Seen, demand: Demand) -> Iterator[str]:
    """A code for everything that speaks against this provider; none if its offer fits."""
    offer, wish = seen.entry.offer, demand.wish
    if demand.provider and not is_named(seen.entry, demand.provider):
        yield "provider"
    yield from _machine_objections(seen, wish)
    if all_in(offer, wish) > demand.max_price:
        yield "price"
    for condition in demand.conditions:
        if not matches(Filter((condition,)), seen.values):
            yield FILTER + condition.field
    if seen.barred and not _let_in(seen, seen.barred, demand):
        yield seen.barred.code


def _machine_objections(seen: Seen, wish: Wish) -> Iterator[str]:
    capacity = seen.entry.offer.capacity
    if gpus := _gpu_objection(seen, wish):
        yield gpus
    yield from image_objections(seen.entry.offer, wish)
    if capacity.cpu_millis < wish.cpu_millis:
        yield "cpus"
    if capacity.memory_mib < wish.memory_mib:
        yield "memory"
    if capacity.disk_mib < wish.disk_mib:
        yield "disk"


def image_objections(offer: Offer, wish: Wish) -> Iterator[str]:
    """What the job's image asks for, or its need of a network, and no change of the demand brings. Offers
    that do not name their processor are taken at their quote."""
    if wish.arch and offer.arch and wish.arch != offer.arch:
        yield "arch"
    if wish.gpu_count and wish.cuda > offer.cuda:
        yield "cuda"
    if wish.internet and not offer.internet:
        yield "internet"


def _gpu_objection(seen: Seen, wish: Wish) -> str:
    offer = seen.entry.offer
    gpus = offer.capacity.gpus
    if sum(gpu_fits(gpu, wish) for gpu in gpus) >= wish.gpu_count:
        return ""
    if not gpus:
        return "gpu_none" if offer.gpu_class == "CPU" else "gpu_busy"
    right = [gpu for gpu in gpus if plain(wish.gpu_model) in plain(gpu.model)]
    if not right:
        return "gpu_model"
    return "gpu_count" if len(right) < wish.gpu_count else "gpu_vram"


def _let_in(seen: Seen, barred: Barred, demand: Demand) -> bool:
    if barred.seconds:
        return barred.seconds <= demand.wait_seconds
    return seen.entry.provider in demand.pardoned


def fits(seen: Seen, demand: Demand) -> bool:
    return next(objections(seen, demand), None) is None


# --- changes ------------------------------------------------------------------------------------


def least_change(seen: Seen, demand: Demand) -> Demand | None:
    """The cheapest demand that this provider meets and that asks for no more; None if there is none."""
    capacity, wish = seen.entry.offer.capacity, demand.wish
    if not (capacity.cpu_millis and capacity.memory_mib and capacity.disk_mib):
        return None
    if any(image_objections(seen.entry.offer, wish)):
        return None
    changes = (_with_gpus(seen, demand, gpus) for gpus in _gpu_changes(seen, wish))
    return min(changes, key=lambda new: cost(demand, new), default=None)


def _with_gpus(seen: Seen, demand: Demand, gpus: Wish) -> Demand:
    """What is left to change when the cards are such. Fewer cards cost less."""
    capacity, wish = seen.entry.offer.capacity, demand.wish
    new = replace(
        gpus,
        cpu_millis=min(wish.cpu_millis, capacity.cpu_millis),
        memory_mib=min(wish.memory_mib, capacity.memory_mib),
        disk_mib=min(wish.disk_mib, capacity.disk_mib),
    )
    barred = seen.barred
    wait = barred.seconds if barred else 0
    return Demand(
        wish=new,
        max_price=max(demand.max_price, all_in(seen.entry.offer, new)),
        conditions=tuple(kept for one in demand.conditions if (kept := _relaxed(one, seen.values))),
        provider=demand.provider if is_named(seen.entry, demand.provider) else "",
        pardoned=demand.pardoned | ({seen.entry.provider} if barred and not wait else frozenset()),
        wait_seconds=max(demand.wait_seconds, wait),
    )


def _gpu_changes(seen: Seen, wish: Wish) -> list[Wish]:
    """Fewer cards, smaller ones, or any model: all that this machine has."""
    gpus = seen.entry.offer.capacity.gpus
    if not wish.gpu_count:
        return [wish]
    wishes = []
    for model in {wish.gpu_model, ""}:
        sizes = sorted((sold_mib(g.vram_mib) for g in gpus if plain(model) in plain(g.model)), reverse=True)
        for count in range(1, min(wish.gpu_count, len(sizes)) + 1):
            vram = min(wish.gpu_vram_mib, sizes[count - 1])
            wishes.append(replace(wish, gpu_model=model, gpu_count=count, gpu_vram_mib=vram))
    return wishes


def _relaxed(condition: Condition, values: Values) -> Condition | None:
    """As it is if it holds; up to the provider's value if that can be said; None = given up."""
    if matches(Filter((condition,)), values):
        return condition
    value = values.get(condition.field)
    if condition.operator not in ("<=", ">=") or not isinstance(value, int | float):
        return None
    # In hundredths, as people write them, and to the side on which it still holds.
    hundredths = math.floor(value * 100) if condition.operator == ">=" else math.ceil(value * 100)
    whole, rest = divmod(hundredths, 100)
    return replace(condition, values=(hundredths / 100 if rest else whole,))


def cost(old: Demand, new: Demand) -> float:
    """How much somebody gives up who demands `new` instead of `old`; 0 = nothing."""
    was, now = old.wish, new.wish
    return (
        _ratio(old.max_price, new.max_price)
        + _gpu_cost(was, now)
        + _ratio(was.cpu_millis, now.cpu_millis)
        + _ratio(was.memory_mib, now.memory_mib)
        + _ratio(was.disk_mib, now.disk_mib)
        + sum(_condition_cost(before, after) for before, after in pairs(old, new))
        + (OTHER_COST if old.provider != new.provider else 0)
        + DROPPED_COST * len(new.pardoned - old.pardoned)
        + (new.wait_seconds - old.wait_seconds) / WAIT_SECONDS_PER_COST
    )


def pairs(old: Demand, new: Demand) -> Iterator[tuple[Condition, Condition | None]]:
    """Every condition that was changed, and what became of it (None: given up)."""
    left = list(new.conditions)
    for before in old.conditions:
        same = (one for one in left if (one.field, one.operator) == (before.field, before.operator))
        after = next(same, None)
        if after:
            left.remove(after)
        if after != before:
            yield before, after


def _gpu_cost(was: Wish, now: Wish) -> float:
    other = OTHER_COST if was.gpu_model != now.gpu_model else 0
    return other + _ratio(was.gpu_count, now.gpu_count) + _ratio(was.gpu_vram_mib, now.gpu_vram_mib)


def _condition_cost(before: Condition, after: Condition | None) -> float:
    old = before.values[0]
    if after is None:
        return DROPPED_COST if isinstance(old, int | float) else OTHER_COST
    new = after.values[0]
    assert isinstance(old, int | float) and isinstance(new, int | float)
    return min(DROPPED_COST, _ratio(old * 100, new * 100))  # to ask for less is never more than giving it up


def _ratio(old: float, new: float) -> float:
    """Numbers below a half (there are prices of 0) count as one."""
    return abs(math.log2(max(new, 0.5) / max(old, 0.5)))
