"""`qubix doctor`: what works from this machine, what does not, and what to change, in plain words."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from protocol.control_doctor import DoctorArgs, DoctorView, Facts, FindingView, Level, OutlookView
from protocol.errors import MachineError
from tui import show
from tui.safe import safe_line
from tui.verbs import ask, tell

STYLES: Final = {Level.GOOD: show.GOOD, Level.NOTE: "yellow", Level.BAD: show.BAD}
MAX_SENTENCE_CHARS: Final = 500
NAT_WORDS: Final = {
    "none": "none: the address is this machine's own",
    "cone": "the router shows one outer port to all",
    "symmetric": "the router shows another outer port to each",
    "": "not known",
}


async def doctor(options: argparse.Namespace) -> int:
    """0 if nothing is wrong, else that of trouble with this machine."""
    view: DoctorView = await ask(options, "doctor", DoctorArgs())
    tell(options, view, screen(view))
    return MachineError.exit_code if any(one.level is Level.BAD for one in view.findings) else 0


def screen(view: DoctorView) -> RenderableType:
    """Everything for a person: first what to know, then what it follows from."""
    return Group(
        _verdict(view.findings),
        Text(),
        _findings(view.findings),
        Text("\nThe best way from here to ...", "bold"),
        _outlook(view.outlook),
        Text("\nWhat was found", "bold"),
        show.sheet(_found(view.facts)),
    )


def _verdict(findings: Sequence[FindingView]) -> Text:
    bad = sum(one.level is Level.BAD for one in findings)
    notes = sum(one.level is Level.NOTE for one in findings)
    better = f" {notes} {'thing' if notes == 1 else 'things'} could be better." if notes else ""
    if bad:
        words = "1 thing does" if bad == 1 else f"{bad} things do"
        return Text(f"{words} not work here.{better}", f"bold {show.BAD}")
    return Text(f"All that this node needs works.{better}", f"bold {show.GOOD}")


def _findings(findings: Sequence[FindingView]) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for one in findings:
        said = Text(safe_line(one.sentence, MAX_SENTENCE_CHARS))
        said.append(f" [{safe_line(one.code)}]", "dim")
        grid.add_row(Text(one.level.value, STYLES[one.level]), said)
        if one.change:
            grid.add_row(Text(), Text(f"To change it: {safe_line(one.change, MAX_SENTENCE_CHARS)}.", "bold"))
    return grid


def _outlook(outlook: Sequence[OutlookView]) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for one in outlook:
        style = {"": show.BAD, "relayed": "yellow", "wire": "yellow"}.get(one.path, show.GOOD)
        said = f"{safe_line(one.whom, 80)}: {safe_line(one.sentence, 80)}"
        grid.add_row(Text(safe_line(one.path, 8) or "none", style), Text(said))
    return grid


def _found(facts: Facts) -> Iterator[tuple[str, str]]:
    reachable = {True: "yes", False: "no", None: "nobody has tried"}[facts.reachable]
    where = f", at {', '.join(facts.reached_at)}" if facts.reached_at else ""
    ports = ", ".join(str(port) for port in facts.only_ports)
    clock = facts.clock_ahead_seconds
    yield "listens at", ", ".join(facts.listening) or "nowhere"
    if facts.announced:
        yield "announces", ", ".join(facts.announced)
    yield "own addresses", ", ".join(facts.own_ips) or "none"
    yield "seen as", ", ".join(facts.outside_ips) or "nobody has said"
    yield "reachable", f"{reachable}{where}"
    yield "translation", NAT_WORDS.get(facts.nat, facts.nat)
    yield "lets out", f"port {ports} only" if ports else "all ports, as far as tried"
    yield "IPv6", "yes" if facts.ipv6 else "no"
    yield "peers", f"{facts.peers}, {facts.relayed_peers} of them through a relay"
    yield "relays", ", ".join(facts.relays) or "none used"
    yield "directories", ", ".join(show.short_peer(peer) for peer in facts.directories) or "none known"
    yield "offers", f"{facts.offers} known"
    yield "chain", f"{facts.chain}, {facts.chain_error or f'tick {show.qu(facts.tick)}'}"
    yield "balance", "not known" if facts.balance is None else f"{show.qu(facts.balance)} QU"
    yield "jobs", f"run with {facts.runner}" if facts.provider else "none are taken"
    yield "clock", "not compared" if clock is None else f"{_ahead(clock)} others'"


def _ahead(seconds: float) -> str:
    if abs(seconds) < 0.1:
        return "agrees with"
    return f"{abs(seconds):,.1f} s {'ahead of' if seconds > 0 else 'behind'}"
