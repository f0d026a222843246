"""A lease in lines: for the pane below the table, and for its own page. Pure but for the clock.

`colours` are the theme's variables, as `App.theme_variables` has them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from protocol.control import LeaseView
from tui import show
from tui.safe import safe_line
from tui.screens import instances_model as model

LABEL_CHARS: Final = 11
Fact = tuple[str, str]


def status_text(lease: LeaseView, colours: Mapping[str, str]) -> Text:
    """ "▶ running", in the colour of its tone."""
    status = model.status_of(lease)
    return Text(f"{status.mark} {status.word}", f"bold {colours.get(model.TONES[status.tone], '')}".strip())


def brief(lease: LeaseView, colours: Mapping[str, str], *, all_of_it: bool) -> Group:
    """For the pane beside the table: a few lines, or all where there is room."""
    head = Text.assemble(status_text(lease, colours), "  ", (safe_line(lease.name, 60), "bold"))
    if all_of_it:
        return Group(head, sheet(facts(lease)))
    return Group(head, Text(model.status_of(lease).sentence), sheet(brief_facts(lease)))


def sheet(facts: list[Fact]) -> Table:
    """Labels and values; values are folded and cut nowhere."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=LABEL_CHARS, style="dim")
    table.add_column(overflow="fold")
    for label, value in facts:
        table.add_row(Text(label), Text(value))
    return table


def brief_facts(lease: LeaseView) -> list[Fact]:
    return [
        ("machine", f"{model.what_of(lease)} of {show.short_peer(safe_line(lease.peer_id))}"),
        ("started", f"{when(lease.started_at_ms or lease.opened_at_ms)}, {time_words(lease)}"),
        ("cost", cost_words(lease)),
    ]


def facts(lease: LeaseView) -> list[Fact]:
    """All that is known of it."""
    status = model.status_of(lease)
    found: list[Fact] = [
        ("lease", safe_line(lease.lease_id)),
        ("now", status.sentence or status.word),
        ("machine", model.what_of(lease)),
        ("provider", safe_line(lease.peer_id)),
        ("image", safe_line(lease.image)),
        ("runs with", safe_line(lease.runner)),
        ("opened", when(lease.opened_at_ms)),
        ("started", when(lease.started_at_ms) if lease.started_at_ms else "not yet"),
    ]
    if lease.phase in model.ENDED:
        found += [("ended", when(lease.ended_at_ms)), ("because", safe_line(lease.reason) or "-")]
    if lease.exit_code is not None:
        found.append(("exit code", str(lease.exit_code)))
    found += [("time", time_words(lease)), ("cost", cost_words(lease))]
    if lease.path is not None:
        found.append(("reached", show.path_words(lease.path)))
    if lease.outputs_sha256.strip("0") and lease.phase == "done":
        found.append(("outputs", safe_line(lease.output_dir)))
    return found


def when(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1_000)) if at_ms else "-"


def time_words(lease: LeaseView) -> str:
    """ "12m00s of 2h00m used, 1h48m left"."""
    used = f"{show.duration(lease.seconds)} of {show.duration(lease.max_seconds)} used"
    return used if lease.phase in model.ENDED else f"{used}, {show.duration(model.seconds_left(lease))} left"


def cost_words(lease: LeaseView) -> str:
    """ "6,000 of 30,000 QU, 360,000 QU/h"."""
    price = f"at {show.qu(lease.price_qu_per_hour)} QU/h"
    if lease.settled:
        return f"{show.qu(lease.paid)} QU {price}, {show.qu(lease.refunded)} QU came back"
    left = f"{show.qu(model.money_left(lease))} QU of the deposit left"
    return f"{show.qu(lease.promised)} QU so far {price}, {left}"
