"""The caller's side of a conversation about files (protocol/file_frames.py), checked as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from protocol import file_frames as frames
from protocol.control_tunnels import ConnectArgs
from protocol.errors import DaemonUnreachable, MachineError, MessageInvalid, QubixError, StreamBroken
from tui.client import error_of
from tui.tunnel import CHUNK_BYTES, Tunnel, open_tunnel

HEARD_AHEAD: Final = 16
"""Pieces that wait to be looked at, before the provider has to wait."""


class NotDone(Exception):
    """The provider's no to one question, after which the next can be asked."""

    def __init__(self, error: QubixError) -> None:
        super().__init__(str(error))
        self.error = error


class Talk:
    """Questions and answers, in the same order. QubixErrors end it all, a NotDone one question."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self._loop = asyncio.get_running_loop()
        self._reader = frames.reader_from_provider()
        self._heard: asyncio.Queue[Any] = asyncio.Queue(HEARD_AHEAD)
        """Frames; after the last of them None or an error."""

    async def listen(self) -> None:
        """Until the stream ends."""
        try:
            while data := await self._loop.sock_recv(self._tunnel.socket, CHUNK_BYTES):
                for frame in self._reader.feed(data):
                    await self._heard.put(frame)
        except QubixError as error:
            await self._heard.put(error)
        except ConnectionError:
            pass
        await self._heard.put(None)

    async def send(self, *said: frames.FromCaller) -> None:
        try:
            await self._loop.sock_sendall(self._tunnel.socket, b"".join(map(frames.pack, said)))
        except ConnectionError as error:
            raise await self._cut_off() from error

    async def next(self) -> Any:
        """The next frame. What has cut the stream off is raised."""
        frame = await self._heard.get()
        if frame is None:
            raise await self._cut_off()
        if isinstance(frame, QubixError):
            raise frame
        return frame

    @property
    def interrupts(self) -> bool:
        """Something has come while we speak."""
        return not self._heard.empty()

    async def answer(self, *kinds: type) -> Any:
        """The next frame, which is of one of these kinds. NotDone for a Failed."""
        frame = await self.next()
        if isinstance(frame, frames.Failed):
            code = frame.code or MachineError.code
            sentence = " ".join(frame.sentence.split())  # one line, whatever the code would allow
            raise NotDone(error_of(code, sentence, MachineError.exit_code))
        if not isinstance(frame, kinds):
            raise MessageInvalid(
                f"the provider answered with {type(frame).__name__}, which was not asked for"
            )
        return frame

    async def ask(self, question: frames.Question, *kinds: type) -> Any:
        """The only question under way. Its no is raised as the error that it names."""
        await self.send(question)
        try:
            return await self.answer(*kinds)
        except NotDone as no:
            raise no.error from no

    async def _cut_off(self) -> QubixError:
        try:
            error = await self._tunnel.error() or StreamBroken("the provider ended the conversation")
        except DaemonUnreachable:
            error = DaemonUnreachable("the qubix daemon of this machine has ended")
        except QubixError as gone:
            error = gone
        return error_of(error.code, f"{error}; the same command again goes on from there", error.exit_code)


@asynccontextmanager
async def talk(place: Path, lease: str) -> AsyncIterator[Talk]:
    """A conversation about the files of a lease's job."""
    async with open_tunnel(place, ConnectArgs(lease, "files")) as tunnel:
        one = Talk(tunnel)
        listening = asyncio.create_task(one.listen())
        try:
            yield one
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
