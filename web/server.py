"""uvicorn as we run it: one process, or several that share a port and nothing else but the mirror."""

from __future__ import annotations

import functools
import socket
from typing import Any, Final

import uvicorn
from uvicorn.supervisors import Multiprocess

from protocol.errors import PortBusy
from web.app import create_app
from web.door import BESIDE_STREAMS, LONGEST_HEAD, Http, room_for
from web.settings import Settings

GRACE_S: Final = 5
"""For requests under way when a process ends; live streams have no end of their own."""
STARTED_S: Final = 60
"""A worker that has not answered its parent for so long is replaced; on a busy machine it starts slowly."""
BACKLOG: Final = 2_048
KEEP_ALIVE_S: Final = 15
EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""All addresses of a machine -> the one by which it reaches itself."""
MOST_ELSE: Final = 2_000
"""Connections beside the live streams, in each process."""


def listen(settings: Settings) -> socket.socket:
    """PortBusy if somebody listens there already, or the address is not ours."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (while")[0]  # Python says the address once more
        raise PortBusy(
            f"cannot listen on {settings.host} port {settings.port} ({why}); choose another with --port"
        ) from error


def url_of(listening: socket.socket) -> str:
    """Where it can be reached from this machine: what listens on all addresses has none of its own."""
    host, port = listening.getsockname()[:2]
    host = EVERYWHERE.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _door(settings: Settings) -> Any:
    """What uvicorn makes of each connection; a proxy that we trust may have any number of them."""
    each = 0 if settings.behind_proxy else settings.streams_each + BESIDE_STREAMS
    return functools.partial(Http, each=each, most=room_for(settings.streams + MOST_ELSE))


def serve(settings: Settings, listening: socket.socket) -> None:
    """Until SIGINT or SIGTERM. A worker that dies is replaced."""
    config = uvicorn.Config(
        functools.partial(create_app, settings),
        factory=True,
        workers=settings.workers,
        http=_door(settings),
        ws="none",
        proxy_headers=False,  # web/limits.py knows whom to believe
        server_header=False,
        access_log=False,
        log_level="error",  # what strangers do wrong is no news
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
