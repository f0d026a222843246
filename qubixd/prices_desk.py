"""The control API's verb `prices`: the history of what was asked, up to this moment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

import ledger.prices
from ledger.prices import PriceRow
from protocol.catalogue import GPUS
from protocol.control_prices import (
    MAX_PRICE_SPANS,
    PricesArgs,
    PriceSeriesView,
    PriceSpanView,
    PricesView,
)
from protocol.errors import UsageError
from protocol.query import gpu_key, gpu_names
from protocol.units import PeerKey
from qubixd.book import Ask
from qubixd.market_desk import find_provider
from qubixd.node import Node
from qubixd.prices import gpu_rows, provider_row
from qubixd.wire_libp2p import peer_id_of

Emit = Callable[[object], Awaitable[None]]
_CLASSES: Final = {gpu_key(name): name for name in GPUS}
_SIZES: Final = {gpu_key(name): gpu_names(name)[1:] for name in GPUS}
"""A class's key -> the key of its model, where there are several memory sizes."""


async def prices(node: Node, args: PricesArgs, emit: Emit) -> PricesView:
    node.offers.want()
    now = node.parts.now_ms()
    since, asks = now - args.since_s * 1_000, node.offers.book.asks(now)
    series = []
    if args.provider:
        series.append(await _provider(node, find_provider(node, args.provider), asks, since))
    if args.gpu or not args.provider:
        series += await _classes(node, args.gpu, asks, since)
    return PricesView(since, now, series)


async def _provider(node: Node, provider: PeerKey, asks: Sequence[Ask], since: int) -> PriceSeriesView:
    rows = await ledger.prices.history(node.parts.store, "provider", provider, since, MAX_PRICE_SPANS)
    now = node.parts.now_ms()
    for one in asks:
        if one.provider == provider:
            rows = _with(rows, provider_row(one, rows[-1].close if rows else one.price, now))
    entry = node.offers.book.get(provider, now)
    name = entry.offer.name if entry else ""
    return PriceSeriesView("", peer_id_of(provider), name, [_span(row) for row in rows])


async def _classes(node: Node, said: str, asks: Sequence[Ask], since: int) -> list[PriceSeriesView]:
    present = {row.subject.decode(): row for row in gpu_rows(asks, node.parts.now_ms())}
    known = dict.fromkeys((*await ledger.prices.gpus(node.parts.store, since), *present))
    wanted = [key for key in known if not said or _key(said) in (key, *_SIZES.get(key, ()))]
    series = []
    for key in wanted:
        most = MAX_PRICE_SPANS // len(wanted)
        rows = await ledger.prices.history(node.parts.store, "gpu", key.encode(), since, most)
        rows = _with(rows, present[key]) if key in present else rows
        series.append(PriceSeriesView(_CLASSES.get(key, key), "", "", [_span(row) for row in rows]))
    return series


def _key(said: str) -> str:
    try:
        return gpu_key(said)
    except ValueError as error:
        raise UsageError(f"{said[:64]!r} is no name of a GPU") from error


def _with(rows: tuple[PriceRow, ...], now: PriceRow) -> tuple[PriceRow, ...]:
    """The history with what is asked at this moment."""
    if not rows or rows[-1].start_ms != now.start_ms:
        return (*rows, now)
    last = rows[-1]
    met = replace(
        now,
        open=last.open,
        high=max(last.high, now.high),
        low=min(last.low, now.low),
        cheapest=min(last.cheapest, now.cheapest),
    )
    return (*rows[:-1], met)


def _span(row: PriceRow) -> PriceSpanView:
    return PriceSpanView(
        row.start_ms,
        row.span_ms // 1_000,
        row.open,
        row.high,
        row.low,
        row.close,
        row.cheapest,
        row.offers,
        row.gpus,
    )
