"""The provider's door: streams of a link on their way into a job. Only the lease's caller gets in, and
nothing stays open when the lease ends."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, TypeVar

import trio

from protocol.errors import (
    JobMissing,
    JobNotRunning,
    LeaseEnded,
    PeerRefused,
    QubixError,
    StartFailed,
    TooManyStreams,
)
from protocol.lease_state import Lease, Phase, Role
from protocol.messages import OpenFiles, OpenProgram, OpenTcp, OpenUdp
from protocol.relay_lease import is_relay
from protocol.units import LeaseId, PeerKey
from qubixd.link.pump import carry, carry_datagrams
from qubixd.link.stream import LinkStream
from qubixd.places import Buckets
from qubixd.runner import Dialed, Inside, Runner, Terminal
from qubixd.tunnels import files, programs

log = logging.getLogger("qubix.door")

BURST_BYTES: Final = 4 << 20
"""Of datagrams that a socket may hold: a game sends a picture at once. The system may give less."""
MAX_STREAMS: Final = 64
"""Into one job at a time."""
MAX_IN_ALL: Final = 1_024
"""Each takes up to four of the files that the daemon may have open."""
PROGRAMS: Final = (2.0, 40.0)
"""That one caller may begin: a second, and at once. Each costs the engine more than it costs the job."""
MAX_DATAGRAM_BYTES: Final = 65_535
TERM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
UNPAID: Final = "the job is paused until it is paid for again"
E = TypeVar("E", bound=BaseException)
RUNS: Final = frozenset({Phase.PROVISIONING, Phase.RUNNING})
"""Phases in which a job may run: that of a job that becomes ready is the first."""
HOLDS: Final = RUNS | {Phase.PAUSED}
"""A paused job keeps its connections, on which nothing comes meanwhile."""


class Book(Protocol):
    """What the door asks of `Leases`."""

    on_change: list[Callable[[Lease], None]]

    async def shared(self, lease_id: LeaseId, peer: PeerKey, role: Role) -> Lease: ...


@dataclass(eq=False)
class _Guest:
    """One stream inside."""

    stream: LinkStream
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def end(self, code: str, sentence: str) -> None:
        self.stream.abort(code, sentence)
        self.scope.cancel()


class Door:
    """Serves `Links`. Each stream is a task of its own, so that a peer that reads nothing holds up itself."""

    def __init__(self, leases: Book, runner: Runner, folder_of: Callable[[LeaseId], Path]) -> None:
        """`folder_of`: the directory of a lease, with the job's `workspace` in it."""
        self._leases = leases
        self._runner = runner
        self._workspaces = files.Workspaces(folder_of)
        self._guests: dict[LeaseId, set[_Guest]] = {}
        self._programs = Buckets(*PROGRAMS)
        leases.on_change.append(self._changed)

    async def serve(self, stream: LinkStream) -> None:
        """Answer what the stream asks for, until it has ended."""
        lease_id = stream.opening.lease_id
        guest = _Guest(stream)
        try:
            lease = await self._admitted(stream)
            guests = self._guests.setdefault(lease_id, set())
            if len(guests) >= MAX_STREAMS:
                raise TooManyStreams(f"this job has {MAX_STREAMS} connections open already; close some")
            if sum(map(len, self._guests.values())) >= MAX_IN_ALL:
                raise TooManyStreams("this provider has as many connections open as it may; try again later")
            guests.add(guest)
            with guest.scope:
                await self._let_in(stream, lease)
        except* QubixError as errors:
            _turn_away(stream, _first(errors))
        except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as errors:
            log.info("a connection into job %s broke: %r", lease_id.hex()[:12], _first(errors))
            stream.abort("net.stream_broken", "the connection to the program inside the job broke")
        finally:
            if guests := self._guests.get(lease_id, set()):
                guests.discard(guest)
            if not guests:
                self._guests.pop(lease_id, None)

    def streams(self, lease_id: LeaseId) -> int:
        """How many are open into a job."""
        return len(self._guests.get(lease_id, ()))

    # --- who may ------------------------------------------------------------------------------

    async def _admitted(self, stream: LinkStream) -> Lease:
        """The lease, if this stream may go to its job."""
        opening = stream.opening
        lease = await self._leases.shared(opening.lease_id, stream.peer, Role.PROVIDER)
        if is_relay(lease.terms):
            raise JobNotRunning("this lease is for a relay; there is no job to connect to")
        if lease.phase not in HOLDS:
            raise JobNotRunning(_why_over(lease) if lease.started_at else "the job has not begun yet")
        if not lease.released:
            raise JobNotRunning("the job has not begun yet")
        if lease.phase is Phase.PAUSED:
            raise JobNotRunning(UNPAID)
        if lease.frozen and not isinstance(opening, OpenFiles):
            raise JobNotRunning("the job is frozen; resume it first")
        return lease

    def _changed(self, lease: Lease) -> None:
        for guest in tuple(self._guests.get(lease.lease_id, ())):
            if lease.phase not in HOLDS:
                guest.end(LeaseEnded.code, _why_over(lease))
            elif lease.phase is Phase.PAUSED and isinstance(guest.stream.opening, OpenFiles):
                guest.end(JobNotRunning.code, UNPAID)  # it needs no job that runs: it would go on for nothing

    # --- where to -----------------------------------------------------------------------------

    async def _let_in(self, stream: LinkStream, lease: Lease) -> None:
        try:
            await self._lead(stream, lease)
        except JobMissing as error:
            raise JobNotRunning("the job does not run now: it ended, or is about to begin anew") from error

    async def _lead(self, stream: LinkStream, lease: Lease) -> None:
        match stream.opening:
            case OpenTcp(lease_id=lease_id, port=port):
                await self._join(stream, await self._runner.dial(lease_id, port))
            case OpenUdp(lease_id=lease_id, port=port):
                await self._join(stream, await self._runner.dial(lease_id, port, udp=True))
            case OpenProgram() as wish:
                await self._run(stream, wish)
            case OpenFiles():
                await files.serve(stream, self._workspaces, lease)
            case other:
                raise StartFailed(f"no job is reached by a {type(other).__name__}")

    async def _join(self, stream: LinkStream, dialed: Dialed) -> None:
        if isinstance(dialed, trio.socket.SocketType):
            with dialed:
                dialed.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BURST_BYTES)
                await stream.accept()
                await carry_datagrams(stream, lambda: dialed.recv(MAX_DATAGRAM_BYTES), dialed.send)
                await stream.send_eof()
            return
        # Also datagrams, where a program passes them on: they are framed there as on the stream.
        connection = dialed if isinstance(dialed, trio.SocketStream) else _Passed(dialed)
        try:
            await stream.accept()
            await carry(stream, connection)
        finally:
            await trio.aclose_forcefully(connection)

    async def _run(self, stream: LinkStream, wish: OpenProgram) -> None:
        if any("\0" in word for word in wish.command) or not TERM.fullmatch(wish.term):
            raise StartFailed("a program's words hold no NUL, and its terminal's kind is a plain name")
        if not self._programs.take(stream.peer):
            raise TooManyStreams("many programs were begun in this job within a short time; wait a little")
        terminal = Terminal(wish.columns, wish.rows, wish.term) if wish.terminal else None
        async with aclosing(await self._runner.program(wish.lease_id, wish.command, terminal)) as program:
            await stream.accept()
            await programs.serve(stream, program)


class _Passed(trio.abc.HalfCloseableStream):
    """A connection that a program passes on."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._inside.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        await self._inside.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self._inside.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._inside.aclose()


def _turn_away(stream: LinkStream, error: QubixError) -> None:
    """Tell the other side why not, or why no more."""
    stream.abort(error.refusal_code if isinstance(error, PeerRefused) else error.code, str(error))


def _why_over(lease: Lease) -> str:
    return f"the job has ended: {lease.sentence or lease.reason or 'its lease is over'}"


def _first(errors: BaseExceptionGroup[E]) -> E:
    """One of those that came together: they mostly have one cause."""
    one = errors.exceptions[0]
    return _first(one) if isinstance(one, BaseExceptionGroup) else one
