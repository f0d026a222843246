"""Quotes: what a provider promises for a request, and what a caller checks before taking it. Pure.

A quote is the real availability check: it is made from what is free at that moment, signed, and
kept by nobody. The caller holds it against its own request, the offer it saw and its own limits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from protocol import image_needs
from protocol.all_in import all_in, shares_of, sold_mib, storage_of
from protocol.errors import (
    CapacityTaken,
    ConfigInvalid,
    InternetUnavailable,
    PriceAboveLimit,
    QuoteChanged,
    QuoteExpired,
    Refused,
    ShopCloses,
)
from protocol.image_needs import Need
from protocol.job_life import MAX_READY_SECONDS
from protocol.lease_job import PROOF_PATIENCE_MS
from protocol.messages import Capacity, Gpu, Offer, QuoteRequest, Terms, Wish
from protocol.units import (
    MAX_QU,
    PeerKey,
    Qu,
    QubicId,
    Seconds,
    Tick,
    UnixMs,
    amount_due,
    seconds_covered,
)

METER: Final = "seconds"
VALID_MS: Final = 60_000
"""How long a quote may be accepted."""
PULL_SECONDS: Final = Seconds(1_800)
START_SECONDS: Final = Seconds(120)
PROOF_SECONDS: Final = PROOF_PATIENCE_MS // 1_000
NO_BUDGET: Final = Qu(0)
CHALLENGE_SECONDS: Final = 3_600
"""The provider has that long to redeem after the caller asked to close. All that it has earned hangs on
it: a machine that restarts or loses its line for a while must not lose a day's work."""
SETTLE_SECONDS: Final = 600
"""Beyond the rented time, until the escrow expires by itself."""
TICK_MARGIN: Final = 1.5
"""Ticks may come faster later than they do now."""
MIN_CHALLENGE_TICKS: Final = 32
MAX_INTERVAL_SECONDS: Final = Seconds(60)
"""The caller chooses the interval, and a job may run for some of them before a missing voucher stops it."""
MAX_TICK_DISAGREEMENT: Final = 2
"""The two sides' measurements of a tick may differ by that factor."""


@dataclass(frozen=True)
class House:
    """What a provider's quotes are made from."""

    network: str
    contract_index: int
    provider: PeerKey
    provider_id: QubicId
    runner: str
    price_qu_per_hour: Qu
    storage_qu_per_tib_hour: Qu
    unpaid_intervals: int
    tick_duration_ms: int
    free: Capacity
    open_for_business: bool
    arch: str = ""
    """Of the machine's processor; empty if unknown."""
    cuda: int = 0
    """The newest that its driver supports, as in Wish."""
    internet: bool = False
    """Whether jobs here may reach the Internet."""
    closes_at: UnixMs = UnixMs(0)
    """When the schedule closes next; 0: it does not."""
    tick: Tick = Tick(0)
    """The newest tick seen."""


def make_terms(house: House, request: QuoteRequest, caller: PeerKey, now: UnixMs) -> Terms:
    """The terms this provider offers, or a Refused whose code and sentence travel to the caller."""
    if (request.network, request.contract_index) != (house.network, house.contract_index):
        raise ConfigInvalid(f"this provider settles on {house.network}, contract {house.contract_index}")
    if not house.open_for_business:
        raise CapacityTaken("this provider takes no jobs at the moment")
    _check_closing(house, request.max_seconds, now)
    storage = storage_of(house.storage_qu_per_tib_hour, request.wish)
    price = Qu(house.price_qu_per_hour * shares_of(request.wish) + storage)
    if price > request.max_price_qu_per_hour:
        raise PriceAboveLimit(
            f"the price is {price:,} QU per hour, all in, and {request.max_price_qu_per_hour:,} is the most "
            "you would pay"
        )
    _check_sizes(request)
    check_image_need(image_needs.NOTHING, request.wish, house)
    if request.wish.internet and not house.internet:
        raise InternetUnavailable(
            "jobs have no network on this machine; leave out `internet: true` or ask another"
        )
    gpus = choose_gpus(house.free, request.wish)
    deposit = deposit_of(price, request.max_seconds, request.budget)
    if deposit > MAX_QU:
        raise PriceAboveLimit(f"the deposit would be {deposit} QU; at most {MAX_QU} QU can be locked")
    if not seconds_covered(price, deposit):
        raise PriceAboveLimit(
            f"a budget of {request.budget} QU is not enough for a second at {price} an hour"
        )
    challenge_ticks, deadline_ticks = windows(
        request.max_seconds, request.ready_seconds, house.tick_duration_ms
    )
    return Terms(
        nonce=request.nonce,
        network=house.network,
        contract_index=house.contract_index,
        provider=house.provider,
        provider_id=house.provider_id,
        caller=caller,
        caller_id=request.caller_id,
        wish=request.wish,
        gpu_digests=tuple(gpu.digest for gpu in gpus),
        image=request.image,
        runner=house.runner,
        order_sha256=request.order_sha256,
        meter=METER,
        price_qu_per_hour=price,
        storage_qu_per_hour=storage,
        max_seconds=request.max_seconds,
        interval_seconds=request.interval_seconds,
        unpaid_intervals=house.unpaid_intervals,
        deposit=deposit,
        deadline_ticks=deadline_ticks,
        challenge_ticks=challenge_ticks,
        pull_seconds=PULL_SECONDS,
        start_seconds=START_SECONDS,
        budget=request.budget,
        ready_seconds=request.ready_seconds,
        idle_seconds=request.idle_seconds,
        proof=request.proof,
        closes_at=house.closes_at,
        quoted_at=now,
        valid_until=UnixMs(now + VALID_MS),
    )


