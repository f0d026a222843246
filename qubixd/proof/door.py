"""The provider's side: `/qubix/proof/1` runs the caller's program in the lease's container and passes bytes.

The provider looks at nothing that passes: it is the machine that is examined, the daemon only carries. The
program runs as the job does, within the job's limits, so it can do nothing that the job could not.
"""

from __future__ import annotations

import hashlib
import math
import os
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from ledger.store import RunSync
from protocol.errors import (
    DiskFull,
    MessageInvalid,
    QubixError,
    Refused,
    StreamBroken,
)
from protocol.lease_state import LIVE, Lease, Phase, Role
from protocol.messages import Ack, OpenProof
from protocol.signing import NodeKey, Signed
from protocol.units import LeaseId, PeerKey
from qubixd.jobfiles import JobFiles
from qubixd.leases import Leases
from qubixd.proof.run import PIECE, PROOF_PROTOCOL
from qubixd.runner import Inside, Runner
from qubixd.talk import IDLE_TIMEOUT_S, REQUEST_TIMEOUT_S, patience, receive_signed, refusal_of, send_signed
from qubixd.wire import Stream, Wire

PREFIX: Final = ".qubix-proof-"
PROGRAM_MODE: Final = 0o755
LONGEST_S: Final = 240.0
"""From the program's start to its end. Before the job begins that is all the time that a caller gets for its
proofs together: nobody shall compute for nothing."""
BUSY_S: Final = 5.0
"""So long a proof waits for the end of the one before: the caller knows of it first."""
WHEN: Final = LIVE | {Phase.PROVISIONING}


@dataclass(frozen=True)
class ProofDoor:
    key: NodeKey
    leases: Leases
    files: JobFiles
    runner: Runner
    in_thread: RunSync
    busy: dict[LeaseId, trio.Event] = field(default_factory=dict)
    """Leases whose machine is being proved, one proof at a time, and what tells its end."""
    spent: Counter[LeaseId] = field(default_factory=Counter)
    """Seconds that programs have run before the jobs began, rounded up."""
    ended: dict[LeaseId, float] = field(default_factory=dict)
    """When the last program ended, on trio's clock."""

    def ran_since(self, lease_id: LeaseId, instant: float) -> bool:
        """Whether a program has run in a job since then, on trio's clock: what was used then is not the
        job's doing alone."""
        return lease_id in self.busy or self.ended.get(lease_id, -math.inf) >= instant

    def open(self, wire: Wire) -> None:
        """Begin to answer on a wire."""
        wire.serve(PROOF_PROTOCOL, self.serve)

    async def serve(self, stream: Stream, peer: PeerKey) -> None:
        with patience(REQUEST_TIMEOUT_S):
            signed = await receive_signed(stream, peer)
        try:
            await self._serve(stream, signed)
        except StreamBroken:
            raise
        except QubixError as error:
            await send_signed(stream, self.key.sign(refusal_of(error)))
            await stream.send_eof()

    async def _serve(self, stream: Stream, signed: Signed) -> None:
        wanted = signed.message
        if not isinstance(wanted, OpenProof):
            raise MessageInvalid("this is the protocol for proofs")
        lease = await self._lease_of(LeaseId(wanted.lease_id), signed.signer)
        with trio.move_on_after(BUSY_S):
            while lease.lease_id in self.busy:
                await self.busy[lease.lease_id].wait()
        if lease.lease_id in self.busy:
            raise Refused("the machine of this lease is being proved already")
        if self._left_s(lease) <= 0:
            raise Refused(f"proofs before a job take {LONGEST_S:g} s in all, and no longer")
        self.busy[lease.lease_id] = trio.Event()
        try:
            await send_signed(stream, self.key.sign(Ack()))
            program = await _receive(stream, wanted)
            async with self._placed(lease, program) as name:
                await self._run(stream, lease, name)
        finally:
            self.busy.pop(lease.lease_id).set()
            self.ended[lease.lease_id] = trio.current_time()

    async def _lease_of(self, lease_id: LeaseId, caller: PeerKey) -> Lease:
        lease = await self.leases.shared(lease_id, caller, Role.PROVIDER)
        if lease.phase not in WHEN:
            raise Refused(f"the job is {lease.phase.value}: there is no machine to prove")
        return lease

    @asynccontextmanager
    async def _placed(self, lease: Lease, program: bytes) -> AsyncIterator[str]:
        """The program's name in the workspace, for as long as it is needed."""
        workspace = self.files.path(lease.lease_id, "workspace")
        name = PREFIX + secrets.token_hex(8)
        try:
            await self.in_thread(lambda: place(workspace, name, program))
            yield name
        finally:
            with trio.CancelScope(shield=True):
                await self._tidy(lease)

    async def _run(self, stream: Stream, lease: Lease, name: str) -> None:
        with patience(IDLE_TIMEOUT_S):  # the image's own /bin/sh begins it, which may do nothing for ever
            inside, begun = await self.runner.inside(lease.lease_id, [f"./{name}"]), trio.current_time()
        try:
            await send_signed(stream, self.key.sign(Ack()))
            with patience(self._left_s(lease)):
                await relay(stream, inside, lambda: self._tidy(lease))
        finally:
            self.spent[lease.lease_id] += math.ceil(trio.current_time() - begun)
            with trio.CancelScope(shield=True):
                await inside.aclose()

    async def _tidy(self, lease: Lease) -> None:
        workspace = self.files.path(lease.lease_id, "workspace")
        await self.in_thread(lambda: sweep(workspace))

    def _left_s(self, lease: Lease) -> float:
        """How long a program may run now."""
        for known in (self.spent, self.ended):
            for gone in known.keys() - {one.lease_id for one in self.leases.active()}:
                del known[gone]
        return LONGEST_S - (self.spent[lease.lease_id] if lease.phase is Phase.PROVISIONING else 0)


