"""One key after the other: what is typed at once waits until the key before it has had its effect.

A key travels from the marked field up to the app, and what it does there (mark another field, open a screen)
takes effect a moment later. Keys that come together, from a fast typist or a slow line, would all reach what
was marked first: letters for a field would be taken for keys of the screen.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from textual.app import App, ScreenError
from textual.events import Key, Paste
from textual.message_pump import MessagePump

Typed = Key | Paste
PATIENCE_SECONDS: Final = 5.0
"""So long a key's effect is waited for; then the next one is let through all the same."""
ROUNDS: Final = 2
"""A key's way to the app, then what the app does because of it."""


class KeyTurns:
    """`take` every key and paste of the terminal; `deliver` gets them in order, one turn after the other."""

    def __init__(self, app: App[int], deliver: Callable[[Typed], Awaitable[None]]) -> None:
        self._app = app
        self._deliver = deliver
        self._waiting: deque[Typed] = deque()
        self._turn: asyncio.Task[None] | None = None

    async def take(self, typed: Typed) -> None:
        """At once if nothing is under way."""
        if self._turn is not None and not self._turn.done():
            self._waiting.append(typed)
            return
        await self._deliver(typed)
        self._turn = asyncio.create_task(self._go_on())

    async def _go_on(self) -> None:
        await self._settled()
        while self._waiting:
            await self._deliver(self._waiting.popleft())
            await self._settled()

    async def _settled(self) -> None:
        """Until all that a key passes has dealt with it, and the screen that it opened is there."""
        with suppress(TimeoutError, ScreenError):  # ScreenError: the app ends
            async with asyncio.timeout(PATIENCE_SECONDS):
                for _ in range(ROUNDS):
                    await self._passed()

    async def _passed(self) -> None:
        marked = self._app.focused or self._app.screen  # a new screen mounts before it deals with a queue
        for one in marked.ancestors_with_self:
            await _idle(one)


async def _idle(pump: MessagePump) -> None:
    """Until it has dealt with what lies in its queue now."""
    done = asyncio.Event()
    if pump.call_later(done.set):
        await done.wait()
