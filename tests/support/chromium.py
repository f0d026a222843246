"""A real Chromium without a screen, asked by its DevTools protocol what it shows.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import json
import os
import signal
import stat
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

import trio
from trio_websocket import WebSocketConnection, open_websocket_url

from tests.support import browser
from tests.support.daemons import PATIENCE_SECONDS

MAX_BYTES: Final = 16 * 1024 * 1024
SCRIPT: Final = """#!/bin/sh
echo $$ > '{folder}/pid'
exec '{chromium}' --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \\
    --user-data-dir='{folder}/profile' --remote-debugging-port=0 --window-size=1400,1000 "$1" \\
    > '{folder}/said' 2>&1
"""


@contextmanager
def chromium(folder: Path) -> Iterator[str]:
    """What BROWSER must be so that Python's webbrowser begins it; it is gone at the end of the block."""
    found = browser.program()
    script = folder / "browser"
    script.write_text(SCRIPT.format(folder=folder, chromium=found))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    try:
        yield f"{script} %s &"
    finally:
        with suppress(FileNotFoundError, ProcessLookupError):
            os.killpg(int((folder / "pid").read_text()), signal.SIGKILL)


class Tab:
    """The page that it shows."""

    def __init__(self, socket: WebSocketConnection, folder: Path) -> None:
        self._socket = socket
        self._folder = folder
        self._numbers = count(1)

    async def ask(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        await self._socket.send_message(json.dumps({"id": number, "method": method, "params": params}))
        while (told := json.loads(await self._socket.get_message())).get("id") != number:
            pass
        assert "error" not in told, told
        return told["result"]

    async def value(self, script: str) -> Any:
        """Of a line of JavaScript; None where it fails, as all do while a page comes."""
        told = await self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        return told["result"].get("value")

    async def until(self, script: str) -> Any:
        """Its value as soon as it has a true one."""
        with trio.move_on_after(PATIENCE_SECONDS):
            while not (value := await self.value(script)):
                await trio.sleep(0.1)
            return value
        picture = self._folder / "page.png"
        picture.write_bytes(base64.b64decode((await self.ask("Page.captureScreenshot"))["data"]))
        raise AssertionError(f"never true: {script}; see {picture}")

    async def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            await self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def type(self, text: str) -> None:
        """Keys, one after the other; a newline is Enter."""
        for letter in text:
            key = {"key": "Enter", "code": "Enter"} if letter == "\n" else {"key": letter, "text": letter}
            for kind in ("keyDown", "keyUp"):
                await self.ask("Input.dispatchKeyEvent", type=kind, **key)


@asynccontextmanager
async def tab(folder: Path) -> AsyncIterator[Tab]:
    """The first page of the browser that has begun there."""
    there = folder / "profile" / "DevToolsActivePort"
    with trio.fail_after(PATIENCE_SECONDS):
        while not (there.exists() and there.read_text().count("\n")):
            await trio.sleep(0.1)
    port = int(there.read_text().split()[0])
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE_SECONDS) as answer:
        pages = [one for one in json.loads(answer.read()) if one["type"] == "page"]
    async with open_websocket_url(pages[0]["webSocketDebuggerUrl"], max_message_size=MAX_BYTES) as socket:
        yield Tab(socket, folder)
