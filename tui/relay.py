"""`qubix relay`: the relays through which this node is reached, and renting one."""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import aclosing
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from protocol.control import ConfirmArgs, LeaseView, RunEvent
from protocol.control_relay import (
    MAX_RENTED_SECONDS,
    OwnRelayView,
    RelayArgs,
    RelaysView,
    RentRelayArgs,
    UsedRelayView,
)
from protocol.errors import UsageError
from protocol.lease_state import TERMINAL
from tui import consent, show
from tui.client import connect
from tui.places import control_socket, data_dir
from tui.run import INTERRUPTED, failure
from tui.safe import safe_line
from tui.verbs import ask, tell

HOUR_SECONDS: Final = 3_600
MIB: Final = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", default="", metavar="rent", help="rent one; else only look")
    parser.add_argument("peer", nargs="?", default="", metavar="PEER", help="a peer id or address of a relay")
    parser.add_argument("--hours", type=float, default=1.0, metavar="N", help="how long to rent it (1)")
    parser.add_argument("--max-price", type=int, metavar="QU_PER_HOUR", help="refuse a dearer one")
    parser.add_argument("-y", "--yes", action="store_true", help="sign the quote without asking")


async def relay(options: argparse.Namespace) -> int:
    if options.what == "rent":
        return await _rent(options)
    if options.peer:
        raise UsageError("`qubix relay [PEER]` looks, `qubix relay rent [PEER]` rents")
    view: RelaysView = await ask(options, "relay", RelayArgs(options.what))
    return tell(options, view, screen(view))


# --- looking --------------------------------------------------------------------------------------


def screen(view: RelaysView) -> RenderableType:
    if not view.relays and view.own is None:
        return Text(
            "This node is reached through no relay. `--use-relay ADDRESS` names one; `--relay` makes this "
            "node one for others."
        )
    return Group(*(_relay(one) for one in view.relays), *([_own(view.own)] if view.own else []))


def _relay(one: UsedRelayView) -> Text:
    rows: list[tuple[str, str | Text]] = [
        ("relay", Text(safe_line(one.peer_id), "bold")),
        ("used", "this node is reached through it" if one.used else "no"),
    ]
    if one.sentence:
        return show.sheet([*rows, ("trouble", safe_line(one.sentence, 300))])
    limit = f", {one.bytes_per_second / MIB:.3g} MiB/s at most" if one.bytes_per_second else ""
    gone = f"{one.gone_bytes / MIB:,.0f} of {one.free_bytes / MIB:,.0f} MiB are gone today{limit}"
    rows.append(("for nothing", gone))
    if one.rented:
        rows.append(("rented", f"lease {show.short_id(one.rented)}; nothing of it is counted"))
    price = f"{show.qu(one.price_qu_per_hour)} QU an hour, without limits"
    rows.append(("price", price if one.price_qu_per_hour else "it is not for rent"))
    return show.sheet(rows)


def _own(own: OwnRelayView) -> Text:
    price = f"{show.qu(own.price_qu_per_hour)} QU an hour" if own.price_qu_per_hour else "not for rent"
    return show.sheet(
        [
            ("this node", Text("relays for others", "bold")),
            ("places taken", f"{own.places}; connections now: {own.joined}"),
            ("price", f"{price}; rented by {own.renters} now"),
        ]
    )


# --- renting --------------------------------------------------------------------------------------


async def _rent(options: argparse.Namespace) -> int:
    """Follows the lease until it runs; it goes on without us."""
    args = RentRelayArgs(
        relay=options.peer,
        seconds=_seconds(options.hours),
        max_price_qu_per_hour=options.max_price,
        ask=not (options.yes or options.json) and consent.can_ask(),
    )
    lease: LeaseView | None = None
    err = show.console(sys.stderr)
    try:
        async with (
            connect(control_socket(data_dir(options.data_dir))) as client,
            aclosing(client.stream("rent_relay", args)) as events,
        ):
            async for event in events:
                lease = event.lease or lease
                if options.json:
                    show.print_json({"event": event})
                elif event.quote:
                    _show_quote(event)
                if event.quote and args.ask:
                    await client.call("confirm", ConfirmArgs(event.quote.token, await consent.answer()))
    except asyncio.CancelledError:
        if lease is not None and lease.phase not in TERMINAL:
            err.print(Text(f"It goes on; `qubix stop {show.short_id(lease.lease_id)}` ends it."))
        return INTERRUPTED
    assert lease is not None, "the daemon answers with a lease"
    if error := failure(lease):
        raise error
    short = show.short_id(lease.lease_id)
    words = f"The relay is yours for {show.duration(args.seconds)} at most: lease {short}."
    hint = f"`qubix metrics {short}` shows what goes through, `qubix stop {short}` ends it."
    return tell(options, lease, Text(f"{words} {hint}"))


def _seconds(hours: float) -> int:
    seconds = round(hours * HOUR_SECONDS)
    if not 1 <= seconds <= MAX_RENTED_SECONDS:
        raise UsageError(f"--hours must be more than 0 and at most {MAX_RENTED_SECONDS // HOUR_SECONDS}")
    return seconds


def _show_quote(event: RunEvent) -> None:
    assert event.quote is not None
    err = show.console(sys.stderr)
    err.print(Text(consent.terms(event.quote)))
    err.print(Text(consent.risk(event.quote), "bold"))
