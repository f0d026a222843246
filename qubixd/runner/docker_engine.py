"""The connection to a Docker engine: its calls in worker threads, its failures in our words."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import docker
import trio
from docker.errors import APIError, DockerException, NotFound
from docker.utils import kwargs_from_env
from requests.exceptions import RequestException

from protocol.errors import DiskFull, EngineUnreachable, ImageUnavailable, QubixError, StartFailed
from protocol.units import LeaseId
from qubixd.runner import docker_config as config
from qubixd.runner.common import in_thread

ENGINE_TIMEOUT_SECONDS: Final = 60
BLOCKING_CALLS: Final = 256
"""Threads that may wait for a job's end or next output at the same time, apart from short calls."""
BATCH_BYTES: Final = 65_536
PULLS: Final = 64
MEASURES: Final = 16
READ_AHEAD_CHUNKS: Final = 1_024
HTTP_CONFLICT: Final = 409

Client = Any
"""docker.APIClient; its published types leave most answers open."""
T = TypeVar("T")


class DockerEngine:
    """The engine at DOCKER_HOST, or the usual socket. Connects at the first call."""

    def __init__(self, limiter_tokens: int) -> None:
        # Apart from each other: whoever fills one must not hold up what watches jobs.
        self.blocking = trio.CapacityLimiter(BLOCKING_CALLS)
        self.logs = trio.CapacityLimiter(BLOCKING_CALLS)
        self.pulls = trio.CapacityLimiter(PULLS)
        self.measures = trio.CapacityLimiter(MEASURES)
        self._calls = trio.CapacityLimiter(limiter_tokens)
        self._client: Client = None
        self._lock = threading.Lock()

    async def call(self, ask: Callable[[Client], T]) -> T:
        """`ask` in a worker thread. Cancelling leaves it to finish there: each has its effect once."""
        return await in_thread(lambda: self._ask(ask), self._calls)

    async def call_blocking(self, ask: Callable[[Client], T]) -> T:
        """As `call`, for what may take as long as a job."""
        return await in_thread(lambda: self._ask(ask), self.blocking)

    async def next(self, stream: Iterator[T]) -> T | None:
        """What the engine tells next of a pull, None at its end."""

        def take() -> T | None:
            with _engine_errors():
                return next(stream, None)

        return await in_thread(take, self.pulls)

    def _ask(self, ask: Callable[[Client], T]) -> T:
        with _engine_errors():
            return ask(self._connected())

    def _connected(self) -> Client:
        with self._lock:
            if self._client is None:
                self._client = docker.APIClient(
                    version="auto", timeout=ENGINE_TIMEOUT_SECONDS, **kwargs_from_env()
                )
            return self._client


class LogBatches:
    """A blocking stream of many small chunks, one per line, taken many at a time.

    A thread of its own reads ahead, a bounded way: going to a worker thread for each line would cost
    more than all the rest.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._chunks: queue.Queue[bytes | None] = queue.Queue(READ_AHEAD_CHUNKS)
        threading.Thread(target=self._read_ahead, daemon=True).start()

    def take(self) -> bytes | None:
        """The next bytes, at most about BATCH_BYTES; None at the end. Blocks: for a worker thread."""
        chunk = self._chunks.get()
        if chunk is None:
            return None
        batch = bytearray(chunk)
        with suppress(queue.Empty):
            while len(batch) < BATCH_BYTES:
                if (chunk := self._chunks.get_nowait()) is None:
                    self._chunks.put(None)  # for the next call
                    break
                batch += chunk
        return bytes(batch)

    def close(self) -> None:
        """End both threads, whatever they wait for."""
        with suppress(OSError, DockerException):  # it may have ended; over SSH the SDK cannot cut it
            self._stream.close()
        with suppress(queue.Empty):
            while True:
                self._chunks.get_nowait()

    def _read_ahead(self) -> None:
        # However the stream breaks, it ends here: whoever reads asks the engine what is the matter.
        with suppress(OSError, ValueError, AttributeError, RequestException, DockerException):
            for chunk in self._stream:
                self._chunks.put(chunk)
        self._chunks.put(None)


async def said_by(
    engine: DockerEngine, lease_id: LeaseId, follow: bool, offset: int
) -> AsyncGenerator[bytes, None]:
    """What a job has said, from byte `offset` on, until the engine ends the stream."""

    def open_logs(client: Client) -> LogBatches:
        return LogBatches(client.logs(config.container_name(lease_id), stream=True, follow=follow))

    stream = await engine.call(open_logs)
    try:
        while (chunk := await in_thread(stream.take, engine.logs)) is not None:
            offset, chunk = max(0, offset - len(chunk)), chunk[offset:]
            if chunk:
                yield chunk
    finally:
        stream.close()


class LayerShares:
    """Share done of a pull, from the engine's events of each layer."""

    def __init__(self) -> None:
        self._layers: dict[str, tuple[int, int]] = {}

    def add(self, event: dict[str, Any]) -> float:
        """Take one event in; the share of the bytes known so far that have arrived, 0..1."""
        detail = event.get("progressDetail") or {}
        if event.get("status") == "Downloading" and detail.get("total"):
            self._layers[event["id"]] = (detail["current"], detail["total"])
        elif event.get("status") == "Download complete" and event.get("id") in self._layers:
            total = self._layers[event["id"]][1]
            self._layers[event["id"]] = (total, total)
        total = self.total_bytes
        return sum(done for done, _ in self._layers.values()) / total if total else 0.0

    @property
    def total_bytes(self) -> int:
        """Of the layers that are or were fetched, compressed."""
        return sum(of for _, of in self._layers.values())


@contextmanager
def ignoring_ended() -> Iterator[None]:
    """No error if the container has ended, is being removed, is gone or is already so."""
    try:
        yield
    except APIError as error:
        if not isinstance(error, NotFound) and error.status_code != HTTP_CONFLICT:
            raise


def start_failed(error: APIError) -> QubixError:
    reason = str(error.explanation)
    return disk_full(reason) or StartFailed(f"the Docker engine could not start the job: {reason}")


def image_unavailable(image: str, reason: str) -> QubixError:
    return disk_full(reason) or ImageUnavailable(
        f"the image {image} is not on this machine and cannot be fetched: {reason}"
    )


def disk_full(reason: str) -> DiskFull | None:
    """If that is what these words mean."""
    if "no space left on device" in reason or "disk quota exceeded" in reason:
        return DiskFull("the Docker engine's disk is full; free some space (`docker system prune`) and retry")
    return None


@contextmanager
def _engine_errors() -> Iterator[None]:
    """Whatever the SDK raises that no caller has handled."""
    try:
        yield
    except APIError as error:
        reason = str(error.explanation)
        failed = EngineUnreachable(f"The Docker engine at {_address()} refused a request: {reason}")
        raise disk_full(reason) or failed from error
    except (RequestException, DockerException, ConnectionError) as error:
        raise EngineUnreachable(_no_engine(str(error))) from error


def _no_engine(reason: str) -> str:
    if "permission denied" in reason.lower():
        return f"This user may not use the Docker engine at {_address()}; add it to the group `docker`."
    how = "`sudo systemctl start docker`" if sys.platform == "linux" else "Docker Desktop"
    return f"no Docker engine answers at {_address()}; start it with {how}"


def _address() -> str:
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
