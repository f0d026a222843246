"""The files of a job, on a stream of its caller: protocol/file_frames.py, the provider's side."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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
THREADS_OF_LEASE: Final = 4
"""So that who reads a lot leaves the others their turn."""
LISTINGS_OF_LEASE: Final = 1
"""A large directory is in memory while it is listed."""
HASH_BYTES: Final = 4 << 20
ANSWERED: Final = (DiskFull, FileChanged, FileDenied, FileMissing, NotAFile)
"""What concerns one question, and not the stream."""
MAX_SENTENCE: Final = 500


@dataclass
class _Used:
    """The workspace of a lease from which files are copied now."""

    room: Room
    users: int = 0
    threads: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(THREADS_OF_LEASE))
    listings: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(LISTINGS_OF_LEASE))


class Workspaces:
    """The workspaces of all leases here, as far as files in them are copied."""

    def __init__(self, folder_of: Callable[[LeaseId], Path]) -> None:
        """`folder_of`: the directory of a lease, with the job's `workspace` in it."""
        self._folder_of = folder_of
        self._used: dict[LeaseId, _Used] = {}
        self._threads = trio.CapacityLimiter(THREADS)

    async def in_thread(self, used: _Used, work: Callable[[], T]) -> T:
        """Cancelling waits for the little that a thread does: nothing is used after it was closed."""
        async with used.threads:
            return await trio.to_thread.run_sync(work, limiter=self._threads)

    @contextmanager
    def entered(self, lease: Lease) -> Iterator[_Used]:
        """One for all streams of a lease, as long as there are any."""
        used = self._used.get(lease.lease_id)
        if used is None:
            room = Room(self._folder_of(lease.lease_id), lease.terms.wish.disk_mib * MIB)
            used = self._used[lease.lease_id] = _Used(room)
        used.users += 1
        try:
            yield used
        finally:
            used.users -= 1
            if not used.users:
                del self._used[lease.lease_id]


async def serve(stream: LinkStream, workspaces: Workspaces, lease: Lease) -> None:
    """Answer questions until the caller has no more."""
    with workspaces.entered(lease) as used:
        await stream.accept()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.wait_broken)  # nobody hears the end of what takes long then
            await _converse(_Talk(stream, workspaces, used))
            nursery.cancel_scope.cancel()
        await stream.send_eof()


async def _converse(talk: _Talk) -> None:
    while (question := await talk.heard()) is not None:
        try:
            await talk.answer(question)
        except ANSWERED as error:
            await talk.say(_failed(error))
        except _Told:
            continue


class _Talk:
    def __init__(self, stream: LinkStream, workspaces: Workspaces, used: _Used) -> None:
        self._stream = stream
        self._workspaces, self._used = workspaces, used
        self._root = used.room.workspace
        self._reader = reader_from_caller()
        self._heard: deque[Any] = deque()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await self._workspaces.in_thread(self._used, work)

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
        async with self._used.listings:
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
        part = await self._in_thread(lambda: Part(self._used.room, wish))
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
