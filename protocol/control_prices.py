"""Price history in the local control API: what providers and GPU classes have asked over time.

Argument and answer of `prices`; frames and all else are in protocol/control.py. Prices are asked ones, whole
QU an hour of each GPU (or of a machine without); times are Unix milliseconds of this node's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from msgspec import Meta

from protocol.control_market import Text

MAX_PRICE_SPANS: Final = 20_000
"""In one answer; of more the newest of each series."""


@dataclass(frozen=True)
class PricesArgs:
    """What was asked since then: by a provider, for a GPU (every memory size of it), or both for comparison.
    With neither, for every class of GPU."""

    gpu: Text = ""
    """A model or class, matched without case or separators."""
    provider: Text = ""
    """A peer id or the end of one, or the start of a name; must name one provider."""
    since_s: Annotated[int, Meta(ge=1, le=3 * 366 * 86_400)] = 7 * 86_400


@dataclass(frozen=True)
class PriceSpanView:
    """A candle. Hours of the last month, days before. Of a class the prices are of its middle offer."""

    start_ms: int
    span_s: int
    open_qu: int
    high_qu: int
    low_qu: int
    close_qu: int
    cheapest_qu: int
    """The lowest that anybody asked."""
    offers: int
    gpus: int
    """Free ones in these offers. Both as last seen."""


@dataclass(frozen=True)
class PriceSeriesView:
    """One provider or one class. A span that is missing closed as the one before it; the first span holds
    the price at the beginning, the last one what is asked now, if anything is."""

    gpu: str
    """Of a class: its name in the catalogue, or as filters compare it. Of a provider empty."""
    peer_id: str
    name: str
    """Both empty for a class."""
    spans: list[PriceSpanView]


@dataclass(frozen=True)
class PricesView:
    since_ms: int
    now_ms: int
    series: list[PriceSeriesView]
    """The provider's first."""
