"""`qubix run`: hand a job file to the daemon, follow it to its end, say what it cost."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.status import Status
from rich.text import Text

from protocol import jobspec
from protocol.control import ConfirmArgs, LeaseView, QuoteView, RunArgs, RunEvent
from protocol.control_again import JobFileArgs, JobFileView
from protocol.errors import DaemonUnreachable, FilesInvalid, JobFailed, JobFileInvalid, QubixError, UsageError
from protocol.lease_state import TERMINAL
from protocol.query import parse_filter, parse_sort
from tui import argument, consent, one_line, show, ssh_config, up
from tui.client import Client, connect, error_of
from tui.keys import keys_of
from tui.places import control_socket, data_dir
from tui.safe import safe_line, safe_text
from tui.ssh_keys import Keys

INTERRUPTED: Final = 130
"""Exit code after Ctrl-C, as shells have it."""
MIN_DETAIL: Final = 50
SPINNER_CHARS: Final = 12
"""Of a line with a spinner, what is not its text."""
AGREED: Final = ("lease.duration_reached", "lease.idle", "lease.budget_reached")
"""Ends that the job file asks for: whatever the job's exit code, nothing has failed."""
PHASE_WORDS: Final = {
    "packing": "packing the input files",
    "quoting": "asking for quotes",
    "quoted": "signing the terms",
    "funding": "locking the deposit",
    "provisioning": "preparing the job",
    "running": "running the job",
    "stopping": "fetching the outputs",
    "settling": "settling the escrow",
}


CHOICES: Final = (
    ("--region", "region=", "REGION", "only providers who say they are there"),
    ("--min-score", "score>=", "SHARE", "only providers with at least this score"),
    ("--min-reliability", "reliability>=", "SHARE", "only providers this reliable, e.g. 95%%"),
    ("--max-rtt", "rtt<=", "MS", "only providers no further away, e.g. 50ms"),
)
"""Flags that are short for a condition: (flag, beginning of the condition, metavar, help)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="job.yaml", nargs="?", help="the job file")
    parser.add_argument("--again", metavar="LEASE", default="", help="the same as this lease, ended or not")
    add_hiring(parser)
    parser.add_argument("--detach", action="store_true", help="come back once the lease is open")
    parser.add_argument("-y", "--yes", action="store_true", help="sign the quote without asking")
    one_line.add_arguments(parser)


def add_hiring(parser: argparse.ArgumentParser) -> None:
    """Whom to hire, and what becomes of it."""
    parser.add_argument(
        "--max-price", type=argument.amount, metavar="QU_PER_HOUR", help="refuse dearer offers"
    )
    parser.add_argument("--output", metavar="DIR", help="folder for the output files; new or empty")
    parser.add_argument("--provider", default="", metavar="P", help="a peer id or the start of a name")
    add_conditions(parser)
    parser.add_argument("--order-by", default="", metavar="KEYS", help="who comes first, e.g. price,-score")
    parser.add_argument("--up", action="store_true", help="start the daemon first if none runs")


def add_conditions(parser: argparse.ArgumentParser) -> None:
    """What a provider must be like, beside what the job file says."""
    for flag, _, metavar, text in CHOICES:
        parser.add_argument(flag, default="", metavar=metavar, help=text)
    parser.add_argument("--filter", default="", metavar="FILTER", help="more conditions, e.g. 'cpus>=8'")


def conditions(options: argparse.Namespace) -> str:
    """All of them in the filter language. QueryInvalid if there is something wrong with one."""
    said = [
        f"""{start}'{value.replace("'", " ")}'"""
        for flag, start, _, _ in CHOICES
        if (value := getattr(options, flag.removeprefix("--").replace("-", "_")))
    ]
    text = " ".join([*([options.filter] if options.filter else []), *said])
    parse_filter(text)
    return text


async def run(options: argparse.Namespace) -> int:
    if options.again:
        return await _again(options)
    if options.dry_run:
        return _show_job(options)
    args = request(options, *asked_job(options))
    async with daemon_of(options) as client:
        return await hire(client, options, args)


