"""Files of this machine on their way into a job's workspace.

Whatever the provider has of a file already, from a copy that was cut off or because it is the same, does not
travel again. While one file is being finished there, the next is on its way.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from protocol.errors import DiskFull, FileChanged, FileMissing, MessageInvalid, QubixError
from protocol.file_frames import (
    MAX_DATA_BYTES,
    Data,
    Done,
    End,
    Entries,
    Entry,
    List,
    Look,
    MakeDirectory,
    Ready,
    Settle,
    Write,
)
from tui.copy_plan import Item, Tree, join
from tui.copy_report import Report
from tui.copy_talk import NotDone, Talk

AT_ONCE: Final = 64
"""Small questions under way."""
HASHED_AT_ONCE: Final = 8 << 20


@dataclass
class _Sent:
    """A file whose last byte is on its way. `resumed`: the provider had a part of it."""

    item: Item
    resumed: bool


class Upload:
    """One tree. `source` is its beginning here, `target` there."""

    def __init__(self, talk: Talk, report: Report, tree: Tree, source: bytes, target: bytes) -> None:
        self._talk, self._report = talk, report
        self._tree, self._source, self._target = tree, source, target
        self._last: _Sent | None = None
        self._anew: set[bytes] = set()

    async def run(self) -> None:
        there = await self._there()
        await self._small([self._made(item) for item in self._tree.items if not item.is_file])
        waiting = deque(item for item in self._tree.items if item.is_file)
        while waiting or self._last:
            again = await self._file(waiting.popleft(), there) if waiting else await self._finish()
            if again:
                waiting.appendleft(again)
        await self._small([self._settled(item) for item in reversed(self._tree.items) if not item.is_file])

    def _made(self, item: Item) -> MakeDirectory:
        return MakeDirectory(self._name(item), item.mode | 0o700)

    def _settled(self, item: Item) -> Settle:
        return Settle(self._name(item), item.mode, item.mtime_ns)

    def _name(self, item: Item) -> bytes:
        return join(self._target, item.name)

    async def _there(self) -> dict[bytes, Entry]:
        """The files that are there already, by name."""
        root = self._tree.items[0]
        try:
            if root.is_file:
                entry = await self._talk.ask(Look(self._target), Entry)
                return {self._target: entry}
            await self._talk.send(List(self._target, deep=True))
            return await self._listed()
        except (FileMissing, NotDone):
            return {}  # and where it cannot be known, what is sent will tell

    async def _listed(self) -> dict[bytes, Entry]:
        wanted = {self._name(item) for item in self._tree.items}
        found: dict[bytes, Entry] = {}
        while isinstance(answer := await self._talk.answer(Entries, Done), Entries):
            found |= {entry.name: entry for entry in answer.entries if entry.name in wanted}
        return found

    async def _small(self, questions: Sequence[MakeDirectory | Settle]) -> None:
        """Many at once; those that fail are told, and the rest goes on."""
        asked = [one for one in questions if one.name]
        for at in range(0, len(asked), AT_ONCE):
            some = asked[at : at + AT_ONCE]
            await self._talk.send(*some)
            for question in some:
                await self._answered(question.name, Done)

    async def _answered(self, name: bytes, kind: type, *raised: type[QubixError]) -> Any:
        """None if the answer is a no that concerns this name alone, which is told."""
        try:
            return await self._talk.answer(kind)
        except NotDone as no:
            if isinstance(no.error, (DiskFull, *raised)):
                raise no.error from no
            self._report.fails(name, no.error)
            return None

    # --- one file -----------------------------------------------------------------------------

    async def _file(self, item: Item, there: dict[bytes, Entry]) -> Item | None:
        """Send it; the file before it that has to be sent once more, if there is one."""
        name, entry = self._name(item), there.get(self._name(item))
        self._report.begins(item.name or os.path.basename(self._source))
        if entry and (entry.kind, entry.size, entry.mtime_ns) == ("file", item.size, item.mtime_ns):
            self._report.same(name, item.size)
            return None
        path = join(self._source, item.name)
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            self._report.fails(name, FileMissing(f"it cannot be read here: {error.strerror}"))
            return None
        try:
            return await self._send(item, file)
        finally:
            os.close(file)

    async def _send(self, item: Item, file: int) -> Item | None:
        name = self._name(item)
        await self._talk.send(Write(name, item.size, item.mtime_ns, item.mode, name in self._anew))
        again = await self._finish()
        ready: Ready | None = await self._answered(name, Ready)
        if ready is None:
            return again
        if ready.offset > item.size:
            raise MessageInvalid("the provider says that it has more of a file than there is")
        self._report.moved(ready.offset, here_already=True)
        if await self._data(item, file, ready.offset):
            self._last = _Sent(item, resumed=ready.offset > 0)
        return again

    async def _data(self, item: Item, file: int, offset: int) -> bool:
        """False if it came to nothing: the provider had to say no, or the file is no longer what it was."""
        sha256 = await asyncio.to_thread(hashed, file, offset)
        at = offset
        while at < item.size and not self._talk.interrupts:
            data = os.pread(file, min(MAX_DATA_BYTES, item.size - at), at)
            if not data:
                break
            sha256.update(data)
            await self._talk.send(Data(data))
            at += len(data)
            self._report.moved(len(data))
        whole = at == item.size and not os.pread(file, 1, at)
        await self._talk.send(End(sha256.digest() if whole else b""))
        if not whole:
            await self._answered(self._name(item), Done)
        return whole

    async def _finish(self) -> Item | None:
        """What became of the file sent before: itself, if it has to be sent again from its beginning."""
        last, self._last = self._last, None
        if last is None:
            return None
        name = self._name(last.item)
        try:
            if await self._answered(name, Done, FileChanged):
                self._report.done(name, last.item.size)
        except FileChanged as error:
            if last.resumed and name not in self._anew:
                self._anew.add(name)
                return last.item
            self._report.fails(name, error)
        return None


def hashed(file: int, size: int) -> Any:
    """SHA-256 under way, after the first `size` bytes of a file."""
    sha256, at = hashlib.sha256(), 0
    while at < size and (data := os.pread(file, min(HASHED_AT_ONCE, size - at), at)):
        sha256.update(data)
        at += len(data)
    return sha256
