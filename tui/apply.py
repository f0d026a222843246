"""`qubix apply`: what a job file says, made so. Asked again it does nothing more.

What runs otherwise is ended only once another machine is rented, unless its deposit is wanted back first.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.text import Text

from protocol.control import LeaseView, RunArgs, RunEvent, StopArgs, WaitArgs
from protocol.control_compare import CompareArgs, CompareView, FieldChange
from protocol.errors import BalanceTooLow, NoOffer, QuoteDeclined, UsageError
from protocol.lease_state import TERMINAL
from tui import consent, run, show
from tui.client import Client
from tui.safe import safe_line, safe_text

NOTHING, START, REPLACE = "nothing", "start", "replace"
MARKS: Final = {"-": show.BAD, "+": show.GOOD}
MAX_LINES: Final = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--file", required=True, metavar="job.yaml", help="the job file")
    parser.add_argument("--diff", action="store_true", help="only say what would be done")
    parser.add_argument("--follow", action="store_true", help="stay until the job has ended")
    parser.add_argument(
        "--end-first", action="store_true", help="end what differs before another machine is sought"
    )
    run.add_hiring(parser)
    parser.add_argument(
        "-y", "--yes", action="store_true", help="sign the quote, and end what differs, unasked"
    )


async def apply(options: argparse.Namespace) -> int:
    path = Path(options.file)
    text, job = run.read_job(path)
    options.detach = not options.follow
    folder = path.absolute().parent
    async with run.daemon_of(options) as client:
        view: CompareView = await client.call("compare", CompareArgs(text, str(folder)))
        action = _action(job.name, view)
        _tell(options, job.name, action, view)
        if options.diff or action == NOTHING:
            return 0
        args = replace(run.request(options, text, job, folder), sole=True)
        if action == START:
            return await run.hire(client, options, args)
        _check_can_ask(options)
        if not options.end_first:
            return await _hire_then_end(client, options, args, view.leases[0])
        if not options.yes and not await consent.answer("End it and start it anew?", usual=False):
            raise QuoteDeclined("the job goes on as it was")
        await _end(client, options, view.leases[0])
        return await run.hire(client, options, args)


async def _hire_then_end(client: Client, options: argparse.Namespace, args: RunArgs, lease: LeaseView) -> int:
    """The daemon ends the one once the other is open; without a machine for it, or a yes, all stays."""
    short, place = show.short_id(lease.lease_id), safe_line(lease.output_dir, 200)
    _say(options, f"Lease {short} is ended once another is open; what it leaves goes to {place}.")
    args, question = replace(args, replaces=lease.lease_id), f"Rent it, and end lease {short} then?"
    try:
        return await run.hire(client, options, args, question=question, usual=False)
    except (BalanceTooLow, NoOffer):
        _say(
            options, f"Lease {short} goes on as it was. Its deposit and its machine are free for another one"
        )
        _say(options, "with --end-first; then nothing runs until one is found.")
        raise


def _action(name: str, view: CompareView) -> str:
    """UsageError where it is not clear which job is meant."""
    if len(view.leases) > 1:
        ids = ", ".join(show.short_id(one.lease_id) for one in view.leases)
        raise UsageError(
            f"{len(view.leases)} jobs called {name} go on ({ids}); stop all but one of them first"
        )
    return START if not view.leases else REPLACE if view.changes else NOTHING


def _tell(options: argparse.Namespace, name: str, action: str, view: CompareView) -> None:
    if options.json:
        lease = view.leases[0] if view.leases else None
        show.print_json({"apply": {"action": action, "lease": lease, "changes": view.changes}})
        return
    screen = show.console(sys.stdout)
    short = show.short_id(view.leases[0].lease_id) if view.leases else ""
    if action == NOTHING:
        screen.print(Text(f"{name} goes on as the file says (lease {short}); nothing to do."))
    elif action == START:
        words = "would be started" if options.diff else "is started"
        screen.print(Text(f"{name} does not run; it {words}."))
    else:
        screen.print(Text(f"{name} (lease {short}) is not as the file says:"))
        for line in changed_lines(view.changes):
            screen.print(Text("  " + safe_line(line, 300), MARKS.get(line[:1], "bold")), soft_wrap=True)


def changed_lines(changes: Sequence[FieldChange]) -> Iterator[str]:
    """Field by field: what is there now with a `-`, what the file says with a `+`; nothing that is both."""
    left = MAX_LINES
    for one in changes:
        yield f"{one.field}:"
        for line in difflib.ndiff(safe_text(one.before).splitlines(), safe_text(one.after).splitlines()):
            if line[:1] in MARKS and left:
                left -= 1
                yield line
    if not left:
        yield "and more"


def _check_can_ask(options: argparse.Namespace) -> None:
    """UsageError where nobody can be asked and nobody has said yes."""
    if not options.yes and (options.json or not consent.can_ask()):
        raise UsageError("the job would be ended and started anew; say --yes, or --diff only to look")


def _say(options: argparse.Namespace, words: str) -> None:
    if not options.json:
        show.console(sys.stderr).print(Text(words), soft_wrap=True)


async def _end(client: Client, options: argparse.Namespace, lease: LeaseView) -> None:
    """Stop a job and wait until its outputs are here and its escrow is settled."""
    event: RunEvent = await client.call("stop", StopArgs(lease.lease_id))
    if event.lease and event.lease.phase in TERMINAL:
        return
    short, place = show.short_id(lease.lease_id), safe_line(lease.output_dir, 200)
    _say(options, f"Ending lease {short}; its outputs go to {place}.")
    async with aclosing(client.stream("wait", WaitArgs(lease.lease_id))) as items:
        async for item in items:
            if options.json:
                show.print_json({"event": item})
