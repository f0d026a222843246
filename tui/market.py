"""`qubix market`, `why`, `score`, `deny`, `directories`: ask the daemon about the market, show what it says.

All choosing, ordering and explaining is the daemon's; here are only words and columns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from rich.text import Text

from protocol.control_market import (
    DenyArgs,
    DenyView,
    DirectoriesArgs,
    DirectoriesView,
    MarketArgs,
    MarketView,
    ScoreArgs,
    ScoreView,
    WhyArgs,
    WhyView,
)
from protocol.errors import FilesInvalid, UsageError
from protocol.job_resources import mib_of
from tui import argument, market_screens, show
from tui.processes import error_in, module_command
from tui.run import add_conditions, conditions, read_job
from tui.safe import safe_line
from tui.verbs import ask, out, tell

# --- arguments --------------------------------------------------------------------------------


def market_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "filter", nargs="*", metavar="FILTER", help="conditions, e.g. vram>=24 'price<=12000' region=eu"
    )
    parser.add_argument("--for", dest="use_case", default="", metavar="WHAT", help="order by fitness for it")
    parser.add_argument(
        "--sort", default="", metavar="KEYS", help="e.g. price,-score (- puts the most first)"
    )
    parser.add_argument("--gpu", default="", metavar="MODEL", help="only with this GPU, e.g. RTX4090")
    parser.add_argument("--image", default="", metavar="IMAGE", help="estimate when a job with it starts")
    parser.add_argument("--disk", type=_size, metavar="SIZE", help="disk contained in the price (10GB)")
    parser.add_argument("--measure", action="store_true", help="measure the round trip to the first ones")
    parser.add_argument(
        "--limit", type=argument.count, metavar="N", help="at most N offers (20; 10 with --for)"
    )


def why_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", nargs="?", metavar="job.yaml", help="the job file; none: the last failed run")
    parser.add_argument("--ask", action="store_true", help="ask those that fit for quotes; takes none")
    parser.add_argument("--provider", default="", metavar="P", help="only this one; a peer id or a name")
    add_conditions(parser)


def score_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("provider", nargs="?", default="", metavar="PROVIDER", help="a name or peer id")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--export", metavar="FILE", help="write all that the score is computed from")
    choice.add_argument("--evidence", metavar="FILE", help="compute a score again; needs no daemon")


def deny_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("add", "remove", "list"), help="what to do")
    parser.add_argument("provider", nargs="?", default="", metavar="PROVIDER", help="a name or peer id")


def _size(text: str) -> int:
    try:
        return mib_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


# --- verbs --------------------------------------------------------------------------------------


async def market(options: argparse.Namespace) -> int:
    args = MarketArgs(
        gpu=options.gpu,
        limit=options.limit or (10 if options.use_case else 20),
        filter=" ".join(options.filter),
        sort=options.sort,
        use_case=options.use_case,
        image=options.image,
        measure=options.measure,
    )
    if options.disk:
        args = MarketArgs(**{**vars(args), "disk_mib": options.disk})
    view: MarketView = await ask(options, "market", args)
    screen = market_screens.market(view, args, out().width)
    return tell(options, view, screen)


async def why(options: argparse.Namespace) -> int:
    text = read_job(Path(options.job))[0] if options.job else ""
    where = conditions(options)
    if not text and (options.ask or options.provider or where):
        raise UsageError("the last failed run is explained as it was; name a job file to change something")
    view: WhyView = await ask(options, "why", WhyArgs(text, options.ask, where, options.provider))
    return tell(options, view, market_screens.why(view))


async def score(options: argparse.Namespace) -> int:
    if bool(options.provider) == bool(options.evidence):
        raise UsageError("name a provider, or a file with --evidence; `qubix score --help` shows how")
    if options.evidence:
        return await _recompute(options)
    view: ScoreView = await ask(options, "score", ScoreArgs(options.provider, bool(options.export)))
    if options.export:
        _write_new(Path(options.export), view.evidence)
    if options.json:
        show.print_json(view)
        return 0
    out().print(market_screens.score(view), soft_wrap=True)
    if options.export:
        out().print(
            Text(f"The evidence is in {options.export}; `qubix score --evidence FILE` computes it again."),
            soft_wrap=True,
        )
    return 0


def _write_new(path: Path, text: str) -> None:
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise FilesInvalid(f"{path} is there already; name another file with --export") from error
    except OSError as error:
        raise FilesInvalid(f"{path} cannot be written: {error.strerror}") from error


async def _recompute(options: argparse.Namespace) -> int:
    """In a process of its own: computing it needs the daemon's code, not a daemon."""
    process = await asyncio.create_subprocess_exec(
        *module_command("qubixd.evidence", options.evidence),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()
    if process.returncode:
        lines = [safe_line(line) for line in stderr.decode(errors="replace").splitlines()]
        raise error_in("check of the evidence", lines, process.returncode)
    answer: dict[str, Any] = json.loads(stdout)
    if options.json:
        sys.stdout.write(json.dumps(answer) + "\n")
    else:
        out().print(market_screens.recomputed(answer), soft_wrap=True)
    return 0


async def deny(options: argparse.Namespace) -> int:
    if (options.what == "list") == bool(options.provider):
        raise UsageError("`qubix deny add PROVIDER`, `qubix deny remove PROVIDER` or `qubix deny list`")
    args = DenyArgs(**{} if options.what == "list" else {options.what: options.provider})
    view: DenyView = await ask(options, "deny", args)
    return tell(options, view, market_screens.deny(view))


async def directories(options: argparse.Namespace) -> int:
    view: DirectoriesView = await ask(options, "directories", DirectoriesArgs())
    return tell(options, view, market_screens.directories(view))
