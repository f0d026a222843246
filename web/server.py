"""uvicorn as we run it: one process, or several that share a port and nothing else but the mirror."""

from __future__ import annotations

import asyncio
import functools
import socket
from typing import Final

import uvicorn
from uvicorn.supervisors import Multiprocess

from protocol.errors import PortBusy
from web.app import create_app
from web.headers import ENDLESS
from web.live import CUT
from web.settings import Settings

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as _Http
except ImportError:  # a C parser, which not every machine has
    from uvicorn.protocols.http.h11_impl import H11Protocol as _Http  # type: ignore[assignment]  # alike

GRACE_S: Final = 5
"""For requests under way when a process ends; live streams have no end of their own."""
STARTED_S: Final = 60
"""A worker that has not answered its parent for so long is replaced; on a busy machine it starts slowly."""
BACKLOG: Final = 2_048
KEEP_ALIVE_S: Final = 15
LONGEST_HEAD: Final = 16_384


def listen(settings: Settings) -> socket.socket:
    """PortBusy if somebody listens there already, or the address is not ours."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise PortBusy(
            f"cannot listen on {settings.host} port {settings.port} ({error.strerror or error});"
            " choose another with --port"
        ) from error


def url_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


class Http(_Http):
    """Lets a request break its connection off: a reader that does not read would keep what it was sent."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        super().connection_made(transport)
        self.app_state = {**self.app_state, CUT: transport.abort}

    def shutdown(self) -> None:
        super().shutdown()
        asked: object = self.scope  # none before the first request
        if isinstance(asked, dict) and asked.get("path") in ENDLESS:
            self.transport.close()  # it would be waited for


def serve(settings: Settings, listening: socket.socket) -> None:
    """Until SIGINT or SIGTERM. A worker that dies is replaced."""
    config = uvicorn.Config(
        functools.partial(create_app, settings),
        factory=True,
        workers=settings.workers,
        http=Http,
        proxy_headers=False,  # web/limits.py knows whom to believe
        server_header=False,
        access_log=False,
        log_level="warning",
        backlog=BACKLOG,
        timeout_worker_healthcheck=STARTED_S,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        h11_max_incomplete_event_size=LONGEST_HEAD,
    )
    if settings.workers == 1:
        uvicorn.Server(config).run(sockets=[listening])
    else:
        Multiprocess(config, [listening]).run()