def _check_closing(house: House, max_seconds: int, now: UnixMs) -> None:
    """The rented time is over before the shop closes, counted from the quote: the schedule never ends what
    runs. Only the job's preparation may push it beyond."""
    left = (house.closes_at - now) // 1_000
    if house.closes_at and max_seconds > left:
        raise ShopCloses(
            f"this provider closes in {left // 3_600} h {left % 3_600 // 60} min, and the job may take "
            f"{max_seconds / 3_600:.2f} hours; ask for `max_hours: {left // 36 / 100:g}`, or ask another"
        )


def _check_sizes(request: QuoteRequest) -> None:
    """What no provider of ours ever wants: work for long on credit, leases that take up no room."""
    if request.max_seconds < 1:
        raise ConfigInvalid("a lease lasts at least one second")
    if request.interval_seconds > MAX_INTERVAL_SECONDS:
        raise ConfigInvalid(f"vouchers are due at least every {MAX_INTERVAL_SECONDS} s")
    if not 1 <= request.ready_seconds <= MAX_READY_SECONDS:
        raise ConfigInvalid(f"a job may take 1 to {MAX_READY_SECONDS} s to get ready")
    wish = request.wish
    if min(wish.cpu_millis, wish.memory_mib, wish.disk_mib) < 1:
        raise ConfigInvalid("a job takes some CPU, memory and disk")


def check_image_need(need: Need, wish: Wish, house: House) -> None:
    """Return if an image that needs this of itself, or so its caller says, runs here. ImageUnavailable."""
    needed = image_needs.joined(need, Need(wish.arch, wish.cuda))
    image_needs.check(needed, Need(house.arch, house.cuda), gpus=wish.gpu_count)


def check_terms(
    terms: Terms,
    request: QuoteRequest,
    offer: Offer,
    provider: PeerKey,
    caller: PeerKey,
    tick_duration_ms: int,
) -> None:
    """The caller's side: QuoteChanged or PriceAboveLimit unless the quote is what was asked and offered."""
    if terms.price_qu_per_hour > request.max_price_qu_per_hour:
        raise PriceAboveLimit(
            f"the quote is {terms.price_qu_per_hour} QU per hour, your limit {request.max_price_qu_per_hour}"
        )
    offered = all_in(offer, request.wish)
    if terms.price_qu_per_hour > offered:
        raise QuoteChanged(
            f"the offer said {offered} QU per hour all in, the quote says {terms.price_qu_per_hour}"
        )
    if terms.storage_qu_per_hour > storage_of(offer.storage_qu_per_tib_hour, request.wish):
        raise QuoteChanged("the quote's disk costs more than the offer said")
    for name, quoted, wanted in _must_match(terms, request, offer, provider, caller):
        if quoted != wanted:
            raise QuoteChanged(f"the quote differs from what was asked or offered: {name}")
    if not _windows_are_usual(terms, tick_duration_ms):
        raise QuoteChanged("the quote's time windows make no sense")


def check_acceptable(terms: Terms, house: House, caller: PeerKey, now: UnixMs) -> None:
    """The provider's side, when its own quote comes back accepted."""
    if terms.caller != caller or terms.provider != house.provider:
        raise Refused("these terms are between other parties")
    if now > terms.valid_until:
        raise QuoteExpired("the quote is no longer valid; ask for a new one")
    if not house.open_for_business:
        raise CapacityTaken("this provider takes no jobs at the moment")
    free_digests = {gpu.digest for gpu in house.free.gpus}
    if not set(terms.gpu_digests) <= free_digests or not _rest_fits(house.free, terms.wish):
        raise CapacityTaken("somebody else took that capacity first")


def choose_gpus(free: Capacity, wish: Wish) -> tuple[Gpu, ...]:
    """The cards that will serve a wish; CapacityTaken if what is free does not suffice."""
    fitting = [gpu for gpu in free.gpus if gpu_fits(gpu, wish)]
    if len(fitting) < wish.gpu_count:
        raise CapacityTaken(f"{len(fitting)} fitting GPUs are free, {wish.gpu_count} were asked for")
    if not _rest_fits(free, wish):
        raise CapacityTaken(
            f"free are {free.cpu_millis / 1000:g} CPUs, {free.memory_mib} MiB of memory and "
            f"{free.disk_mib} MiB of disk"
        )
    smallest_first = sorted(fitting, key=lambda gpu: (gpu.vram_mib, gpu.digest))
    return tuple(smallest_first[: wish.gpu_count])


