"""The control API's verbs of tunnels: into the job of a lease that this node has rented, and no other."""

from __future__ import annotations

import math
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

import trio

from protocol.control_tunnels import (
    ConnectArgs,
    ConnectView,
    ForwardArgs,
    ForwardEnd,
    ForwardEvent,
    ForwardPort,
    PathView,
    TunnelArgs,
    TunnelEnd,
)
from protocol.errors import JobNotRunning, LeaseUnknown, QubixError, StreamBroken, UsageError
from protocol.lease_state import LIVE, TERMINAL, Lease, Role
from protocol.messages import OpenFiles, OpenProgram, OpenTcp, OpenUdp
from protocol.relay_lease import is_relay
from protocol.units import LeaseId, PeerKey
from qubixd.lease_desk import find_lease
from qubixd.link.stream import LinkStream
from qubixd.node import Node
from qubixd.tunnels.local import GONE, carry, path_view, unless_hung_up
from qubixd.tunnels.local_forward import Forwarding, bound
from qubixd.tunnels.local_udp import serve_udp
from qubixd.views import PHASE_WORDS

Emit = Callable[[object], Awaitable[None]]
"""Sends one event of the request being served."""
HASTY: Final = ("program", "files")
"""What ends at once when its front end has gone."""
LAST_WORDS_SECONDS: Final = 5.0
"""After the end of a job its provider has so long to end a tunnel in its own words."""
RATE_SECONDS: Final = 1.0


async def job_of(node: Node, prefix: str) -> Lease:
    """The lease of a job that this node has rented and that runs. LeaseUnknown, UsageError, JobNotRunning."""
    lease = await find_lease(node, prefix)
    if lease.role is Role.PROVIDER:
        raise UsageError(
            "only who rented the machine gets into this job; use `docker exec` on your own machine"
        )
    if is_relay(lease.terms):
        raise UsageError("this lease rents a relay; there is no job to get into")
    check_runs(lease)
    return lease


def check_runs(lease: Lease) -> None:
    if lease.phase in TERMINAL:
        raise JobNotRunning(f"the job has ended: {lease.sentence or PHASE_WORDS[lease.phase]}")
    if lease.phase not in LIVE:
        raise JobNotRunning(f"the job does not run now: {PHASE_WORDS[lease.phase]}; `qubix ps` says more")


async def until_ended(node: Node, lease_id: LeaseId) -> JobNotRunning:
    """Sleep until the job of a lease is over; the error that says so."""
    while True:
        with node.leases.listen(lease_id) as changes:
            lease = await node.leases.get(lease_id)
            try:
                while True:
                    check_runs(lease)
                    lease = await changes.receive()
            except JobNotRunning as over:
                return over
            except trio.EndOfChannel:  # it slept through too many changes
                continue


# --- connect ----------------------------------------------------------------------------------


def opening_of(lease: Lease, args: ConnectArgs) -> OpenTcp | OpenUdp | OpenProgram | OpenFiles:
    match args.kind:
        case "tcp":
            return OpenTcp(lease.lease_id, args.port)
        case "udp":
            return OpenUdp(lease.lease_id, args.port)
        case "files":
            return OpenFiles(lease.lease_id)
    return OpenProgram(lease.lease_id, tuple(args.command), args.terminal, args.columns, args.rows, args.term)


async def connect(
    node: Node, args: ConnectArgs, local: trio.SocketStream, answer: Callable[[ConnectView], Awaitable[None]]
) -> None:
    """Open a stream, answer, and then be the stream until it or the job ends. Errors of the opening are
    raised; what happens afterwards is told by `tunnel`."""
    lease = await job_of(node, args.lease)
    opening = opening_of(lease, args)
    stream = await unless_hung_up(local.socket, partial(node.connections.open, lease, opening))
    if stream is None:
        return
    tunnel, end = node.tunnels.add(lease), TunnelEnd()
    try:
        view = path_view(node.connections.view(lease))
        await answer(ConnectView(tunnel.name, lease.lease_id.hex(), view))
        end = await _with_job(node, lease, stream, partial(carry, stream, local, hasty=args.kind in HASTY))
    finally:
        stream.abort(StreamBroken.code, GONE)
        node.tunnels.ended(tunnel, end)


