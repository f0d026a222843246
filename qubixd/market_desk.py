"""The control API's verbs about the market: offers as this node sees them, why, scores, who is not hired."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import trio

from protocol import catalogue, jobspec
from protocol.all_in import all_in, sold_mib, wish_for
from protocol.catalogue import UseCase
from protocol.control_market import (
    STANDARD_DISK_MIB,
    DeniedView,
    DenyArgs,
    DenyView,
    DirectoriesArgs,
    DirectoriesView,
    DirectoryView,
    MarketArgs,
    MarketView,
    OfferView,
    ScoreArgs,
    ScoreView,
    UseCaseView,
    WhyArgs,
    WhyView,
)
from protocol.errors import NoOffer, NotFound, UsageError
from protocol.images import estimated_start_s, is_there
from protocol.messages import Wish
from protocol.query import Condition, Filter, SortKey, gpu_key, parse_filter, parse_sort
from protocol.units import MAX_QU, PeerKey, Qu
from qubixd import quality
from qubixd.book import Entry
from qubixd.choosing import LEARNT, MEASURE_SECONDS, MEASURED_AT_ONCE, Image
from qubixd.demand import is_named
from qubixd.fitting import fittest
from qubixd.hiring import Search, demand_of
from qubixd.node import Node
from qubixd.quality import Quality
from qubixd.views import offer_view
from qubixd.wire_libp2p import peer_id_of

Emit = Callable[[object], Awaitable[None]]
MAX_SCORED: Final = 64
"""Providers of a page whose scores are computed for it; the rest shows what is known."""
SCORE_SECONDS: Final = 2.0
"""A list does not wait longer for scores; the next one shows them."""
MAX_MEASURED: Final = 32
MAX_FITTEST: Final = 10_000
"""Offers in the order of fitness before a page."""
PINGS_EACH: Final = 5
MAX_QUOTES: Final = 24
"""Providers that `why --ask` asks."""


@dataclass(frozen=True)
class _Listed:
    entry: Entry
    reasons: tuple[str, ...] = ()
    cards: int = 0
    """That one would rent; the price is of one if this is 0."""


# --- market -------------------------------------------------------------------------------------


async def market(node: Node, args: MarketArgs, emit: Emit) -> MarketView:
    node.offers.want()
    chooser, now = node.hiring.chooser, node.parts.now_ms
    where, sort = _where(args), parse_sort(args.sort)
    use = catalogue.use_case(args.use_case) if args.use_case else None
    if use and sort:
        raise UsageError("--for orders by fitness and --sort by what it names; give one of them")
    if args.after and not (sort or use):
        raise UsageError("only a list with `sort` or `use_case` can be read page by page")
    if use and args.after > MAX_FITTEST:
        raise UsageError(f"of a use case the first {MAX_FITTEST:,} are told; narrow the list by a filter")
    wish = Wish("", 0, 0, 0, 0, args.disk_mib)
    await _learn(node, where, sort)
    if use:
        best = await fittest(chooser.book, where, use, wish, args.after + args.limit, now)
        listed = [
            _Listed(
                entry,
                tuple(filter(None, (ranked.reasons, ranked.above_next))),
                wish_for(entry.offer, wish, use).gpu_count,
            )
            for entry, ranked in best.found[args.after :]
        ]
        total = best.total
    else:
        if sort:
            page = chooser.book.query(where, sort, args.limit, now(), args.after)
        else:
            page = await chooser.cheapest(where, wish, args.limit)
        listed, total = [_Listed(entry) for entry in page.entries], page.total
    ways = await _measured(node, [one.entry for one in listed[:MAX_MEASURED]]) if args.measure else {}
    if not args.brief:
        with trio.move_on_after(SCORE_SECONDS):
            await chooser.scores([one.entry.provider for one in listed[:MAX_SCORED]])
    image = (args.image, await chooser.image_here(args.image)) if args.image else None
    return MarketView(
        offers=[_with_way(_view(node, one, wish, image), ways.get(one.entry.provider)) for one in listed],
        total=total,
        known=live_offers(node),
        peers=len(node.parts.wire.peers()),
        order=_order_words(use, sort),
        use_case=_use_view(use) if use else None,
        directories=_directories(node),
        unmet=[] if total else _unmet(node, where),
    )


def _unmet(node: Node, where: Filter) -> list[str]:
    """The conditions that shut everybody out by themselves."""
    book, now = node.offers.book, node.parts.now_ms()
    alone = ((str(one), Filter((one,))) for one in where.conditions)
    return [text for text, only in alone if not book.query(only, (), 1, now).total]


async def _measured(node: Node, entries: Sequence[Entry]) -> dict[PeerKey, Quality]:
    """The ways to these providers, some at a time; those that do not answer are left out."""
    found: dict[PeerKey, Quality] = {}
    free = trio.CapacityLimiter(MEASURED_AT_ONCE)

    async def look(entry: Entry) -> None:
        async with free:
            way = await quality.measure(
                node.parts.wire, entry.provider, entry.offer.addresses, PINGS_EACH, MEASURE_SECONDS
            )
        if way is not None:
            found[entry.provider] = way
            node.offers.book.measure(entry.provider, rtt_ms=way.rtt_ms)

    async with trio.open_nursery() as nursery:
        for entry in entries:
            nursery.start_soon(look, entry)
    return found


def _with_way(view: OfferView, way: Quality | None) -> OfferView:
    return view if way is None else replace(view, rtt_ms=way.rtt_ms, jitter_ms=way.jitter_ms)


def _where(args: MarketArgs) -> Filter:
    conditions = parse_filter(args.filter).conditions
    if not args.gpu:
        return Filter(conditions)
    try:
        return Filter((*conditions, Condition("gpu", "=", (gpu_key(args.gpu),))))
    except ValueError as error:
        raise UsageError(f"{args.gpu!r} is no name of a GPU") from error


async def _learn(node: Node, where: Filter, sort: Sequence[SortKey]) -> None:
    """What must be found out of providers before a search by it can find them."""
    used = ({one.field for one in where.conditions} | {one.field for one in sort}) & LEARNT
    if used:
        rest = Filter(tuple(one for one in where.conditions if one.field not in LEARNT))
        page = node.offers.book.query(rest, (SortKey("price"),), MAX_SCORED, node.parts.now_ms())
        await node.hiring.chooser.learn(page.entries, used)


def own_view(node: Node, own: Entry) -> OfferView:
    """This machine's offer, with what the catalogue suggests."""
    return _view(node, _Listed(own), Wish("", 0, 0, 0, 0, STANDARD_DISK_MIB), None)


