"""`qubix notices`: what happened, also while nobody watched."""

from __future__ import annotations

import argparse
import time

from rich.text import Text

from protocol.control_watch import NOTICES_IN_LEDGER, NoticesArgs, NoticesView
from tui import argument, show
from tui.safe import safe_line
from tui.verbs import ask, tell

MARKS = {"good": ("✓", show.GOOD), "bad": ("✗", show.BAD), "warning": ("!", "bold")}
"""Severity -> a sign that needs no colour, and its style."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit", type=argument.count, default=NOTICES_IN_LEDGER, metavar="N", help="the last N (100)"
    )
    parser.add_argument(
        "--after", type=argument.amount, default=0, metavar="NUMBER", help="only those after that one"
    )


async def notices(options: argparse.Namespace) -> int:
    args = NoticesArgs(limit=min(options.limit, NOTICES_IN_LEDGER), after=options.after)
    view: NoticesView = await ask(options, "notices", args)
    return tell(options, view, screen(view))


def screen(view: NoticesView) -> Text:
    """Oldest first, so that the newest stands where one reads on."""
    if not view.notices:
        return Text("Nothing has happened that one would want to hear of.")
    return Text("\n").join(_line(view, place) for place in reversed(range(len(view.notices))))


def _line(view: NoticesView, place: int) -> Text:
    one = view.notices[place].notice
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.at_ms / 1_000))
    mark, style = MARKS.get(one.severity, ("·", ""))
    return Text.assemble((f"{when} ", "dim"), (f"{mark} ", style), safe_line(one.sentence, 300))