async def relay(stream: Stream, inside: Inside, on_first: Callable[[], Awaitable[None]]) -> None:
    """Bytes both ways until the program's output ends, or the caller goes away.

    `on_first` before its first output is passed on: it runs and needs its file no more, and the caller, who
    may let the job begin as soon as it has heard enough, has heard nothing yet.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_forward, stream, inside, nursery.cancel_scope)
        with suppress(trio.BrokenResourceError):
            data = await inside.receive_some(PIECE)
            await on_first()
            while data:
                await stream.send_all(data)
                data = await inside.receive_some(PIECE)
            await stream.send_eof()
        nursery.cancel_scope.cancel()


async def _forward(stream: Stream, inside: Inside, gone: trio.CancelScope) -> None:
    while True:
        try:
            data = await stream.receive_some(PIECE)
        except trio.BrokenResourceError:  # the caller is away: nobody waits for the program any more
            gone.cancel()
            return
        try:
            await (inside.send_all(data) if data else inside.send_eof())
        except StreamBroken:  # the program has ended, and the end of its output tells so
            return
        if not data:
            return


async def _receive(stream: Stream, wanted: OpenProof) -> bytes:
    """The program, as announced. MessageInvalid, StreamBroken."""
    program = bytearray()
    while len(program) < wanted.program_bytes:
        with patience(IDLE_TIMEOUT_S):
            try:
                piece = await stream.receive_some(min(PIECE, wanted.program_bytes - len(program)))
            except trio.BrokenResourceError as error:
                raise StreamBroken("the connection broke while the program of a proof came") from error
        if not piece:
            raise StreamBroken("the caller ended the stream before the program of the proof was here")
        program += piece
    if hashlib.sha256(program).digest() != wanted.program_sha256:
        raise MessageInvalid("the program of the proof is not the one that was announced")
    return bytes(program)


def place(workspace: Path, name: str, program: bytes) -> None:
    """Write a program into a directory that a hostile job may be changing: a new file, through no link.

    DiskFull if it cannot be written.
    """
    try:
        folder = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with open(os.open(name, flags, 0o600, dir_fd=folder), "wb") as file:
                file.write(program)
                file.flush()
                os.fchmod(file.fileno(), PROGRAM_MODE)
        finally:
            os.close(folder)
    except OSError as error:
        raise DiskFull(f"the program of the proof cannot be written: {error.strerror}") from error


def sweep(workspace: Path) -> None:
    """Delete every such program, also one that a daemon left which was killed."""
    with suppress(OSError):
        folder = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            for name in os.listdir(folder):
                if name.startswith(PREFIX):
                    with suppress(OSError):  # a directory of the job's own that is called so
                        os.unlink(name, dir_fd=folder)
        finally:
            os.close(folder)
