"""The files of a job, on a stream of its caller: protocol/file_frames.py, the provider's side."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import trio

from protocol.errors import (
    DiskFull,
    FileChanged,
    FileDenied,
    FileMissing,
    MessageInvalid,
    NotAFile,
    QubixError,
)
from protocol.file_frames import (
    MAX_DATA_BYTES,
    MAX_ENTRIES,
    Data,
    Done,
    End,
    Entries,
    Entry,
    Failed,
    List,
    Look,
    MakeDirectory,
    Read,
    Ready,
    Settle,
    Write,
    pack,
    reader_from_caller,
    shown,
)
from protocol.lease_state import Lease
from protocol.units import LeaseId
from qubixd.link.stream import LinkStream
from qubixd.tunnels import tree
from qubixd.tunnels.parts import MIB, Part, Room

T = TypeVar("T")
THREADS: Final = 16
"""In which files of all jobs are read and written; each stream has one at a time."""
HASH_BYTES: Final = 4 << 20
ANSWERED: Final = (DiskFull, FileChanged, FileDenied, FileMissing, NotAFile)
"""What concerns one question, and not the stream."""
MAX_SENTENCE: Final = 500


class Workspaces:
    """The workspaces of all leases here, as far as files in them are copied."""

    def __init__(self, folder_of: Callable[[LeaseId], Path]) -> None:
        """`folder_of`: the directory of a lease, with the job's `workspace` in it."""
        self._folder_of = folder_of
        self._rooms: dict[LeaseId, tuple[int, Room]] = {}
        self._threads = trio.CapacityLimiter(THREADS)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Cancelling waits for the little that a thread does: nothing is used after it was closed."""
        return await trio.to_thread.run_sync(work, limiter=self._threads)

    def enter(self, lease: Lease) -> Room:
        """One for all streams of a lease, as long as there are any."""
        users, room = self._rooms.get(lease.lease_id) or (
            0,
            Room(self._folder_of(lease.lease_id), lease.terms.wish.disk_mib * MIB),
        )
        self._rooms[lease.lease_id] = users + 1, room
        return room

    def leave(self, lease_id: LeaseId) -> None:
        users, room = self._rooms.pop(lease_id)
        if users > 1:
            self._rooms[lease_id] = users - 1, room


async def serve(stream: LinkStream, workspaces: Workspaces, lease: Lease) -> None:
    """Answer questions until the caller has no more."""
    room = workspaces.enter(lease)
    try:
        await stream.accept()
        talk = _Talk(stream, workspaces, room)
        while (question := await talk.heard()) is not None:
            try:
                await talk.answer(question)
            except ANSWERED as error:
                await talk.say(_failed(error))
            except _Told:
                continue
        await stream.send_eof()
    finally:
        workspaces.leave(lease.lease_id)


class _Talk:
    def __init__(self, stream: LinkStream, workspaces: Workspaces, room: Room) -> None:
        self._stream = stream
        self._in_thread = workspaces.in_thread
        self._room = room
        self._root = room.workspace
        self._reader = reader_from_caller()
        self._heard: deque[Any] = deque()

    async def heard(self) -> Any:
        """The next frame, None at the end."""
        while not self._heard:
            data = await self._stream.receive_some()
            if not data:
                if self._reader.unfinished:
                    raise MessageInvalid("a file stream ended in the middle of a frame")
                return None
            self._heard.extend(self._reader.feed(data))
        return self._heard.popleft()

    async def say(self, *frames: Any) -> None:
        await self._stream.send_all(b"".join(map(pack, frames)))

    async def answer(self, question: Any) -> None:
        root = self._root
        match question:
            case Look(name=name, digest=digest):
                await self.say(await self._look(name, digest=digest))
            case List(name=name, deep=deep):
                await self._list(name, deep=deep)
            case Read(name=name, offset=offset):
                await self._read(name, offset)
            case Write():
                await self._write(question)
            case MakeDirectory(name=name, mode=mode):
                await self._in_thread(lambda: tree.make_directory(root, name, mode))
                await self.say(Done())
            case Settle(name=name, mode=mode, mtime_ns=mtime_ns):
                await self._in_thread(lambda: tree.settle(root, name, mode, mtime_ns))
                await self.say(Done())
            case _:
                raise MessageInvalid(f"a {type(question).__name__} came that nobody waits for")

    # --- out ----------------------------------------------------------------------------------

    async def _look(self, name: bytes, *, digest: bool) -> Entry:
        seen = await self._in_thread(lambda: tree.look(self._root, name))
        if not digest or seen.kind != "file":
            return seen
        file = await self._in_thread(lambda: tree.open_file(self._root, name))
        try:
            size, sha256 = os.fstat(file).st_size, tree.new_digest()
            await self._digest(file, size, sha256)
            return tree.entry_of(name, os.fstat(file), sha256.digest())
        finally:
            os.close(file)

    async def _digest(self, file: int, size: int, sha256: tree.Digest) -> None:
        def some() -> int:
            end = min(size, at + HASH_BYTES)
            here = at
            while here < end:
                here += len(tree.read_at(file, here, end - here, sha256))
            return here

        at = 0
        while at < size:
            at = await self._in_thread(some)

    async def _list(self, name: bytes, *, deep: bool) -> None:
        found: Iterator[list[Entry]] = tree.entries(self._root, name, deep=deep)
        while (batch := await self._in_thread(lambda: next(found, None))) is not None:
            for at in range(0, len(batch), MAX_ENTRIES):
                await self.say(Entries(tuple(batch[at : at + MAX_ENTRIES])))
        await self.say(Done())

    async def _read(self, name: bytes, offset: int) -> None:
        file = await self._in_thread(lambda: tree.open_file(self._root, name))
        try:
            info, sha256 = os.fstat(file), tree.new_digest()
            if offset > info.st_size:
                raise FileChanged(f"{shown(name)} is shorter now than what was copied of it")
            await self.say(tree.entry_of(name, info))
            await self._digest(file, offset, sha256)
            at = offset
            while at < info.st_size:
                data = await self._in_thread(partial(tree.read_at, file, at, info.st_size - at, sha256))
                at += len(data)
                cuts = range(0, len(data), MAX_DATA_BYTES)
                await self.say(*(Data(data[cut : cut + MAX_DATA_BYTES]) for cut in cuts))
            await self.say(End(sha256.digest()))
        finally:
            os.close(file)

    # --- in -----------------------------------------------------------------------------------

    async def _write(self, wish: Write) -> None:
        part = await self._in_thread(lambda: Part(self._room, wish))
        try:
            while part.is_behind:
                await self._in_thread(part.digest_some)
            await self.say(Ready(part.offset))
            await self._take(part)
        finally:
            with trio.CancelScope(shield=True):
                await self._in_thread(part.close)
        await self.say(Done())

    async def _take(self, part: Part) -> None:
        """Data until the end of the file. After what goes wrong in between the rest is let pass."""
        while not isinstance(frame := await self._data(), End):
            try:
                await self._in_thread(partial(part.write, frame))
            except ANSWERED as error:
                await self.say(_failed(error))
                while not isinstance(await self._data(), End):
                    pass
                raise _Told from error
        await self._in_thread(lambda: part.finish(frame.sha256))

    async def _data(self) -> bytes | End:
        """All data that have come, or the end of them."""
        frame = await self.heard()
        if isinstance(frame, End):
            return frame
        data = []
        while isinstance(frame, Data):
            data.append(frame.data)
            if not self._heard or not isinstance(self._heard[0], Data):
                return b"".join(data)
            frame = self._heard.popleft()
        raise MessageInvalid("a file that was being written did not come to its end")


class _Told(Exception):
    """A question failed, and the caller knows it."""


def _failed(error: QubixError) -> Failed:
    return Failed(error.code, str(error)[:MAX_SENTENCE])
