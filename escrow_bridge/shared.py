"""One question to the chain at a time, for all tasks that ask it meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import trio

from protocol.errors import QubixError

T = TypeVar("T")


@dataclass
class _Call(Generic[T]):
    done: trio.Event = field(default_factory=trio.Event)
    results: list[T] = field(default_factory=list)
    error: QubixError | None = None


class Shared(Generic[T]):
    """Hundreds of leases look for the next tick; with this, however many ask, one request is on its way."""

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask
        self._running: _Call[T] | None = None

    async def __call__(self) -> T:
        """The answer to a question asked now, or a moment ago by somebody else. Raises what `ask` raises."""
        while (call := self._running) is not None:
            await call.done.wait()
            if call.error is not None:
                raise type(call.error)(str(call.error))
            if call.results:
                return call.results[0]
            # Who asked was cancelled.
        return await self._lead()

    async def _lead(self) -> T:
        call = self._running = _Call[T]()
        try:
            result = await self._ask()
            call.results.append(result)
            return result
        except QubixError as error:
            call.error = error
            raise
        finally:
            self._running = None
            call.done.set()
