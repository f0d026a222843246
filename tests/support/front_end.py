"""A front end on the control socket, in the daemon's own trio run; it can also misbehave."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from protocol import control
from protocol.codec import convert
from qubixd.wire import receive_frame


class Failed(Exception):
    """The daemon answered with an error; `body` as it came."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(f"{body['code']}: {body['message']}")
        self.body = body

    @property
    def code(self) -> str:
        return str(self.body["code"])


@dataclass
class FrontEnd:
    stream: trio.SocketStream
    last_id: int = 0

    async def send(self, verb: str, **args: Any) -> int:
        """Send a request; its id."""
        self.last_id += 1
        await self.stream.send_all(control.pack({"id": self.last_id, "verb": verb, "args": args}))
        return self.last_id

    async def receive(self) -> dict[str, Any]:
        data = await receive_frame(self.stream, control.MAX_FRAME_BYTES)
        assert data is not None, "the daemon hung up"
        return control.read_answer(data)

    async def hung_up(self) -> bool:
        """Whether the daemon closes the connection without another word."""
        with trio.move_on_after(5):
            try:
                return bytes(await self.stream.receive_some()) == b""
            except trio.BrokenResourceError:
                return True
        return False

    async def ask(self, verb: str, **args: Any) -> Any:
        """The typed answer. Failed for an error."""
        return (await self.follow(verb, **args))[1]

    async def follow(self, verb: str, **args: Any) -> tuple[list[Any], Any]:
        """The typed events before the answer, and the answer."""
        request = await self.send(verb, **args)
        events: list[Any] = []
        while True:
            frame = await self.receive()
            assert frame["id"] == request
            if "error" in frame:
                raise Failed(frame["error"])
            if "ok" in frame:
                return events, convert(frame["ok"], control.ANSWERS[verb], "answer")
            events.append(convert(frame["event"], control.EVENTS[verb], "event"))


@asynccontextmanager
async def front_end(path: Path) -> AsyncIterator[FrontEnd]:
    stream = await trio.open_unix_socket(str(path))
    async with stream:
        yield FrontEnd(stream)