async def _again(options: argparse.Namespace) -> int:
    """With what the daemon kept of that job; conditions said now count instead of those of then."""
    words = [one for one in one_line.given(options) if one != "--dry-run"]
    if options.job or words:
        raise UsageError(f"--again has its own job file; leave {options.job or words[0]} out")
    async with daemon_of(options) as client:
        kept: JobFileView = await client.call("job_file", JobFileArgs(options.again))
        if options.dry_run:
            return _print_job(options, kept.job_yaml)
        now = request(options, kept.job_yaml, jobspec.parse(kept.job_yaml), Path(kept.base_dir))
        price = kept.max_price_qu_per_hour if options.max_price is None else options.max_price
        args = replace(
            now,
            where=now.where or kept.where,
            order_by=now.order_by or kept.order_by,
            provider=now.provider or kept.provider,
            max_price_qu_per_hour=price,
        )
        return await hire(client, options, args)


async def hire(
    client: Client,
    options: argparse.Namespace,
    args: RunArgs,
    *,
    question: str = "Rent it?",
    usual: bool = True,
) -> int:
    """Rent a machine and follow the job; the exit code, or the error that ended it. `usual` is what nothing
    typed means where the question is asked."""
    follower = Follower(options)
    try:
        async with aclosing(client.stream("run", args)) as items:
            async for event in items:
                if event.lease and not follower.lease:
                    await ssh_config.refresh(client, options)
                follower.take(event)
                if event.quote and args.ask:
                    yes = await consent.answer(question, usual=usual)
                    await client.call("confirm", ConfirmArgs(event.quote.token, yes))
    except asyncio.CancelledError:
        return follower.interrupted()
    finally:
        follower.close()
    return follower.end()


@asynccontextmanager
async def daemon_of(options: argparse.Namespace) -> AsyncIterator[Client]:
    """The daemon of this node; with --up one that has just been started, if none answered."""
    place = control_socket(data_dir(options.data_dir))
    if options.up and not await _answers(place):
        await up.start_plainly(options)
    async with connect(place) as client:
        yield client


async def _answers(place: Path) -> bool:
    try:
        async with connect(place):
            return True
    except DaemonUnreachable:
        return False


def request(options: argparse.Namespace, text: str, job: jobspec.Job, folder: Path) -> RunArgs:
    """The checked request. A missing secret and a used output folder end here."""
    parse_sort(options.order_by)
    price = job.max_price_qu_per_hour if options.max_price is None else options.max_price
    return RunArgs(
        job_yaml=text,
        base_dir=str(folder),
        output_dir=str(_output_dir(options.output, job.name)),
        secrets=secrets_of(job, keys_of(options)),
        max_price_qu_per_hour=price,
        provider=options.provider,
        detach=options.detach,
        where=conditions(options),
        order_by=options.order_by,
        ask=not (options.yes or options.json) and consent.can_ask(),
    )


def asked_job(options: argparse.Namespace) -> tuple[str, jobspec.Job, Path]:
    """The job file's text, what it says, and where its files are. UsageError, JobFileInvalid."""
    words = one_line.given(options)
    if options.job and words:
        raise UsageError(f"{words[0]} is for a job without a file; write it into {options.job} instead")
    if options.job:
        path = Path(options.job)
        return *read_job(path), path.absolute().parent
    text = one_line.job_file(options, Path())
    return text, jobspec.parse(text), Path.cwd()


def _show_job(options: argparse.Namespace) -> int:
    text, _, _ = asked_job(options)
    return _print_job(options, text)


def _print_job(options: argparse.Namespace, text: str) -> int:
    if options.json:
        show.print_json({"job_yaml": text})
    else:
        sys.stdout.write(safe_text(text) if sys.stdout.isatty() else text)
    return 0


def read_job(path: Path) -> tuple[str, jobspec.Job]:
    """A job file's text and what it says. JobFileInvalid names the file."""
    text = _read_text(path)
    try:
        return text, jobspec.parse(text)
    except JobFileInvalid as error:
        raise JobFileInvalid(f"{path}: {error}") from error


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(jobspec.MAX_FILE_BYTES + 1).decode()
    except UnicodeDecodeError as error:
        raise JobFileInvalid(f"{path} is not UTF-8 text") from error
    except OSError as error:
        raise JobFileInvalid(f"cannot read the job file {path}: {error.strerror}") from error


def secrets_of(job: jobspec.Job, keys: Keys) -> dict[str, str]:
    """From the environment; the SSH key from the keys here. The daemon makes what else can be made."""
    made, values = job.makes, {}
    for name in job.secrets:
        if name in os.environ:
            values[name] = os.environ[name]
        elif made.get(name) == "ssh_public_key":
            values[name] = keys.used().public
        elif name not in made:
            raise JobFileInvalid(f"the job needs the secret {name}; set it in the environment and run again")
    return values


def _output_dir(chosen: str | None, name: str) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = Path(chosen or f"{name}-{stamp}").resolve()
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FilesInvalid(f"the output folder {path} is not empty; name another with --output")
    return path


