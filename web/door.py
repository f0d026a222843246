"""A connection of a stranger, and what it may keep us from: uvicorn's protocol with an end to every wait.

Whoever has connected asks within HEAD_S, in a head of at most LONGEST_HEAD bytes and without a body, and
takes the answer: whoever reads nothing of it for STALLED_S is cut off. An address has so many connections.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from contextlib import suppress
from typing import Any, ClassVar, Final

from web.headers import ENDLESS
from web.limits import network_of
from web.live import CUT

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as _Http
except ImportError:  # a C parser, which not every machine has
    from uvicorn.protocols.http.h11_impl import H11Protocol as _Http  # type: ignore[assignment]  # alike

LONGEST_HEAD: Final = 16_384
HEAD_S: Final = 15.0
"""From a connection, or the first byte of one more request on it, to the end of the request's head."""
STALLED_S: Final = 30.0
LEAST_READ: Final = 8_192
"""Bytes, of what waits to be sent, that a reader takes in STALLED_S."""
BESIDE_STREAMS: Final = 64
"""Connections of one address that are no live streams. A browser has six."""
SPARE_FILES: Final = 64
"""Files of this process that are no connections: readers of the mirror, modules, logs."""


def room_for(connections: int) -> int:
    """So many connections have room in this process, which may open as many files as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):  # some systems promise more than they give
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return connections if soft == resource.RLIM_INFINITY else min(connections, max(1, soft - SPARE_FILES))


class Http(_Http):
    """`each`: connections of one address, 0 for any number (a proxy has many); `most`: of all."""

    _open: ClassVar[Counter[str]] = Counter()
    """Of this process, by address."""

    def __init__(self, *rest: Any, each: int, most: int, **named: Any) -> None:
        super().__init__(*rest, **named)
        self._each, self._most = each, most
        self._address = ""
        self._asking = False
        """A head has begun that is not complete, of so many bytes:"""
        self._head = 0
        self._late: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    # --- coming and going ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        super().connection_made(transport)
        # A request may break its connection off: a reader that does not read would keep what it was sent.
        self.app_state = {**self.app_state, CUT: transport.abort}
        self._address = network_of(self.client[0]) if self.client else ""
        self._open[self._address] += 1
        self._await_head()
        if len(self.connections) > self._most or 0 < self._each < self._open[self._address]:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._open[self._address] -= 1
        if not self._open[self._address]:
            del self._open[self._address]
        self._head_came()
        self._stop_watching()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        super().shutdown()
        asked: object = self.scope  # none before the first request
        if isinstance(asked, dict) and asked.get("path") in ENDLESS:
            self.transport.close()  # it would be waited for

    # --- asking -------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._head += len(data)
        super().data_received(data)
        if not self._asking:
            self._head = 0
        elif self._head > LONGEST_HEAD:
            self.transport.abort()
        if self._is_answering():
            self._head_came()
        elif not self.transport.is_closing():
            self._await_head()

    # These two are called by httptools, which has no bounds of its own; h11 has (set in web/server.py).

    def on_message_begin(self) -> None:
        self._asking = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """One request at a time: uvicorn does not tell the one that it answers that its asker has left, if
        another waits behind it, and thousands fit into one packet."""
        self._asking, self._head = False, 0
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > LONGEST_HEAD or self._is_answering():
            raise ValueError("too much")  # becomes 400, and the connection's end
        super().on_headers_complete()

    def _is_answering(self) -> bool:
        cycle: Any = self.cycle  # none before the first request
        return cycle is not None and not cycle.response_complete

    def _await_head(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(HEAD_S, self.transport.abort)

    def _head_came(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    # --- being answered -----------------------------------------------------------------------

    def on_response_complete(self) -> None:
        if self.cycle.more_body:  # nothing here takes one: it is not waited for
            self.transport.close()
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_watching()

    def _watch(self) -> None:
        if self._stalled is None:
            left = self.transport.get_write_buffer_size()
            self._stalled = self.loop.call_later(STALLED_S, self._look, left)

    def _stop_watching(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _look(self, before: int) -> None:
        self._stalled = None
        if self.transport.get_write_buffer_size() > before - LEAST_READ:
            self.transport.abort()
        else:
            self._watch()
