"""`qubix extend`: more time for a running job. Says what it takes before anything is paid."""

from __future__ import annotations

import argparse
import os
import sys
import time

from rich.text import Text

from protocol.control_extend import ExtendArgs, ExtendView
from protocol.errors import DaemonUnreachable, QuoteDeclined
from tui import argument, consent, show
from tui.safe import safe_line
from tui.verbs import ask, ask_patiently, tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    argument.lease(parser)
    parser.add_argument(
        "--hours", required=True, type=argument.span, metavar="TIME", help="how much more: 2, 1h30m, 90m"
    )
    parser.add_argument(
        "--max-cost", type=argument.amount, metavar="QU", help="add nothing if the time costs more"
    )
    parser.add_argument("-y", "--yes", action="store_true", help="pay for it without asking")
    parser.add_argument("--check", action="store_true", help="only say what it would take")
    parser.add_argument("--id", metavar="ID", help="asked again with the same id it is added once")


async def extend(options: argparse.Namespace) -> int:
    order, most = options.id or os.urandom(8).hex(), options.max_cost
    asks = not (options.yes or options.json or options.check) and consent.can_ask()
    if options.check or asks:
        look = ExtendArgs(options.lease, options.hours, order, most, check=True)
        view: ExtendView = await ask(options, "extend", look)
        if options.check:
            return tell(options, view, sheet(view))
        show.console(sys.stderr).print(sheet(view))
        if not await consent.answer("Add it?"):
            raise QuoteDeclined("no time was added; nothing was paid")
        most = view.cost_qu
    try:
        view = await ask_patiently(options, "extend", ExtendArgs(options.lease, options.hours, order, most))
    except DaemonUnreachable:
        show.console(sys.stderr).print(
            Text(f"Whether it was added is not known here; ask again with --id {order} to add it only once.")
        )
        raise
    return tell(options, view, sheet(view))


def sheet(view: ExtendView) -> Text:
    """What is added or would be, and what one can lose by it."""
    lease = view.lease
    job = f"{safe_line(lease.name, 40)} ({show.short_id(lease.lease_id)})"
    rows: list[tuple[str, str | Text]] = [("job", job)]
    if view.seconds:
        cost = f"{show.qu(view.cost_qu)} QU, as before {show.qu(lease.price_qu_per_hour)} an hour"
        rows += [("more time", show.duration(view.seconds)), ("costs", Text(cost, "bold"))]
    rows += [
        ("in all", show.duration(view.max_seconds)),
        ("ends", f"{moment(view.ends_at_ms)} (your clock), if it runs on"),
        ("deposit", _deposit(view)),
        ("at risk", f"at most {show.qu(view.max_loss_qu)} QU, whatever the provider does"),
    ]
    if view.closes_at_ms:
        rows.append(("it closes", f"{moment(view.closes_at_ms)} (your clock); no time goes beyond"))
    if view.state == "extended":
        rows.append(("state", show.cell("added: the money is locked", show.GOOD)))
    return show.sheet(rows)


def _deposit(view: ExtendView) -> str:
    new = f", {show.qu(view.locks_qu)} of them new" if view.locks_qu else ""
    wallet = f"(wallet: {show.qu(view.balance)} QU)"
    return f"{show.qu(view.deposit)} QU{new}; what is not used comes back {wallet}"


def moment(at_ms: int) -> str:
    """ "Sun 14:03"."""
    return time.strftime("%a %H:%M", time.localtime(at_ms / 1_000))
