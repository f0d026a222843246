"""`qubix open`: brings a page of a job to this machine and shows it in the browser, the token in it.

The browser is given the address of a page of ours that leads on once: so the token is in no process's
arguments, only in the browser itself, which may keep it in its history.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import socket
import ssl
import sys
import threading
import webbrowser
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from html import escape
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from protocol.control_access import AccessArgs, AccessView, PortView
from protocol.control_tunnels import ForwardArgs, ForwardEnd, ForwardEvent, ForwardPort
from protocol.errors import NotFound, StreamBroken, UsageError
from protocol.ports import PAGES
from tui import show
from tui.client import Client, connect
from tui.places import control_socket, data_dir
from tui.safe import safe_line
from tui.ssh import RUNS

LOCAL: Final = "127.0.0.1"
RETRY_SECONDS: Final = 0.5
MAX_HEAD_BYTES: Final = 16_384
ELSEWHERE: Final = {
    "ssh": "`qubix ssh {id}` opens it",
    "vnc": "`qubix forward {id} {port}` brings it here for a VNC viewer",
    "game": "`qubix forward {id}` brings it here",
}
"""What to do with a port that is no page."""


@dataclass(frozen=True)
class Page:
    """A port of a job that has come to this machine."""

    port: PortView
    local: int

    @property
    def url(self) -> str:
        return f"{self.port.kind}://{LOCAL}:{self.local}{self.port.path or '/'}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lease", metavar="LEASE", help="a lease, or the start of its id")
    parser.add_argument("port", nargs="?", default="", metavar="NAME|PORT", help="which of the job's ports")
    parser.add_argument("--print", action="store_true", help="only say the address, with the token in it")


async def open_page(options: argparse.Namespace) -> int:
    """Until it is interrupted or the job ends."""
    async with connect(control_socket(data_dir(options.data_dir))) as client:
        access: AccessView = await client.call("access", AccessArgs(options.lease))
        port = chosen(access, options.port)
        if access.phase not in RUNS:
            short = show.short_id(access.lease_id)
            raise UsageError(f"the job does not run yet; `qubix logs -f {short}` shows when it does")
        async with aclosing(_forward(client, access, port)) as events:
            page = Page(port, await _listening(events))
            shown = asyncio.create_task(show_page(page, options))
            try:
                return await _until_end(events, shown)
            finally:
                shown.cancel()
                await asyncio.gather(shown, return_exceptions=True)


def chosen(access: AccessView, wanted: str) -> PortView:
    """The port of that name or number; without one the first page. NotFound, UsageError."""
    short = show.short_id(access.lease_id)
    pages = [port for port in access.ports if port.kind in PAGES]
    if not wanted:
        if not pages:
            raise NotFound(f"this job names no page; `qubix open {short} PORT` shows any port of it")
        return pages[0]
    for port in access.ports:
        if wanted in (port.name, str(port.port)) and port.protocol == "tcp":
            if port.kind in PAGES:
                return port
            if port.kind == "other":
                return replace(port, kind="http")
            raise UsageError(
                f"{port.name} is no page; " + ELSEWHERE[port.kind].format(id=short, port=port.port)
            )
    if wanted.isascii() and wanted.isdigit() and 1 <= int(wanted) <= 65_535:
        return PortView(wanted, int(wanted), "tcp", "http")
    names = ", ".join(port.name for port in pages) or "none"
    raise NotFound(f"this job has no page {wanted[:64]!r}; its pages: {names}")


async def _forward(client: Client, access: AccessView, port: PortView) -> AsyncGenerator[Any, None]:
    args = ForwardArgs(access.lease_id, [ForwardPort(free_or_any(port.port), port.port)])
    async with aclosing(client.stream("forward", args)) as events:
        async for event in events:
            yield event


def free_or_any(port: int) -> int:
    """The same number as inside where it is free and needs no rights; else 0, whichever is free."""
    with socket.socket() as probe:
        try:
            if port >= 1_024:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((LOCAL, port))
                return port
        except OSError:
            pass
    return 0


async def _listening(events: AsyncGenerator[Any, None]) -> int:
    async for event in events:
        if isinstance(event, ForwardEvent) and event.what == "listening":
            return event.ports[0].local
    raise StreamBroken("the daemon ended the forwarding before it began")


async def _until_end(events: AsyncGenerator[Any, None], shown: asyncio.Task[None]) -> int:
    """Until the job ends, whose sentence is said; the page is shown meanwhile, and may fail to be."""
    follow = asyncio.create_task(_last(events))
    try:
        await asyncio.wait([follow, shown], return_when=asyncio.FIRST_COMPLETED)
        if shown.done():
            shown.result()
        end = await follow
    finally:
        follow.cancel()
        await asyncio.gather(follow, return_exceptions=True)
    show.console(sys.stderr).print(Text(safe_line(end)))
    return 0


async def _last(events: AsyncGenerator[Any, None]) -> str:
    end = ""
    async for event in events:
        if isinstance(event, ForwardEnd):
            end = event.sentence
    return end or "the job has ended"


async def show_page(page: Page, options: argparse.Namespace) -> None:
    """Wait until the page answers, then say where it is, or begin a browser."""
    screen = show.console(sys.stderr)
    name = safe_line(page.port.name, 32)
    waiting = Text(f"waiting until {name} answers")
    with screen.status(waiting):
        told = screen.is_terminal
        while not await answers(page):
            if not told:  # a status is for terminals
                screen.print(waiting)
            told = True
            await asyncio.sleep(RETRY_SECONDS)
    if options.json:
        show.print_json({"url": page.url, "local_port": page.local, "name": page.port.name})
    elif options.print:
        _tell(page.url)
        _until(screen, page)
    else:
        await _in_browser(page, screen)


async def _in_browser(page: Page, screen: Console) -> None:
    """By way of a page of ours that leads there, once."""
    door = Door(page)
    server = await asyncio.start_server(door.serve, LOCAL, 0)
    async with server:
        begun = begin_browser(f"http://{LOCAL}:{server.sockets[0].getsockname()[1]}/{door.word}")
        used = asyncio.create_task(door.used.wait())
        either: set[asyncio.Future[Any]] = {begun, used}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not used.done() and not begun.result():
            _tell(f"No browser could be begun here. Open {page.url}")
        _until(screen, page)
        await used


def begin_browser(address: str) -> asyncio.Future[bool]:
    """Whether there is one. Those of a terminal come back when they end, so nobody waits for the thread."""
    loop = asyncio.get_running_loop()
    begun: asyncio.Future[bool] = loop.create_future()

    def begin() -> None:
        found = webbrowser.open(address)
        with suppress(RuntimeError):  # the loop may be no more
            loop.call_soon_threadsafe(begun.set_result, found)

    threading.Thread(target=begin, daemon=True).start()
    return begun


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _until(screen: Console, page: Page) -> None:
    name = safe_line(page.port.name, 32)
    screen.print(
        Text(f"{name} is at {page.port.kind}://{LOCAL}:{page.local}/ until Ctrl-C ends this."), soft_wrap=True
    )
    if page.port.password:
        screen.print(Text(f"Should it ask for a password: {page.port.password}"), soft_wrap=True)


async def answers(page: Page) -> bool:
    """Whether something speaks HTTP there; whatever it says is an answer."""
    try:
        reader, writer = await asyncio.open_connection(LOCAL, page.local, ssl=_tls(page))
    except OSError:
        return False
    try:
        writer.write(f"GET / HTTP/1.1\r\nHost: {LOCAL}:{page.local}\r\nConnection: close\r\n\r\n".encode())
        return (await reader.read(5)).startswith(b"HTTP/")
    except OSError:
        return False
    finally:
        writer.close()


def _tls(page: Page) -> ssl.SSLContext | None:
    """Who answers has made its certificate itself; the way there is ours."""
    if page.port.kind != "https":
        return None
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class Door:
    """Leads whoever comes first with the right word to the page, and nobody after."""

    def __init__(self, page: Page) -> None:
        self.word = secrets.token_urlsafe(24)
        self.used = asyncio.Event()
        self._page = page

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            writer.write(self.answer(request.split(b"\r\n")[0].decode("latin-1")))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    def answer(self, line: str) -> bytes:
        """To a request line."""
        words = line.split(" ")
        right = (
            len(words) == 3 and words[0] == "GET" and secrets.compare_digest(words[1].encode(), self._path)
        )
        if not right or self.used.is_set():
            return _response("404 Not Found", "", "This page leads on once only; call `qubix open` again.")
        self.used.set()
        if self._page.port.password and self._page.port.kind == "http":
            return _response("200 OK", _policy(self._page), _login(self._page))
        return _response("302 Found", f"Location: {self._page.url}\r\n", "")

    @property
    def _path(self) -> bytes:
        return f"/{self.word}".encode()


def _response(status: str, headers: str, body: str) -> bytes:
    data = body.encode()
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {len(data)}\r\n"
        f"Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n{headers}\r\n"
    ).encode() + data


def _policy(page: Page) -> str:
    """Nothing runs in it but the line that sends the form."""
    return (
        f"Content-Security-Policy: default-src 'none'; script-src 'unsafe-inline'; "
        f"form-action http://{LOCAL}:{page.local}\r\n"
    )


def _login(page: Page) -> str:
    """A form that sends itself; with a button for who has switched scripts off."""
    return (
        "<!doctype html><title>qubix</title>"
        f'<form method="post" action="{escape(page.url)}">'
        f'<input type="hidden" name="password" value="{escape(page.port.password)}">'
        "<button>Go on</button></form><script>document.forms[0].submit()</script>"
    )
