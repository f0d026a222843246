"""What one web process measures, for Prometheus, behind a door of its own (--metrics HOST:PORT).

Off by default and never where the public asks. Each process has its own figures and its own port, as
Prometheus wants it: the first free one from the port given on.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from protocol.errors import PortBusy
from web.live import Hub
from web.store import now_ms

SECONDS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
UNKNOWN: Final = "unknown"
"""Where no route is: what strangers make up is no label."""


class Meter:
    """Counts what is answered. `registry` also has what the hub counts, once `watch` was called."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.answers = Counter(
            "qubix_web_answers", "Answers by route and status.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "qubix_web_answer_seconds",
            "Until an answer begins.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.limited = Counter(
            "qubix_web_limited", "Requests that had to wait (429).", registry=self.registry
        )

    def watch(self, hub: Hub) -> None:
        self.registry.register(_Live(hub))


class _Live(Collector):
    """Looked at from the listener's thread: whole numbers, read one at a time."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        hub, status = self._hub, self._hub.status
        yield GaugeMetricFamily("qubix_web_streams", "Live streams that are open.", len(hub))
        yield CounterMetricFamily("qubix_web_changes", "Changes of offers told to streams.", hub.events)
        yield CounterMetricFamily("qubix_web_streams_cut", "Streams cut off as too slow.", hub.lost)
        yield GaugeMetricFamily("qubix_web_mirror_readable", "Whether there is a mirror.", status is not None)
        if status is not None:
            age_s = max(0, now_ms() - status.updated_ms) / 1_000
            yield GaugeMetricFamily("qubix_web_mirror_age_seconds", "Since the mirror was complete.", age_s)
            yield GaugeMetricFamily("qubix_web_mirror_change", "The mirror's newest change.", status.change)


class Measured:
    """Times every answer of the application inside."""

    def __init__(self, app: ASGIApp, meter: Meter) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()

        async def send_with(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = _route(scope)
                self._meter.seconds.labels(route).observe(time.perf_counter() - begun)
                self._meter.answers.labels(route, message["status"]).inc()
            await send(message)

        await self._app(scope, receive, send_with)


def _route(scope: Scope) -> str:
    path = getattr(scope.get("route"), "path", UNKNOWN)
    inside = scope["path"].startswith("/v1/") and path.startswith("/") and not path.startswith("/v1/")
    return f"/v1{path}" if inside else path


@contextmanager
def exposed(meter: Meter, address: str, processes: int) -> Iterator[str]:
    """Prometheus is answered at `address` for as long as the block lasts; where that is, "" for nowhere.
    PortBusy if none of as many ports as there are processes is free."""
    if not address:
        yield ""
        return
    host, _, first = address.rpartition(":")
    host = host.strip("[]")
    for port in range(int(first), int(first) + processes):
        try:
            server, thread = start_http_server(port, host, meter.registry)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise PortBusy(f"metrics cannot be served on {address} ({error.strerror})") from error
            continue
        try:
            yield f"{host}:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
        return
    raise PortBusy(f"another program listens on {address}; choose another --metrics")
