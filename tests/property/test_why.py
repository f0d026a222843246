"""The change that `qubix why` suggests makes the job fit, and no cheaper one does: against all there are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.all_in import all_in, sold_mib
from protocol.messages import Wish
from protocol.query import Condition
from protocol.signing import NodeKey
from protocol.units import PeerKey, Qu, UnixMs
from qubixd.demand import Barred, Demand, Seen, cost, fits, least_change, objections
from qubixd.why import best_changes, explain, parts_of
from tests.support.market_values import card, entry

SIZES = st.sampled_from([1, 2_048, 4_096, 24_576])
MODELS = st.sampled_from(["NVIDIA GeForce RTX 4090", "NVIDIA A100"])
KEYS = [NodeKey(bytes([number]) * 32) for number in range(1, 5)]
SCORES = st.sampled_from([None, 0.1, 0.4, 0.9])
CONDITIONS = st.sampled_from(
    [
        (),
        (Condition("score", ">=", (0.5,)),),
        (Condition("region", "=", ("eu",)),),
        (Condition("rtt", "<=", (50,)), Condition("score", ">", (0.3,))),
    ]
)


@st.composite
def offers(draw: st.DrawFn, key: NodeKey) -> Seen:
    made = entry(
        key,
        name=draw(st.sampled_from(["alice", "bob"])),
        price=draw(st.sampled_from([0, 100, 5_000])),
        storage=draw(st.sampled_from([0, 2**20])),
        gpus=tuple(
            card(draw(MODELS), draw(st.sampled_from([8_192, 24_564])), number)
            for number in range(draw(st.integers(0, 2)))
        ),
        sizes=(draw(SIZES), draw(SIZES), draw(SIZES)),
    )
    barred = draw(st.sampled_from([None, None, Barred("denied", "no"), Barred("backed_off", "later", 300)]))
    return Seen(
        made, {"score": draw(SCORES), "region": draw(st.sampled_from(["eu", "us"])), "rtt": None}, barred
    )


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    gpus = draw(st.integers(0, 2))
    wish = Wish(
        gpu_model=draw(st.sampled_from(["", "RTX4090"])) if gpus else "",
        gpu_count=gpus,
        gpu_vram_mib=draw(st.sampled_from([0, 16_384, 24_576])) if gpus else 0,
        cpu_millis=draw(SIZES),
        memory_mib=draw(SIZES),
        disk_mib=draw(SIZES),
    )
    price = draw(st.sampled_from([0, 100, 3_000, 40_000]))
    return Demand(wish, Qu(price), draw(CONDITIONS), draw(st.sampled_from(["", "alice", "zoe"])))


MARKETS = st.integers(1, 3).flatmap(lambda count: st.tuples(*(offers(key) for key in KEYS[:count])))


def all_demands(old: Demand, seen: Sequence[Seen]) -> Iterator[Demand]:
    """Every demand that asks for no more than `old` and whose numbers are ones that some offer has."""
    wish, capacities = old.wish, [one.entry.offer.capacity for one in seen]
    rams = {sold_mib(gpu.vram_mib) for some in capacities for gpu in some.gpus}
    wishes = [
        Wish(*chosen)
        for chosen in itertools.product(
            {wish.gpu_model, ""},
            range(min(1, wish.gpu_count), wish.gpu_count + 1),
            {wish.gpu_vram_mib} | {size for size in rams if size < wish.gpu_vram_mib},
            {wish.cpu_millis} | {c.cpu_millis for c in capacities if c.cpu_millis < wish.cpu_millis},
            {wish.memory_mib} | {c.memory_mib for c in capacities if c.memory_mib < wish.memory_mib},
            {wish.disk_mib} | {c.disk_mib for c in capacities if c.disk_mib < wish.disk_mib},
        )
    ]
    prices = {old.max_price} | {Qu(all_in(one.entry.offer, new)) for one in seen for new in wishes}
    for new, price in itertools.product(wishes, sorted(p for p in prices if p >= old.max_price)):
        yield replace(old, wish=new, max_price=price)


def relaxed(old: Demand, one: Seen) -> Iterator[Demand]:
    """`old` with all that is no number of the machine given up as far as this provider needs, or not."""
    provider = one.entry.provider
    for conditions in itertools.product(*(_kept(condition, one) for condition in old.conditions)):
        for name, pardoned, wait in itertools.product(
            {old.provider, ""}, (frozenset[PeerKey](), frozenset({provider})), (0, 300)
        ):
            kept = tuple(condition for condition in conditions if condition)
            yield replace(old, conditions=kept, provider=name, pardoned=pardoned, wait_seconds=wait)


def _kept(condition: Condition, one: Seen) -> set[Condition | None]:
    value = one.values.get(condition.field)
    ways: set[Condition | None] = {condition, None}
    if condition.operator == ">=" and isinstance(value, float) and value < condition.values[0]:  # type: ignore[operator]  # numbers
        ways.add(replace(condition, values=(value,)))
    return ways


@settings(max_examples=150)
@given(MARKETS, demands())
def test_the_suggested_change_helps_and_no_cheaper_one_does(seen: tuple[Seen, ...], demand: Demand) -> None:
    if any(fits(one, demand) for one in seen):
        return
    least = [new for one in seen if (new := least_change(one, demand))]
    listed = best_changes(demand, least)
    costs = [cost(demand, new) for new in listed]
    assert costs == sorted(costs) and all(amount > 0 for amount in costs)
    assert all(any(fits(one, new) for one in seen) for new in listed)
    cheapest = costs[0] if costs else float("inf")
    for one in seen:
        for rest in relaxed(demand, one):
            if cost(demand, rest) >= cheapest - 1e-9 or set(objections(one, rest)) & OF_THE_REST:
                continue
            for other in all_demands(rest, [one]):
                if cost(demand, other) < cheapest - 1e-9:
                    assert not fits(one, other), (cheapest, cost(demand, other), other)


OF_THE_REST = {"provider", "denied", "backed_off", "filter.score", "filter.region", "filter.rtt"}


@given(MARKETS, demands())
def test_every_provider_has_a_reason_or_fits(seen: tuple[Seen, ...], demand: Demand) -> None:
    view = explain("job", demand, seen, {}, UnixMs(0))
    counts = {group.code: group.count for group in view.groups}
    assert counts.get("fits", 0) == view.fitting == sum(fits(one, demand) for one in seen)
    assert all(group.count == len(group.providers) and group.title for group in view.groups)
    in_groups = {reason.peer_id for group in view.groups for reason in group.providers}
    assert len(in_groups) == view.known == len(seen)
    assert all(reason.sentence for group in view.groups for reason in group.providers)
    for change in view.changes:
        assert change.providers > view.fitting and change.sentence and change.fields


@given(offers(KEYS[0]), demands())
def test_a_change_is_small_and_said(one: Seen, demand: Demand) -> None:
    new = least_change(one, demand)
    if new is None:
        return
    assert fits(one, new)
    assert (new == demand) == fits(one, demand)
    assert bool(parts_of(demand, new)) == (new != demand) == (cost(demand, new) > 0)
