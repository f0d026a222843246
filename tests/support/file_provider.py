"""The provider's side of a conversation about files, as a test writes it, behind a control socket of its own.

`answers` gets each frame of the caller and gives the frames (or raw bytes) that follow it; CUT among them
ends the connection. How the tunnel ended is asked on a second connection, as with a daemon.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from protocol import control
from protocol import file_frames as frames
from protocol.control_tunnels import ConnectView, PathView, TunnelEnd
from tests.support.control_server import HELLO

Answers = Callable[[Any], Iterable[Any]]
CUT: Final = None


@asynccontextmanager
async def file_provider(place: Path, answers: Answers, end: TunnelEnd | None) -> AsyncIterator[None]:
    """At the control socket `place`. `end` None: of a daemon that is gone by then."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            request = await _request(reader)
            if request.verb == "hello":
                writer.write(control.pack({"id": request.id, "ok": control.to_body(HELLO)}))
                request = await _request(reader)
            view: Any = ConnectView("t", "ab" * 32, PathView("direct")) if request.verb == "connect" else end
            if view is not None:
                writer.write(control.pack({"id": request.id, "ok": control.to_body(view)}))
            if request.verb == "connect":
                await _talk(reader, writer, answers)
        writer.close()

    server = await asyncio.start_unix_server(serve, place)
    async with server:
        yield


async def _request(reader: asyncio.StreamReader) -> control.Request:
    size = int.from_bytes(await reader.readexactly(control.FRAME_HEADER_BYTES), "big")
    return control.read_request(await reader.readexactly(size))[0]


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: Answers) -> None:
    heard = frames.reader_from_caller()
    while data := await reader.read(65_536):
        for frame in heard.feed(data):
            for one in answers(frame):
                if one is CUT:
                    return
                writer.write(one if isinstance(one, bytes) else frames.pack(one))
            await writer.drain()