def gpu_fits(gpu: Gpu, wish: Wish) -> bool:
    return sold_mib(gpu.vram_mib) >= wish.gpu_vram_mib and plain(wish.gpu_model) in plain(gpu.model)


@lru_cache(2_048)  # asked for every card of a large market, where few names are different
def plain(name: str) -> str:
    """A model name without case, spaces and separators: "NVIDIA GeForce RTX 4090" -> contains "rtx4090"."""
    return "".join(char for char in name.casefold() if char.isalnum())


def free_of(total: Capacity, taken: Iterable[Terms]) -> Capacity:
    """What is left of a machine beside its open leases."""
    leases = list(taken)
    used = {digest for terms in leases for digest in terms.gpu_digests}
    return Capacity(
        gpus=tuple(gpu for gpu in total.gpus if gpu.digest not in used),
        cpu_millis=max(0, total.cpu_millis - sum(t.wish.cpu_millis for t in leases)),
        memory_mib=max(0, total.memory_mib - sum(t.wish.memory_mib for t in leases)),
        disk_mib=max(0, total.disk_mib - sum(t.wish.disk_mib for t in leases)),
    )


def deposit_of(price_qu_per_hour: Qu, max_seconds: Seconds, budget: Qu = NO_BUDGET) -> Qu:
    """The whole rented time or the budget, if that is less; at least 1 QU: the contract opens no empty
    escrow."""
    due = amount_due(price_qu_per_hour, max_seconds)
    return Qu(max(1, min(due, budget or due)))


def windows(max_seconds: Seconds, ready_seconds: Seconds, tick_duration_ms: int) -> tuple[int, int]:
    """(challenge ticks, deadline ticks after the opening) for a lease of that length."""
    per_second = 1_000 / max(100, tick_duration_ms)
    challenge = max(MIN_CHALLENGE_TICKS, math.ceil(CHALLENGE_SECONDS * per_second))
    lifetime = max_seconds + PULL_SECONDS + START_SECONDS + PROOF_SECONDS + ready_seconds + SETTLE_SECONDS
    return challenge, challenge + math.ceil(lifetime * per_second * TICK_MARGIN)


def _windows_are_usual(terms: Terms, tick_duration_ms: int) -> bool:
    """Too long a window would keep the caller's money locked, too short a one would end the job early."""
    quoted = _spans(terms.challenge_ticks, terms.deadline_ticks)
    times = terms.max_seconds, terms.ready_seconds
    shortest = _spans(*windows(*times, tick_duration_ms * MAX_TICK_DISAGREEMENT))
    longest = _spans(*windows(*times, tick_duration_ms // MAX_TICK_DISAGREEMENT))
    return all(low <= ticks <= high for low, ticks, high in zip(shortest, quoted, longest, strict=True))


def _spans(challenge_ticks: int, deadline_ticks: int) -> tuple[int, int]:
    """(challenge window, what is left before it for the job)."""
    return challenge_ticks, deadline_ticks - challenge_ticks


def _rest_fits(free: Capacity, wish: Wish) -> bool:
    return (
        wish.cpu_millis <= free.cpu_millis
        and wish.memory_mib <= free.memory_mib
        and wish.disk_mib <= free.disk_mib
    )


def _must_match(
    terms: Terms, request: QuoteRequest, offer: Offer, provider: PeerKey, caller: PeerKey
) -> Iterable[tuple[str, object, object]]:
    yield "the nonce", terms.nonce, request.nonce
    yield "the network", terms.network, request.network
    yield "the contract", terms.contract_index, request.contract_index
    yield "the provider", terms.provider, provider
    yield "the provider's account", terms.provider_id, offer.qubic_id
    yield "the caller", (terms.caller, terms.caller_id), (caller, request.caller_id)
    yield "the machine", terms.wish, request.wish
    yield "the number of GPUs", len(set(terms.gpu_digests)), request.wish.gpu_count
    yield "the GPUs", len(terms.gpu_digests), request.wish.gpu_count
    fitting = {gpu.digest for gpu in offer.capacity.gpus if gpu_fits(gpu, request.wish)}
    yield "the GPUs", set(terms.gpu_digests) <= fitting, True
    yield "the image", terms.image, request.image
    yield "the runner", terms.runner, offer.runner
    yield "the job", terms.order_sha256, request.order_sha256
    yield "the meter", terms.meter, METER
    yield "the rented time", terms.max_seconds, request.max_seconds
    yield "the time to prepare", (terms.pull_seconds, terms.start_seconds), (PULL_SECONDS, START_SECONDS)
    yield "the time to get ready", terms.ready_seconds, request.ready_seconds
    late = terms.quoted_at + terms.max_seconds * 1_000
    yield "the closing time", not terms.closes_at or terms.closes_at >= late, True
    yield "the idle time", terms.idle_seconds, request.idle_seconds
    yield "the budget", terms.budget, request.budget
    yield "the proof", terms.proof, request.proof
    yield "the voucher interval", terms.interval_seconds, request.interval_seconds
    deposit = deposit_of(terms.price_qu_per_hour, request.max_seconds, request.budget)
    yield "the deposit", terms.deposit, deposit