def _view(node: Node, one: _Listed, wish: Wish, image: Image | None) -> OfferView:
    entry, now, book = one.entry, node.parts.now_ms(), node.offers.book
    values, score = book.values(entry, now), node.receipts.cached(entry.provider)
    low, high = catalogue.suggested_range(entry.offer.gpu_class, node.config.qu_per_credit)
    start = estimated_start_s(entry.offer, *image) if image else None
    return replace(
        offer_view(entry, node.parts.key.public, now),
        vram_mib=sold_mib(max((gpu.vram_mib for gpu in entry.offer.capacity.gpus), default=0)),
        all_in_qu_per_hour=all_in(entry.offer, replace(wish, gpu_count=one.cards)),
        suggested_low_qu_per_hour=low,
        suggested_high_qu_per_hour=high,
        score=score.g if score else _number(values.get("score")),
        reliability=score.reliability if score else _number(values.get("reliability")),
        newcomer=score is not None and score.confidence == 0,
        rtt_ms=_number(values.get("rtt")),
        start_s=start,
        image_there=bool(image and is_there(entry.offer.layers, image[0])),
        shared_gpu_with=[_name(node, other) for other in book.clashes(entry.provider)],
        missing_at=[peer_id_of(peer) for peer in book.missing(entry.provider)],
        not_hired=node.standing.allowed(entry.provider, now) or "",
        reasons=list(one.reasons),
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _name(node: Node, provider: PeerKey) -> str:
    """As far as it has one, and its peer id."""
    entry = node.offers.book.get(provider, node.parts.now_ms())
    return f"{entry.offer.name} ({peer_id_of(provider)})" if entry else peer_id_of(provider)


def _order_words(use: UseCase | None, sort: Sequence[SortKey]) -> str:
    if use:
        return "speed for the price"
    if not sort:
        return "price all in"
    return ", then ".join(f"{key.field}, {'most' if key.descending else 'least'} first" for key in sort)


def _use_view(use: UseCase) -> UseCaseView:
    return UseCaseView(
        use.name, use.title, use.min_vram_gib, use.recommended_vram_gib, use.connection, use.why
    )


def live_offers(node: Node) -> int:
    """How many live offers are known here."""
    return node.offers.book.query(Filter(), (), 1, node.parts.now_ms()).total


def _directories(node: Node) -> list[DirectoryView]:
    told = node.offers.book.sources()
    return [DirectoryView(peer_id_of(peer), *told[peer]) for peer in sorted(told)]


async def directories(node: Node, args: DirectoriesArgs, emit: Emit) -> DirectoriesView:
    found, serves = node.discovery.directories, node.discovery.directory
    told = [peer_id_of(peer) for peer, held in sorted(found.heartbeats.items()) if held.live]
    return DirectoriesView(_directories(node), told, None if serves is None else serves.heard)


# --- why ----------------------------------------------------------------------------------------


async def why(node: Node, args: WhyArgs, emit: Emit) -> WhyView:
    node.offers.want()
    if not args.job_yaml:
        remembered = await node.hiring.remembered()
        if remembered is None:
            raise NotFound("no job has gone without a taker here; name a job file: `qubix why job.yaml`")
        return remembered
    job = jobspec.parse(args.job_yaml)
    price = None if args.max_price_qu_per_hour is None else Qu(min(args.max_price_qu_per_hour, MAX_QU))
    search = Search(job, demand_of(job, price, args.provider, parse_filter(args.where)))
    await _learn(node, Filter(search.demand.conditions), ())
    if args.ask:
        await _ask(node, search)
    return search.why or await node.hiring.explain(search)


async def _ask(node: Node, search: Search) -> None:
    """Real quotes for a job that has no files: nobody is to take it."""
    try:
        candidates = await node.hiring.candidates(search, search.job.choice.order, MAX_QUOTES)
    except NoOffer:
        return
    nothing = hashlib.sha256(os.urandom(32)).digest()
    await node.hiring.ask_all(search, nothing, candidates, all_of_them=True)


# --- scores and standing ------------------------------------------------------------------------


async def score(node: Node, args: ScoreArgs, emit: Emit) -> ScoreView:
    provider = find_provider(node, args.provider)
    scored = (await node.receipts.scores([provider]))[provider]
    evidence = json.dumps(await node.receipts.evidence(provider)) if args.evidence else ""
    entry = node.offers.book.get(provider, node.parts.now_ms())
    return ScoreView(
        peer_id=peer_id_of(provider),
        name=entry.offer.name if entry else "",
        score=scored.g,
        performance=scored.performance,
        reliability=scored.reliability,
        efficiency=scored.efficiency,
        confidence=scored.confidence,
        newcomer=scored.confidence == 0,
        reasons=list(scored.reasons),
        evidence=evidence,
    )


async def deny(node: Node, args: DenyArgs, emit: Emit) -> DenyView:
    if args.add:
        await node.standing.deny(find_provider(node, args.add), "", node.parts.now_ms())
    if args.remove:
        await node.standing.forgive(find_provider(node, args.remove))
    now = node.parts.now_ms()
    return DenyView(
        [
            DeniedView(
                peer_id=peer_id_of(one.provider),
                name=entry.offer.name if (entry := node.offers.book.get(one.provider, now)) else "",
                reason="denied" if one.denied else one.code,
                sentence=one.why,
                until_ms=0 if one.denied else one.until_ms,
            )
            for one in node.standing.all(now)
            if one.why
        ]
    )


def find_provider(node: Node, said: str) -> PeerKey:
    """The one provider that is called so. NotFound if there is none or more than one."""
    now = node.parts.now_ms()
    entries = [entry for entry in node.offers.book.entries(now) if is_named(entry, said)] if said else []
    exact = {entry.provider for entry in entries if entry.offer.name == said}
    silent = {one.provider for one in node.standing.all(now) if peer_id_of(one.provider) == said}
    found = exact if len(exact) == 1 else {entry.provider for entry in entries} | silent
    if len(found) == 1:
        return found.pop()
    count = "several providers are" if found else "no provider known here is"
    raise NotFound(f"{count} called {said[:64]!r}; `qubix market --json` shows their peer ids")
