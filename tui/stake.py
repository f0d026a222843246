"""`qubix stake`: this provider's record in the contract's registry."""

from __future__ import annotations

import argparse
import os
import sys

from rich.console import Group, RenderableType
from rich.text import Text

from protocol.control_market import StakeArgs, StakeView
from protocol.errors import DaemonUnreachable, UsageError
from tui import show
from tui.safe import safe_line
from tui.verbs import ask_patiently, tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("amount", nargs="?", metavar="QU", help="lock so much, or so much more; 0: renew it")
    parser.add_argument("--leave", action="store_true", help="leave; the stake comes back after an epoch")
    parser.add_argument("--id", metavar="ID", help="asked again with the same id it is done once")


async def stake(options: argparse.Namespace) -> int:
    add = None if options.amount is None else _whole(options.amount)
    if options.leave and add is not None:
        raise UsageError("either `qubix stake QU` or `qubix stake --leave`")
    changes = options.leave or add is not None
    payment_id = (options.id or os.urandom(8).hex()) if changes else ""
    try:
        view: StakeView = await ask_patiently(options, "stake", StakeArgs(payment_id, add, options.leave))
    except DaemonUnreachable:
        if changes:
            show.console(sys.stderr).print(
                Text(
                    f"Whether it was sent is not known; ask again with --id {payment_id} to do it only once."
                )
            )
        raise
    return tell(options, view, _sheet(view))


def _whole(text: str) -> int:
    digits = text.replace("_", "").replace(",", "")
    if not (digits.isascii() and digits.isdigit()):
        raise UsageError(f"{text[:64]!r} is not a whole number of QU")
    return int(digits)


def _sheet(view: StakeView) -> RenderableType:
    if not view.registered:
        return Text(safe_line(view.sentence, 300))
    stars = f", {view.stars / view.ratings:.1f} of 5 stars" if view.ratings else ""
    rows: list[tuple[str, str | Text]] = [
        ("stake", Text(f"{view.stake:,} QU", "bold")),
        ("leases", f"{view.completed:,} that paid {view.volume:,} QU"),
        ("disputes", f"{view.disputed:,}, {view.failed:,} of them lost"),
        ("ratings", f"{view.ratings:,}{stars}"),
        ("since", f"tick {view.since_tick:,}"),
    ]
    return Group(show.sheet(rows), Text(safe_line(view.sentence, 300)))
