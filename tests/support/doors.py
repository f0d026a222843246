"""A provider's door at the end of a link in memory, with a job's folder of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import trio

from protocol import file_frames as f
from protocol.errors import LeaseUnknown
from protocol.lease_state import Lease, Phase, Role
from protocol.messages import OpenFiles, Terms
from protocol.units import LeaseId, PeerKey, UnixMs
from qubixd.link.stream import LinkStream
from qubixd.runner import Runner
from qubixd.tunnels.door import Door
from tests.support.link_pairs import CALLER, PROVIDER, Pair, link_pair
from tests.support.values import sample

LEASE: Final = LeaseId(b"L" * 32)
DISK_MIB: Final = 8


@dataclass
class Book:
    """What the door asks of the leases."""

    leases: dict[LeaseId, Lease] = field(default_factory=dict)
    on_change: list[Callable[[Lease], None]] = field(default_factory=list)

    async def shared(self, lease_id: LeaseId, peer: PeerKey, role: Role) -> Lease:
        lease = self.leases.get(lease_id)
        if lease is None or lease.role is not role or lease.terms.caller != peer:
            raise LeaseUnknown("there is no such lease with you")
        return lease

    def change(self, lease_id: LeaseId = LEASE, **fields: Any) -> None:
        self.leases[lease_id] = replace(self.leases[lease_id], **fields)
        for notice in self.on_change:
            notice(self.leases[lease_id])


def running_lease(lease_id: LeaseId = LEASE) -> Lease:
    """A lease of CALLER's, whose job runs here."""
    terms: Terms = sample(Terms)
    terms = replace(terms, caller=CALLER, runner="docker", wish=replace(terms.wish, disk_mib=DISK_MIB))
    return Lease(
        lease_id,
        Role.PROVIDER,
        terms,
        Phase.RUNNING,
        UnixMs(1),
        UnixMs(0),
        started_at=UnixMs(1),
        released=True,
    )


@dataclass
class Doors:
    pair: Pair
    door: Door
    book: Book
    folder: Path

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    async def open(self, opening: Any) -> LinkStream:
        return await self.pair.caller.open(PROVIDER, opening)

    async def files(self) -> Copier:
        return Copier(await self.open(OpenFiles(LEASE)))


@asynccontextmanager
async def doors(folder: Path, runner: Runner) -> AsyncIterator[Doors]:
    """The lease LEASE is at `folder`."""
    (folder / "workspace").mkdir(parents=True, exist_ok=True)
    book = Book({LEASE: running_lease()})
    door = Door(book, runner, lambda _: folder)
    async with link_pair() as pair:
        pair.provider.serve(door.serve)
        yield Doors(pair, door, book, folder)


class Copier:
    """The caller's side of a file stream, one step at a time."""

    def __init__(self, stream: LinkStream) -> None:
        self.stream = stream
        self._reader = f.reader_from_provider()
        self._frames: list[Any] = []

    async def ask(self, *frames: Any) -> Any:
        """Say this; the first frame of the answer."""
        await self.stream.send_all(b"".join(map(f.pack, frames)))
        return await self.next()

    async def next(self) -> Any:
        """None at the end."""
        with trio.fail_after(30):
            while not self._frames:
                data = await self.stream.receive_some()
                if not data:
                    return None
                self._frames.extend(self._reader.feed(data))
        return self._frames.pop(0)

    async def listed(self, name: bytes = b"", *, deep: bool = True) -> dict[bytes, str]:
        """Names and kinds."""
        found: dict[bytes, str] = {}
        answer = await self.ask(f.List(name, deep))
        while isinstance(answer, f.Entries):
            found |= {one.name: one.kind for one in answer.entries}
            answer = await self.next()
        assert answer == f.Done(), answer
        return found

    async def read(self, name: bytes, offset: int = 0) -> tuple[bytes, bytes]:
        """(what came, SHA-256 of the whole)."""
        answer = await self.ask(f.Read(name, offset))
        assert isinstance(answer, f.Entry), answer
        got = b""
        while isinstance(part := await self.next(), f.Data):
            got += part.data
        assert isinstance(part, f.End), part
        return got, part.sha256
