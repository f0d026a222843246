"""`qubix forward`: ports of this machine that lead into a job, for as long as the command runs."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from contextlib import aclosing
from typing import Final

from rich.live import Live
from rich.text import Text

from protocol.control_tunnels import ForwardArgs, ForwardEnd, ForwardEvent, ForwardPort, PathView
from protocol.errors import JobNotRunning, UsageError
from tui import show
from tui.client import connect
from tui.places import control_socket, data_dir
from tui.safe import safe_line

PORTS: Final = re.compile(r"(?:([0-9]{1,5}):)?([0-9]{1,5})(?:/(tcp|udp))?", re.ASCII)
MAX_PORT: Final = 65_535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lease", metavar="LEASE", help="a lease, or the start of its id")
    parser.add_argument(
        "ports",
        metavar="[HERE:]PORT[/udp]",
        nargs="*",
        help="a port inside the job, and the one here that leads to it; none: those the job file names",
    )


def read_port(text: str) -> ForwardPort:
    """8888, 9999:8888, 53/udp, 5353:53/udp; 0:8888 takes any free port here. UsageError."""
    match = PORTS.fullmatch(text)
    if not match:
        raise UsageError(f"{text!r} is no port; write e.g. 8888, 9999:8888 (here:inside) or 53/udp")
    remote = int(match[2])
    local = remote if match[1] is None else int(match[1])
    if not (1 <= remote <= MAX_PORT and local <= MAX_PORT):
        raise UsageError(f"{text!r} names no port; they go from 1 to {MAX_PORT}")
    return ForwardPort(local, remote, "udp" if match[3] == "udp" else "tcp")


async def forward(options: argparse.Namespace) -> int:
    args = ForwardArgs(options.lease, [read_port(text) for text in options.ports])
    screen = _Screen(as_json=options.json)
    async with (
        connect(control_socket(data_dir(options.data_dir))) as client,
        aclosing(client.stream("forward", args)) as items,
    ):
        try:
            async for item in items:
                screen.take(item)
        except asyncio.CancelledError:
            screen.close()
            if not options.json:
                screen.say(Text("Closed. The job goes on."))
            raise
        finally:
            screen.close()
    return JobNotRunning.exit_code  # whoever waits for it wants to know that the way is closed


class _Screen:
    """Lines about ports above one line, on a terminal, that tells of path and rate."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        self._console = show.console(sys.stderr)
        live = sys.stderr.isatty() and not as_json
        self._live = Live(console=self._console, auto_refresh=False, transient=True) if live else None
        self._path = PathView("")
        self._refused: set[str] = set()

    def take(self, item: ForwardEvent | ForwardEnd) -> None:
        if self._json:
            show.print_json({"event": item} if isinstance(item, ForwardEvent) else item)
        elif isinstance(item, ForwardEnd):
            self.close()
            self.say(Text(f"The ports are closed: {safe_line(item.sentence)}."))
        else:
            self._event(item)

    def say(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True)

    def close(self) -> None:
        if self._live:
            self._live.stop()

    def _event(self, event: ForwardEvent) -> None:
        match event.what:
            case "listening":
                for port in event.ports:
                    show.console(sys.stdout).print(_line(port))
                if event.sentence:
                    self.say(Text(safe_line(event.sentence)))
                if self._live:
                    self._live.start()
            case "path" if event.path:
                self._moved(event.path)
                self._path = event.path
            case "refused" | "closed" if event.sentence:
                self._trouble(event)
        if self._live:
            self._live.update(self._status(event.open), refresh=True)

    def _moved(self, path: PathView) -> None:
        """Where there is no line that changes, a change is a line."""
        if not self._live and (path.kind, path.waiting) != (self._path.kind, self._path.waiting):
            self.say(Text(show.path_words(path)))

    def _trouble(self, event: ForwardEvent) -> None:
        """The same is said once: browsers try again and again."""
        words = f"port {event.ports[0].remote}: {safe_line(event.sentence)} [{safe_line(event.code)}]"
        if words not in self._refused:
            self._refused.add(words)
            self.say(Text(words, show.BAD))

    def _status(self, count: int) -> Text:
        path = self._path
        parts = [show.path_words(path), f"{count} connection{'s' * (count != 1)}"]
        if count:
            rates = (path.received_per_second, path.sent_per_second)
            parts += [f"{arrow} {show.rate_words(rate)}" for arrow, rate in zip("↓↑", rates, strict=True)]
        return Text(" · ".join(parts) + " · ctrl-C closes", "dim", no_wrap=True, overflow="ellipsis")


def _line(port: ForwardPort) -> Text:
    suffix = "" if port.protocol == "tcp" else "/udp"
    return Text.assemble(
        (f"127.0.0.1:{port.local}{suffix}", "bold"), f" leads to port {port.remote} of the job"
    )
