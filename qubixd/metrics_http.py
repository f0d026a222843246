"""The door to the metrics: HTTP/1.1 for Prometheus. One request a connection, all of it bounded.

On loopback only requests are answered that name this machine by an address or as localhost: a web page that a
person looks at could else have its own name lead here, and read what the node measures.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

import h11
import trio
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from protocol.errors import ConfigInvalid, PortBusy
from qubixd.config import is_loopback

log = logging.getLogger("qubix.metrics")

PATH: Final = "/metrics"
MAX_HEAD_BYTES: Final = 8_192
MAX_CONNECTIONS: Final = 16
REQUEST_SECONDS: Final = 10.0
"""For a whole request, however slowly it comes."""
SEND_SECONDS: Final = 10.0
READ_BYTES: Final = 4_096
PLAIN: Final = "text/plain; charset=utf-8"

Expose = Callable[[], bytes]
Answer = tuple[int, str, bytes]
"""HTTP status, content type, body."""


async def serve_metrics(
    address: str, registry: CollectorRegistry, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answer at HOST:PORT until cancelled; hands out the port. PortBusy, ConfigInvalid."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        listeners = await trio.open_tcp_listeners(int(port), host=host)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortBusy(f"another program listens on {address}; choose another --metrics") from error
        reason = error.strerror or str(error)
        raise ConfigInvalid(f"metrics cannot be served on {address}: {reason}") from error
    door = MetricsDoor(partial(generate_latest, registry), local=is_loopback(host))
    handler = partial(trio.serve_listeners, door.handle, listeners)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handler)
        taken: int = listeners[0].socket.getsockname()[1]
        log.info("metrics for Prometheus at http://%s:%d%s", host, taken, PATH)
        task_status.started(taken)


class MetricsDoor:
    def __init__(self, expose: Expose, *, local: bool) -> None:
        """`local`: only this machine can reach it."""
        self._expose = expose
        self._local = local
        self.connections = 0

    async def handle(self, stream: trio.abc.Stream) -> None:
        """One connection; beyond MAX_CONNECTIONS it is closed at once."""
        self.connections += 1
        try:
            if self.connections <= MAX_CONNECTIONS:
                await self._serve(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            log.debug("a reader of the metrics went away or was too slow: %r", error)
        finally:
            self.connections -= 1
            with trio.move_on_after(SEND_SECONDS):
                await stream.aclose()

    async def _serve(self, stream: trio.abc.Stream) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        try:
            with trio.fail_after(REQUEST_SECONDS):
                request = await _request(http, stream)
        except h11.RemoteProtocolError as error:
            await _send(
                http, stream, (error.error_status_hint, PLAIN, b"this is not a request\n"), head=False
            )
            return
        if request is not None:
            await _send(http, stream, self.answer(request), head=request.method == b"HEAD")

    def answer(self, request: h11.Request) -> Answer:
        """What one request is answered with."""
        if self._local and not _names_this_machine(request):
            return 403, PLAIN, b"ask by an address of this machine, not by a name\n"
        if request.method not in (b"GET", b"HEAD"):
            return 405, PLAIN, b"only GET\n"
        if request.target.partition(b"?")[0] != PATH.encode():
            return 404, PLAIN, f"there is only {PATH}\n".encode()
        return 200, CONTENT_TYPE_LATEST, self._expose()


def _names_this_machine(request: h11.Request) -> bool:
    host = next((value for name, value in request.headers if name == b"host"), b"").decode("latin-1")
    name = host.partition("]")[0].strip("[") if host.startswith("[") else host.rpartition(":")[0] or host
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _request(http: h11.Connection, stream: trio.abc.Stream) -> h11.Request | None:
    """The head of a request, None if the connection ends without one. A body is not read."""
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(bytes(await stream.receive_some(READ_BYTES)))
    return event if isinstance(event, h11.Request) else None


async def _send(http: h11.Connection, stream: trio.abc.Stream, answer: Answer, *, head: bool) -> None:
    status, kind, body = answer
    headers = [("content-type", kind), ("content-length", str(len(body))), ("connection", "close")]
    events: list[h11.Event] = [h11.Response(status_code=status, headers=headers)]
    events += [] if head else [h11.Data(data=body)]
    events.append(h11.EndOfMessage())
    with trio.fail_after(SEND_SECONDS):
        await stream.send_all(b"".join(http.send(event) or b"" for event in events))
