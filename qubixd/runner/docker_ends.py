"""Wakes those who wait for the end of jobs, all by one stream of the engine's events.

An event is a hint and never the truth: who is woken asks the engine. So nothing is lost when the stream
breaks, which wakes everybody, and only time when an event does not come: nobody waits without a limit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import trio
from docker.errors import DockerException
from requests.exceptions import RequestException

from protocol.errors import EngineUnreachable
from protocol.units import LeaseId
from qubixd.runner import docker_config as config
from qubixd.runner.docker_engine import Client, DockerEngine

EVENTS: Final = ["die", "destroy"]


class Waiter:
    """One who waits for one job's end."""

    def __init__(self, ends: Ends) -> None:
        self._ends = ends
        self._woken = trio.Event()

    async def listen(self) -> bool:
        """Whether from now on nothing is missed. To be called before each look at the job."""
        self._woken = trio.Event()
        return await self._ends.listen()

    async def woken(self, seconds: float) -> bool:
        """Whether something may have happened within so many seconds."""
        with trio.move_on_after(seconds):
            await self._woken.wait()
        return self._woken.is_set()

    def wake(self) -> None:
        self._woken.set()


class Ends:
    """The ends of one daemon's jobs. The stream is open while anybody waits."""

    def __init__(self, engine: DockerEngine, home: str) -> None:
        self._engine = engine
        self._home = home
        self._waiters: dict[LeaseId, set[Waiter]] = {}
        self._stream: Any = None
        self._opening = trio.Lock()

    @contextmanager
    def of(self, lease_id: LeaseId) -> Iterator[Waiter]:
        waiter = Waiter(self)
        self._waiters.setdefault(lease_id, set()).add(waiter)
        try:
            yield waiter
        finally:
            self._waiters[lease_id].discard(waiter)
            if not self._waiters[lease_id]:
                del self._waiters[lease_id]
            if not self._waiters:
                self._close()

    async def listen(self) -> bool:
        """Have the stream open; False if the engine opens none, which may go on answering for a while."""
        async with self._opening:
            if self._stream is None:
                with suppress(EngineUnreachable):
                    stream = await self._engine.call(self._open)
                    if self._waiters:
                        self._stream = stream
                    reader = (stream, trio.lowlevel.current_trio_token())
                    threading.Thread(target=self._read, args=reader, daemon=True).start()
            return self._stream is not None

    def _open(self, client: Client) -> Any:
        filters = {"type": "container", "event": EVENTS, "label": f"{config.LABEL_HOME}={self._home}"}
        return client.events(filters=filters, decode=True)

    def _read(self, stream: Any, token: trio.lowlevel.TrioToken) -> None:
        with suppress(trio.RunFinishedError):
            # However the stream breaks: whoever is woken asks the engine what is the matter.
            with suppress(OSError, ValueError, AttributeError, RequestException, DockerException):
                for event in stream:
                    labels = (event.get("Actor") or {}).get("Attributes") or {}
                    token.run_sync_soon(self._wake, config.lease_of(labels))
            token.run_sync_soon(self._broken, stream)

    def _wake(self, lease_id: LeaseId | None) -> None:
        for waiter in self._waiters.get(lease_id, ()) if lease_id else ():
            waiter.wake()

    def _broken(self, stream: Any) -> None:
        if self._stream is stream:
            self._stream = None
            for lease_id in self._waiters:
                self._wake(lease_id)

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with suppress(OSError, DockerException, AttributeError):
                stream.close()
