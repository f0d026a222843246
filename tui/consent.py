"""Asks a person whether to sign a quote. Says beforehand what can be lost."""

from __future__ import annotations

import asyncio
import sys
import time

from protocol.control import QuoteView
from protocol.units import BASIS_POINTS, FEE_BASIS_POINTS
from tui import show
from tui.safe import safe_line

FEE_PERCENT = 100 * FEE_BASIS_POINTS / BASIS_POINTS


def risk(quote: QuoteView) -> str:
    """The sentence that every front end shows before anything is signed."""
    return (
        f"You can lose at most {show.qu(quote.max_loss_qu)} QU = {quote.max_loss_intervals:.3g} intervals of "
        f"{quote.interval_seconds} s, whatever the provider does."
    )


def terms(quote: QuoteView) -> str:
    """One price, what is in it, and what that is for the whole rented time."""
    return (
        f"{safe_line(quote.provider, 40)} asks {show.qu(quote.price_qu_per_hour)} QU per hour, all in:\n"
        f"  machine {show.qu(quote.machine_qu_per_hour)}, disk {show.qu(quote.disk_qu_per_hour)}, "
        f"traffic 0; {show.qu(quote.fee_qu_per_hour)} of it are the fee of {FEE_PERCENT:g} %\n"
        f"  {show.duration(quote.max_seconds)} cost at most {show.qu(quote.deposit)} QU; so much is locked, "
        "what is not used comes back"
        + _closing(quote)
        + (f"\n  The way there, for playing: {safe_line(quote.way.sentence, 300)}" if quote.way else "")
    )


def _closing(quote: QuoteView) -> str:
    """The hour after which no time can be added; nothing for a provider without one."""
    if not quote.closes_at_ms:
        return ""
    closes = time.strftime("%a %H:%M", time.localtime(quote.closes_at_ms / 1_000))
    return f"\n  It closes {closes} (your clock): the job is over before, no time can be added beyond"


def can_ask() -> bool:
    """Is there a person at both ends?"""
    return sys.stdin.isatty() and sys.stderr.isatty()


async def answer(question: str = "Rent it?", *, usual: bool = True) -> bool:
    """Waits for a line on standard input; nothing means `usual`. Can be cancelled, unlike `input`."""
    sys.stderr.write(f"{question} {'[Y/n]' if usual else '[y/N]'} ")
    sys.stderr.flush()
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
    line = sys.stdin.readline()
    return bool(line) and line.strip().lower() in ("y", "yes", *([""] if usual else []))