class Follower:
    """Turns what the daemon tells of one job into progress, JSON lines and an exit code."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.lease: LeaseView | None = None
        self._json: bool = options.json
        self._detach: bool = options.detach
        self._console = show.console(sys.stderr)
        self._live = sys.stderr.isatty() and not self._json
        self._phase = self._asked = ""
        self._since = time.monotonic()
        self._spinner: Status | None = None
        self._waiting = ""

    def take(self, event: RunEvent) -> None:
        """An event; the answer comes last and looks the same."""
        self.lease = event.lease or self.lease
        if self._json:
            show.print_json({"event": event})
            return
        if event.waiting != self._waiting:
            self._waiting = event.waiting
            show.say_waiting(self._console, event.waiting)
        if event.quote:
            self._quote(event.quote)
        elif self._live:
            self._progress(event)

    def close(self) -> None:
        """Take the spinner off the screen."""
        if self._spinner:
            self._spinner.stop()
            self._spinner = None

    def interrupted(self) -> int:
        """Ctrl-C: the job is not ours to end by accident."""
        self.close()
        if self.lease is None:
            self._console.print(Text("Nothing was started and nothing is owed."))
        elif self.lease.phase not in TERMINAL:
            short = show.short_id(self.lease.lease_id)
            self._console.print(Text(f"The job goes on. `qubix logs -f {short}` shows what it says,"))
            self._console.print(Text(f"`qubix ps` what it costs, `qubix stop {short}` ends it."))
        return INTERRUPTED

    def end(self) -> int:
        """Show the result; the error that ended the lease, if one did, is raised."""
        assert self.lease is not None, "the daemon answers `run` with a lease"
        if self._json:
            show.print_json(self.lease)
        elif self._detach:
            short = show.short_id(self.lease.lease_id)
            show.console(sys.stdout).print(
                Text(
                    f"Lease {short} is open; `qubix logs -f {short}` follows it, `qubix attach {short}` opens"
                    f" a shell, `qubix stop {short}` ends it."
                )
            )
        else:
            show.console(sys.stdout).print(show.lease_sheet(self.lease), soft_wrap=True)
        error = failure(self.lease)
        if error and not self._json:
            raise error
        return error.exit_code if error else 0

    def _quote(self, quote: QuoteView) -> None:
        """Told in any case, also where nobody is asked."""
        self.close()
        self._finish_phase("✓")
        self._phase = ""
        self._console.print(Text(consent.terms(quote)))
        self._console.print(Text(consent.risk(quote), "bold"))

    def _progress(self, event: RunEvent) -> None:
        if event.phase != self._phase:
            self._finish_phase("✗" if event.phase in ("failed", "cancelled") else "✓")
            self._phase, self._since = event.phase, time.monotonic()
        if event.phase in TERMINAL:
            self.close()
            return
        if event.phase == "quoting":
            self._asked = event.detail
        room = max(MIN_DETAIL, self._console.width - SPINNER_CHARS)
        text = Text(safe_line(event.detail or event.phase, MIN_DETAIL if event.lease else room))
        if event.lease and event.lease.promised:
            text.append(f"  {show.qu(event.lease.promised)} of {show.qu(event.lease.deposit)} QU", "bold")
        ticking = show.Ticking(text, self._since)
        if self._spinner is None:
            self._spinner = self._console.status(ticking)
            self._spinner.start()
        self._spinner.update(ticking)

    def _finish_phase(self, mark: str) -> None:
        if self._live and self._phase and self._phase not in TERMINAL:
            seconds = time.monotonic() - self._since
            words = PHASE_WORDS.get(self._phase) or safe_line(self._phase, 40)
            if self._phase == "quoting" and self._asked:
                words = safe_line(self._asked, 300)  # who, and why them
            style = show.GOOD if mark == "✓" else show.BAD
            self._console.print(Text(f"{mark} {words}  {seconds:.1f} s", style))


def failure(lease: LeaseView) -> QubixError | None:
    """Why an ended lease did not do what it was for: the error its reason names, else JobFailed's kind."""
    ended_well = lease.phase == "done" and (not lease.exit_code or lease.reason in AGREED)
    if lease.phase not in TERMINAL or ended_well:
        return None
    sentence = lease.sentence or f"the job ended with exit code {lease.exit_code}"
    code = lease.reason if lease.phase != "done" else JobFailed.code
    return error_of(code, sentence, JobFailed.exit_code)
