"""`qubix open`: which port, by what address, and that no token is in any process's arguments."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from protocol.control import to_body
from protocol.control_access import AccessView, PortView
from protocol.control_tunnels import ForwardEnd, ForwardEvent, ForwardPort
from protocol.errors import NotFound, UsageError
from tests.support.control_server import Reply, control_server
from tests.support.views import LEASE_ID
from tui import cli
from tui.open import Door, Page, chosen, show_page

TOKEN = "T0ken-of-this-test"
JUPYTER = PortView("jupyter", 8888, "tcp", "http", f"/?token={TOKEN}")
CODE = PortView("code", 8080, "tcp", "http", "/login", password=TOKEN)
SHELL = PortView("shell", 2222, "tcp", "ssh")
BARE = PortView("6006", 6006, "tcp", "other")
GAME = PortView("47998/udp", 47998, "udp", "game")


def access(*ports: PortView, phase: str = "running") -> AccessView:
    return AccessView(LEASE_ID, "wordcount", phase, list(ports), "", "")


def test_the_first_page_or_the_one_that_is_named() -> None:
    view = access(SHELL, JUPYTER, CODE, BARE, GAME)
    assert chosen(view, "") is JUPYTER and chosen(view, "code") is CODE
    assert chosen(view, "8080") is CODE and chosen(view, "6006") == replace(BARE, kind="http")
    assert chosen(view, "7000") == PortView("7000", 7000, "tcp", "http")
    with pytest.raises(UsageError, match=r"shell is no page; `qubix ssh [0-9a-f]+` opens it"):
        chosen(view, "shell")
    with pytest.raises(NotFound, match="its pages: jupyter, code"):
        chosen(view, "jupiter")
    with pytest.raises(NotFound, match="names no page"):
        chosen(access(SHELL), "")
    with pytest.raises(NotFound):
        chosen(view, "65536")


def test_the_door_leads_on_once_and_only_with_its_word() -> None:
    door = Door(Page(JUPYTER, 4000))
    for line in ("GET / HTTP/1.1", f"POST /{door.word} HTTP/1.1", f"GET /{door.word}x HTTP/1.1", "", "GET"):
        assert door.answer(line).startswith(b"HTTP/1.1 404")
    right = f"GET /{door.word} HTTP/1.1"
    assert f"\r\nLocation: http://127.0.0.1:4000/?token={TOKEN}\r\n".encode() in door.answer(right)
    assert TOKEN.encode() not in door.answer(right) and TOKEN not in repr(JUPYTER)


def test_where_a_password_is_asked_for_a_form_sends_it() -> None:
    odd = PortView("code", 8080, "tcp", "http", "/login", password='"<&')
    said = Door(Page(odd, 4000))
    answer = said.answer(f"GET /{said.word} HTTP/1.1").decode()
    assert 'action="http://127.0.0.1:4000/login"' in answer and 'value="&quot;&lt;&amp;"' in answer
    assert "form-action http://127.0.0.1:4000\r\n" in answer and "no-store" in answer


def test_a_page_of_its_own_tls_is_led_to_and_its_password_said_elsewhere() -> None:
    door = Door(Page(replace(CODE, kind="https"), 4000))
    answer = door.answer(f"GET /{door.word} HTTP/1.1")
    assert b"Location: https://127.0.0.1:4000/login\r\n" in answer and TOKEN.encode() not in answer


@pytest.fixture
def page() -> Iterator[tuple[int, list[str]]]:
    """What a job shows, as if it had come here: its port, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"the page")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port, asked
    server.shutdown()
    thread.join()
    server.server_close()


def daemon(port: PortView, local: int, ended: threading.Event) -> Callable[[str, Any], Iterator[Reply]]:
    def replies(verb: str, args: Any) -> Iterator[Reply]:
        if verb == "access":
            yield {"ok": to_body(access(port))}
            return
        here = [ForwardPort(local, port.port)]
        yield {"event": to_body(ForwardEvent("listening", here))}
        assert ended.wait(60)
        yield {"ok": to_body(ForwardEnd("the lease has ended: its time is over"))}

    return replies


