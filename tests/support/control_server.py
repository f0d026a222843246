"""A control server that says what a test tells it to, in a thread of its own: the daemon's side, unkind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from protocol import control

Reply = dict[str, Any] | bytes
"""A frame without its id, or raw bytes to be sent as they are."""
Replies = Callable[[str, Any], Iterable[Reply]]
"""(verb, typed arguments) -> what is sent back; the connection is closed after raw bytes."""
HELLO: Final = control.HelloView(control.API_VERSION, "0.0.0", list(control.VERBS))


@contextmanager
def control_server(
    path: Path,
    replies: Replies,
    received: list[Any] | None = None,
    greeting: control.HelloView | dict[str, Any] = HELLO,
    left_requests: list[Any] | None = None,
) -> Iterator[list[Any]]:
    """Serve at `path`; yields the list of the arguments received so far, but for what every client says
    at the beginning (`hello`, answered with `greeting`) and when it goes from a stream (`leave`, kept in
    `left_requests`)."""
    received = [] if received is None else received
    left = [] if left_requests is None else left_requests
    greet = {"ok": control.to_body(greeting)} if isinstance(greeting, control.HelloView) else greeting
    loop, started = asyncio.new_event_loop(), threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        server = await asyncio.start_unix_server(connection, path)
        started.set()
        async with server:
            await stop.wait()
            await _end_all(asyncio.all_tasks() - {asyncio.current_task()})

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(control.FRAME_HEADER_BYTES), "big")
                request, args = control.read_request(await reader.readexactly(size))
                if request.verb == "leave":
                    left.append(args)
                    continue
                if request.verb == "hello":
                    writer.write(control.pack({"id": request.id, **greet}))
                    continue
                received.append(args)
                for reply in replies(request.verb, args):
                    if isinstance(reply, bytes):
                        writer.write(reply)
                        return
                    writer.write(control.pack({"id": request.id, **reply}))
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # asyncio would log a cancellation as an error
        finally:
            writer.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(60)
    try:
        yield received
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def _end_all(tasks: Iterable[asyncio.Task[Any] | None]) -> None:
    """Connections whose other side has not hung up, or nobody has noticed yet."""
    open_ones = [task for task in tasks if task]
    for task in open_ones:
        task.cancel()
    await asyncio.gather(*open_ones, return_exceptions=True)
