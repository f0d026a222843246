"""Canned answers for the full-screen front end: fixed times, fixed ids. Each area has a section.

`ANSWERS[verb]` is what the verb answers, or a function of its arguments that gives it; `EVENTS[verb]` is
what comes before it. A screen's tests give their own instead: `running_app(answers={"wallet": ...})`.
"""

from __future__ import annotations

from typing import Any

from protocol.control_watch import WatchEvent
from tests.support import market_views, network_views, provider_views, tui_instances, tui_wallet, views

NOW_MS = 1_788_000_000_000
"""The moment of all canned views."""

ANSWERS: dict[str, Any] = {
    # --- for all
    "status": views.STATUS,
    # --- market
    **market_views.ANSWERS,
    # --- launch
    # --- instances
    **tui_instances.ANSWERS,
    # --- wallet
    **tui_wallet.ANSWERS,
    # --- provider
    "provider": provider_views.provider(shop=provider_views.shop(schedule=network_views.NIGHTS)),
    "preview": network_views.preview(),
    # --- network
    "network": network_views.network(),
}
EVENTS: dict[str, list[Any]] = {
    # --- for all
    "watch": [WatchEvent("present", NOW_MS)],
    # --- instances
    "logs": tui_instances.LOG_EVENTS,
}
"""A verb with events here but no answer never ends."""