@contextmanager
def opening(root: Path, *words: str, browser: str = "") -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tui.cli", "--data-dir", str(root), "open", LEASE_ID[:8], *words]
    environment = os.environ | {"BROWSER": browser, "PATH": str(root), "TERM": "dumb"}  # no other browser
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


BROWSER = """
import pathlib, sys, urllib.request
with urllib.request.urlopen(sys.argv[1]) as got:
    pathlib.Path(sys.argv[2]).write_text(sys.argv[1] + "\\n" + got.url + "\\n" + got.read().decode())
"""


def test_the_browser_comes_to_the_page_and_its_arguments_tell_nothing(
    tmp_path: Path, page: tuple[int, list[str]]
) -> None:
    (local, asked), ended = page, threading.Event()
    (tmp_path / "browser.py").write_text(BROWSER)
    seen = tmp_path / "seen"
    os.mkfifo(seen)
    browser = f"{sys.executable} {tmp_path / 'browser.py'} %s {seen}"
    with (
        control_server(tmp_path / "control.sock", daemon(JUPYTER, local, ended)),
        opening(tmp_path, browser=browser) as process,
    ):
        given, came, said = seen.read_text().splitlines()
        ended.set()
        out, err = process.communicate(timeout=60)
    assert came == f"http://127.0.0.1:{local}/?token={TOKEN}" and said == "the page"
    assert TOKEN not in given and re.fullmatch(r"http://127\.0\.0\.1:[0-9]+/[\w-]{32}", given)
    assert asked == ["/", f"/?token={TOKEN}"], "it was first seen to answer"
    assert (process.returncode, out) == (0, "") and "its time is over" in err and TOKEN not in err


@pytest.mark.parametrize("words", [["--print"], ["--json"], []])
def test_without_a_browser_the_address_is_said_and_ctrl_c_ends_it(
    tmp_path: Path, page: tuple[int, list[str]], words: list[str]
) -> None:
    (local, _), ended = page, threading.Event()
    try:
        with (
            control_server(tmp_path / "control.sock", daemon(JUPYTER, local, ended)) as received,
            opening(tmp_path, *words) as process,
        ):
            assert process.stdout is not None
            said = process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
            ended.set()
    finally:
        ended.set()
    url = f"http://127.0.0.1:{local}/?token={TOKEN}"
    if words == ["--json"]:
        assert json.loads(said) == {"url": url, "local_port": local, "name": "jupyter"}
    else:
        assert said.endswith(f"{url}\n")
    forward = received[-1]
    assert forward.lease == LEASE_ID and [one.remote for one in forward.ports] == [8888]


def test_a_job_that_does_not_run_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with control_server(
        tmp_path / "control.sock",
        lambda verb, args: iter([{"ok": to_body(access(JUPYTER, phase="provisioning"))}]),
    ):
        assert cli.main(["--data-dir", str(tmp_path), "open", LEASE_ID]) == 2
    assert "the job does not run yet" in capsys.readouterr().err


def test_without_a_terminal_it_says_that_it_waits(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever reads lines would else see nothing until the page is there."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    async def later() -> str:
        with socket.create_server(("127.0.0.1", 0)) as bound:
            page = Page(JUPYTER, bound.getsockname()[1])
            bound.close()  # nobody listens until the words are there
            shown = asyncio.create_task(show_page(page, Namespace(json=False, print=True)))
            said = ""
            while "waiting until jupyter answers" not in said:
                await asyncio.sleep(0)
                said += capsys.readouterr().err
            async with await asyncio.start_server(answer, "127.0.0.1", page.local):
                await shown
        return said + capsys.readouterr().err

    said = asyncio.run(later())
    assert said.count("waiting") == 1 and "jupyter is at http://" in said
