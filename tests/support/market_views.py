"""A market as a daemon tells it: ten thousand offers, always the same, with prices, scores and denials."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from protocol.catalogue import GPUS
from protocol.control_market import (
    DenyArgs,
    DenyView,
    MarketArgs,
    MarketView,
    OfferView,
    ScoreArgs,
    ScoreView,
    UseCaseView,
)
from protocol.control_prices import PricesArgs, PriceSeriesView, PriceSpanView, PricesView
from protocol.query import gpu_names, matches, parse_filter, parse_sort
from protocol.units import PeerKey
from qubixd.wire_libp2p import peer_id_of
from tests.support import views

NOW_MS: Final = 1_788_000_000_000
HOUR_MS: Final = 3_600_000
MANY: Final = 10_000
CLASSES: Final = [name for name, model in GPUS.items() if model.vram_gib]
REGIONS: Final = ("eu", "us", "asia", "")


def offer(number: int, **changes: Any) -> OfferView:
    """The market's offer of that number; all fields follow from it."""
    gpu = CLASSES[number * 7 % len(CLASSES)]
    model = GPUS[gpu]
    price = 1_000_000 + number * 7_919 % 9_000_000
    body: dict[str, Any] = {
        "peer_id": peer(number),
        "name": f"rig-{number:05}",
        "region": REGIONS[number % len(REGIONS)],
        "gpu_class": gpu,
        "gpus": 1 << number % 4,
        "vram_mib": round(model.vram_gib * 1_024),
        "cpu_millis": 8_000 << number % 3,
        "memory_mib": 32_768 << number % 3,
        "disk_mib": 512_000,
        "runner": "docker+runsc",
        "price_qu_per_hour": price,
        "sequence": 1,
        "expires_in_s": 600,
        "own": False,
        "withdrawn": False,
        "storage_qu_per_tib_hour": 20_000,
        "all_in_qu_per_hour": price + 200,
        "suggested_low_qu_per_hour": 2_000_000,
        "suggested_high_qu_per_hour": 6_000_000,
        "score": None if number % 3 == 0 else 0.4 + number % 60 / 100,
        "reliability": None if number % 3 == 0 else 0.9 + number % 10 / 100,
        "newcomer": number % 3 == 0,
        "rtt_ms": 10.0 + number % 200 if number % 4 else None,
        "not_hired": "it failed lately: the connection broke" if number % 97 == 5 else "",
        "arch": "amd64",
        "cuda": "12.4",
        "internet": True,
    }
    return OfferView(**(body | changes))


def peer(number: int) -> str:
    """Another one for each number."""
    return peer_id_of(PeerKey(number.to_bytes(32, "little")))


def values(one: OfferView) -> dict[str, Any]:
    """What a filter compares of an offer."""
    return {
        "gpu": gpu_names(one.gpu_class),
        "gpus": one.gpus,
        "vram": one.vram_mib / 1_024,
        "price": one.price_qu_per_hour,
        "region": one.region or None,
        "score": one.score,
        "reliability": one.reliability,
        "rtt": one.rtt_ms,
        "name": one.name.replace("-", ""),
        "cpus": one.cpu_millis / 1_000,
        "ram": one.memory_mib / 1_024,
        "disk": one.disk_mib / 1_024,
        "cuda": float(one.cuda or 0),
    }


@cache
def everything(count: int = MANY) -> tuple[OfferView, ...]:
    return tuple(offer(number) for number in range(count))


@cache
def found(where: str, sort: str, count: int) -> tuple[OfferView, ...]:
    conditions = parse_filter(where)
    shown = [one for one in everything(count) if matches(conditions, values(one))]
    for key in reversed(parse_sort(sort)):
        known = [one for one in shown if values(one).get(key.field) is not None]
        unknown = [one for one in shown if values(one).get(key.field) is None]
        numbers = {one.peer_id: values(one)[key.field] for one in known}
        known.sort(key=lambda one: numbers[one.peer_id], reverse=key.descending)
        shown = [*known, *unknown]
    return tuple(shown)


def market(args: MarketArgs, count: int = MANY) -> MarketView:
    """The answer of a daemon that knows `count` offers."""
    if "provider=" in args.filter:
        return MarketView([offer(42)], 1, count, 8)
    shown = found(args.filter, args.sort, count)
    page = list(shown[args.after : args.after + args.limit])
    use = None
    if args.use_case:
        use = UseCaseView("sdxl", "Stable Diffusion XL", 12, 24, "jupyter", "Pictures.")
        why = ["fast memory", "worth its price"]
        fitting = [offer(n, reasons=why) for n in range(count if "gpus>=0" in args.filter else 30)]
        page = fitting[args.after : args.after + args.limit]
        return MarketView(page, len(fitting), count, 8, "speed for the price", use)
    return MarketView(page, len(shown), count, 8, args.sort, use)


def small_market(args: MarketArgs) -> MarketView:
    """Of seven offers."""
    return market(args, 7)


def prices(args: PricesArgs) -> PricesView:
    hours = args.since_s // 3_600
    since = NOW_MS - args.since_s * 1_000

    def series(base: int, swing: int) -> list[PriceSpanView]:
        step = max(1, hours // 9)
        made = [
            (since + hour * HOUR_MS, base + swing * (hour // step * 7 % 5)) for hour in range(0, hours, step)
        ]
        return [
            PriceSpanView(start, 3_600, price, price, price, price, price - 500_000, 120, 300)
            for start, price in made
        ]

    return PricesView(
        since,
        NOW_MS,
        [
            PriceSeriesView("", args.provider, "rig-00042", series(3_000_000, 100_000)),
            PriceSeriesView(args.gpu, "", "", series(3_600_000, 40_000)),
        ],
    )


def score(args: ScoreArgs) -> ScoreView:
    return ScoreView(
        args.provider, "rig-00042", 0.61, 0.9, 0.8, 0.85, 0.7, False,
        [
            "12 callers have paid it",
            "leases that failed by its fault: 1 of 40 known here",
            "it asks 3,000,000 QU an hour for what is worth 2,550,000 by --qu-per-credit",
        ],
        '{"version": 1}' if args.evidence else "",
    )  # fmt: skip


def deny(args: DenyArgs) -> DenyView:
    return DenyView([])


HOSTILE = views.HOSTILE


def hostile_offer() -> OfferView:
    """Every text that a provider gives is an attack on the terminal."""
    names = ("name", "region", "gpu_class", "runner", "arch", "cuda", "not_hired")
    return offer(1, **dict.fromkeys(names, HOSTILE), shared_gpu_with=[HOSTILE], missing_at=[HOSTILE])


ANSWERS: Final[dict[str, Any]] = {
    "market": market,
    "prices": prices,
    "score": score,
    "deny": deny,
}