async def _with_job(
    node: Node, lease: Lease, stream: LinkStream, work: Callable[[], Awaitable[TunnelEnd]]
) -> TunnelEnd:
    """No tunnel outlives its job, even if the provider is not there to end it."""
    over: QubixError | None = None

    async def end_with_job() -> None:
        nonlocal over
        error = await until_ended(node, lease.lease_id)
        await trio.sleep(LAST_WORDS_SECONDS)
        over = error
        stream.abort(over.code, str(over))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_with_job)
        end = await work()
        nursery.cancel_scope.cancel()
    return TunnelEnd(over.code, str(over)) if over else end


async def tunnel(node: Node, args: TunnelArgs, emit: Emit) -> TunnelEnd:
    found = node.tunnels.get(args.tunnel)
    if found is None:
        raise LeaseUnknown("there is no such tunnel, or it ended long ago")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_tell_path, node, found.lease, emit)
        await found.ended.wait()
        nursery.cancel_scope.cancel()
    assert found.end is not None
    return found.end


async def _tell_path(node: Node, lease: Lease, emit: Emit) -> None:
    """Now, and whenever it is another one or none. Until cancelled."""
    told: PathView | None = None
    with changes_of(node, lease) as changes:
        while True:
            view = path_view(node.connections.view(lease), told)
            if told is None or (view.kind, view.waiting) != (told.kind, told.waiting):
                told = view
                await emit(view)
            await changes.receive()


@contextmanager
def changes_of(node: Node, lease: Lease) -> Iterator[trio.MemoryReceiveChannel[None]]:
    """Something has happened to the paths to a provider since the channel was last read."""
    put, get = trio.open_memory_channel[None](1)

    def changed(peer: PeerKey) -> None:
        if peer == lease.terms.provider:
            with suppress(trio.WouldBlock):
                put.send_nowait(None)

    callbacks = node.connections.links.on_change
    callbacks.append(changed)
    try:
        yield get
    finally:
        callbacks.remove(changed)


# --- forward ----------------------------------------------------------------------------------


async def forward(node: Node, args: ForwardArgs, emit: Emit) -> ForwardEnd:
    lease = await job_of(node, args.lease)
    ports = args.ports or await _named_ports(node, lease)
    forwarding = Forwarding(node.connections, lease)
    with bound(ports) as taken:
        forwarding.tell("listening", *(port for port, _ in taken), end=_frozen(lease))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_emit_all, forwarding.events, emit)
            nursery.start_soon(_tell_of_paths, node, forwarding)
            for port, sock in taken:
                nursery.start_soon(*_serving(forwarding, port, sock))
            over = await until_ended(node, lease.lease_id)
            nursery.cancel_scope.cancel()
    return ForwardEnd(str(over))


def _frozen(lease: Lease) -> TunnelEnd | None:
    """Why nothing behind the ports answers yet."""
    if not lease.frozen:
        return None
    short = lease.lease_id.hex()[:8]
    return TunnelEnd(JobNotRunning.code, f"The job is frozen and takes nothing; `qubix resume {short}`.")


async def _emit_all(events: trio.MemoryReceiveChannel[ForwardEvent], emit: Emit) -> None:
    async for event in events:
        await emit(event)


def _serving(forwarding: Forwarding, port: ForwardPort, sock: socket.socket) -> tuple[Any, ...]:
    if port.protocol == "tcp":
        return forwarding.serve_tcp, port, sock
    return serve_udp, forwarding, port, sock


async def _named_ports(node: Node, lease: Lease) -> list[ForwardPort]:
    """Those of the job file and its template. UsageError if there are none."""
    kept = await node.files.in_thread(lambda: node.files.access(lease.lease_id, node.parts.key))
    if not kept.ports:
        raise UsageError("the job file names no ports; say which, e.g. `qubix forward ID 8888`")
    return [ForwardPort(one.port, one.port, "udp" if one.protocol == "udp" else "tcp") for one in kept.ports]


async def _tell_of_paths(node: Node, forwarding: Forwarding) -> None:
    """The path is looked for at once, so that a person sees it before anything travels; its rate is told
    while something does. Until cancelled."""
    with suppress(QubixError):
        await node.connections.reach(forwarding.lease)
    told: PathView | None = None
    with changes_of(node, forwarding.lease) as changes:
        while True:
            view = path_view(node.connections.view(forwarding.lease), told)
            if view != told:
                told = view
                forwarding.tell("path", path=view)
            with trio.move_on_after(RATE_SECONDS if forwarding.open else math.inf):
                await changes.receive()
