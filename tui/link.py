"""Keeps one connection to the daemon for as long as the front end runs, and says when it is away.

    link = DaemonLink(socket, follow, changed)
    task = asyncio.create_task(link.run())
    view = await link.call("market", MarketArgs())

`follow(client)` lives on each connection until that breaks; `changed(state)` is told of every change.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, Literal

from protocol.errors import DaemonUnreachable, QubixError
from tui.client import Client, connect

LinkState = Literal["connecting", "up", "down"]
FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 5.0


class DaemonLink:
    """`state` is "connecting" until the first try has ended, then "up" or "down"; `why` says why."""

    def __init__(
        self,
        socket: Path,
        follow: Callable[[Client], Awaitable[None]],
        changed: Callable[[LinkState], None],
    ) -> None:
        self.state: LinkState = "connecting"
        self.why = ""
        self._socket = socket
        self._follow = follow
        self._changed = changed
        self._client: Client | None = None
        self._hurry = asyncio.Event()

    async def call(self, verb: str, args: object) -> Any:
        """The verb's answer. DaemonUnreachable at once while the daemon is away; else the daemon's error."""
        return await self._connected().call(verb, args)

    async def stream(self, verb: str, args: object) -> AsyncGenerator[Any, None]:
        """The verb's events and last its answer; errors as in `call`."""
        async with aclosing(self._connected().stream(verb, args)) as items:
            async for item in items:
                yield item

    def try_now(self) -> None:
        """Don't wait for the next try: somebody has just started a daemon."""
        self._hurry.set()

    async def run(self) -> None:
        """Connect, again and again, until cancelled."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            since = math.inf
            try:
                async with connect(self._socket) as client:
                    self._client, since = client, time.monotonic()
                    self._turn("up")
                    await self._follow(client)
            except QubixError as error:
                self.why = str(error)
            finally:
                self._client = None
            self._turn("down")
            if time.monotonic() - since > LONGEST_PAUSE_SECONDS:  # it was well, and may be so again soon
                pause = FIRST_PAUSE_SECONDS
            await self._rest(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _rest(self, seconds: float) -> None:
        self._hurry.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            pass  # nobody was in a hurry

    def _turn(self, state: LinkState) -> None:
        if state != self.state:
            self.state = state
            self._changed(state)

    def _connected(self) -> Client:
        if self._client is None:
            raise DaemonUnreachable(self.why or "the qubix daemon has not answered yet")
        return self._client
