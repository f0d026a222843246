"""The control API's verbs about leases: following them, their logs, pausing, restarting and ending them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import trio

from protocol import control, messages
from protocol import lease_model as m
from protocol.control_access import AccessArgs, AccessView
from protocol.control_again import JobFileArgs, JobFileView
from protocol.errors import LeaseUnknown, UsageError
from protocol.lease_state import LIVE, TERMINAL, Lease, Phase, Role
from qubixd.access import access_view, check_ours
from qubixd.node import Node
from qubixd.requests import Requests
from qubixd.talk import LOGS_PROTOCOL, receive_signed, send_signed
from qubixd.tunnels.local import path_view
from qubixd.views import PHASE_WORDS, lease_view, words_of

MIN_PREFIX: Final = 4
WAITS_FOR_CHAIN: Final = (Phase.FUNDING, Phase.SETTLING)
Emit = Callable[[object], Awaitable[None]]
"""Sends one event of the request being served."""


async def wait(node: Node, args: control.WaitArgs, emit: Emit) -> control.RunEvent:
    return await follow(node, await find_lease(node, args.lease), emit)


async def follow(node: Node, lease: Lease, emit: Emit) -> control.RunEvent:
    """An event for the present state and for every later one, until the end. A front end that slept
    through too many of them goes on from the present."""
    while True:
        with node.leases.listen(lease.lease_id) as changes, contextlib.suppress(trio.EndOfChannel):
            lease = await node.leases.get(lease.lease_id)
            await emit(run_event(node, lease))
            while lease.phase not in TERMINAL:
                lease = await changes.receive()
                await emit(run_event(node, lease))
            return run_event(node, lease)


async def ps(node: Node, args: control.PsArgs, emit: Emit) -> control.PsView:
    leases = await node.all_leases()
    listed = (
        one
        for one in leases
        if args.all or one.phase not in TERMINAL or one.lease_id in node.reconciler.standing
    )
    return control.PsView([shown(node, one) for one in listed])


def shown(node: Node, lease: Lease) -> control.LeaseView:
    """A lease with all that this node knows beside it."""
    differences = [one.code for one in node.reconciler.standing.get(lease.lease_id, ())]
    view = lease_view(lease, differences, node.desk.progress.get(lease.lease_id))
    path = node.connections.view(lease) if lease.phase not in TERMINAL else None
    return replace(view, path=path_view(path)) if path else view


async def logs(node: Node, args: control.LogsArgs, emit: Emit) -> control.Done:
    lease = await find_lease(node, args.lease)

    async def write(data: bytes) -> None:
        await emit(control.LogChunk(data))

    kept_here = node.files.path(lease.lease_id, "job.log").exists()
    wanted = messages.GetLogs(lease.lease_id, offset=0, follow=args.follow)
    if lease.role is Role.PROVIDER or kept_here:
        await node.desk.give_log(lease, wanted, write)
    else:
        await _logs_from_provider(node, lease, wanted, write)
    return control.Done()


async def _logs_from_provider(
    node: Node, lease: Lease, wanted: messages.GetLogs, write: Callable[[bytes], Awaitable[None]]
) -> None:
    parts = node.parts
    stream = await parts.wire.open(lease.terms.provider, LOGS_PROTOCOL, lease.peer_addresses)
    async with stream:
        await send_signed(stream, parts.key.sign(wanted))
        await stream.send_eof()
        await receive_signed(stream, lease.terms.provider)
        while chunk := bytes(await stream.receive_some(messages.MAX_MESSAGE_BYTES)):
            await write(chunk)


async def stop(node: Node, args: control.StopArgs, emit: Emit) -> control.RunEvent:
    lease = await find_lease(node, args.lease)
    return run_event(node, await node.leases.feed(lease.lease_id, m.ActionStop(node.parts.now_ms())))


async def check_replaced(node: Node, lease_id: str, name: str) -> None:
    """UsageError unless it is a job of that name which was rented here."""
    lease = await find_lease(node, lease_id)
    if lease.role is not Role.CALLER or lease.name != name or lease.lease_id.hex() != lease_id:
        raise UsageError(f"lease {lease_id[:12]} is no job called {name}; nothing was rented")


async def end_replaced(node: Node, lease_id: str) -> None:
    """Another one is open in its place. Whoever asked for it may have left by now."""
    with trio.CancelScope(shield=True):
        lease = await find_lease(node, lease_id)
        if lease.phase not in TERMINAL:
            await node.leases.feed(lease.lease_id, m.ActionStop(node.parts.now_ms()))


async def pause(node: Node, args: control.PauseArgs, emit: Emit) -> control.RunEvent:
    lease = await own_running(node, args.lease, "pause")
    return run_event(node, await node.leases.feed(lease.lease_id, m.ActionPause(node.parts.now_ms())))


async def resume(node: Node, args: control.ResumeArgs, emit: Emit) -> control.RunEvent:
    lease = await own_running(node, args.lease, "resume")
    return run_event(node, await node.leases.feed(lease.lease_id, m.ActionResume(node.parts.now_ms())))


async def restart(node: Node, args: control.RestartArgs, emit: Emit) -> control.RunEvent:
    lease, nonce = await own_running(node, args.lease, "restart"), os.urandom(8)
    return run_event(
        node, await node.leases.feed(lease.lease_id, m.ActionRestart(nonce, node.parts.now_ms()))
    )


async def access(node: Node, args: AccessArgs, emit: Emit) -> AccessView:
    lease = await find_lease(node, args.lease)
    check_ours(lease)
    kept = await node.files.in_thread(lambda: node.files.access(lease.lease_id, node.parts.key))
    return access_view(lease, kept)


async def job_file(node: Node, args: JobFileArgs, emit: Emit) -> JobFileView:
    lease = await find_lease(node, args.lease)
    if lease.role is not Role.CALLER:
        raise UsageError("only who rented the machine has this job's file")
    return await Requests(node.config.root, node.files.in_thread).get(lease.lease_id)


async def own_running(node: Node, prefix: str, what: str) -> Lease:
    """A running job that this node rented. UsageError otherwise."""
    lease = await find_lease(node, prefix)
    if lease.role is Role.PROVIDER:
        raise UsageError(f"only who rented the machine can {what} this job; `qubix stop` ends it")
    if lease.phase not in LIVE:
        raise UsageError(f"there is nothing to {what}: {PHASE_WORDS[lease.phase]}")
    return lease


async def find_lease(node: Node, prefix: str) -> Lease:
    """The one lease whose id begins so. LeaseUnknown if there is none or more than one."""
    if len(prefix) < MIN_PREFIX:
        raise LeaseUnknown(
            f"give at least the first {MIN_PREFIX} characters of a lease id; see `qubix ps -a`"
        )
    found = [one for one in await node.all_leases() if one.lease_id.hex().startswith(prefix.lower())]
    if len(found) != 1:
        count = "several leases begin" if found else "no lease here begins"
        raise LeaseUnknown(f"{count} with {prefix[:64]!r}; see `qubix ps -a`")
    return found[0]


def run_event(node: Node, lease: Lease) -> control.RunEvent:
    told = node.desk.progress.get(lease.lease_id)
    detail = lease.sentence if lease.phase in TERMINAL else words_of(lease, told)
    waiting = node.waiting.why if lease.phase in WAITS_FOR_CHAIN else ""
    return control.RunEvent(lease.phase, detail, lease_view(lease, told=told), waiting=waiting)
