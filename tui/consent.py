"""Asks a person whether to sign a quote. Says beforehand what can be lost."""

from __future__ import annotations

import asyncio
import sys

from protocol.control import QuoteView
from tui import show
from tui.safe import safe_line


def risk(quote: QuoteView) -> str:
    """The sentence that every front end shows before anything is signed."""
    return (
        f"You can lose at most {show.qu(quote.max_loss_qu)} QU = {quote.max_loss_intervals:.3g} intervals of "
        f"{quote.interval_seconds} s, whatever the provider does."
    )


def terms(quote: QuoteView) -> str:
    """The price of it, in a line."""
    return (
        f"{safe_line(quote.provider, 40)} asks {show.qu(quote.price_qu_per_hour)} QU per hour for at most "
        f"{show.duration(quote.max_seconds)}; {show.qu(quote.deposit)} QU will be locked."
    )


def can_ask() -> bool:
    """Is there a person at both ends?"""
    return sys.stdin.isatty() and sys.stderr.isatty()


async def answer() -> bool:
    """Waits for a line on standard input: yes or nothing means yes. Can be cancelled, unlike `input`."""
    sys.stderr.write("Rent it? [Y/n] ")
    sys.stderr.flush()
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
    line = sys.stdin.readline()
    return bool(line) and line.strip().lower() in ("", "y", "yes")
