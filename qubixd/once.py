"""`run` asked again rents nothing again: a front end that lost its daemon may repeat itself.

What tells one wish from another is the output folder, which the front end chooses anew for each; or, for who
wants one job of a name and no second, that name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from protocol.control import RunArgs
from protocol.lease_state import Lease, Role
from qubixd.compare_desk import GOES_ON
from qubixd.node import Node

Waits = Callable[[], Awaitable[None]]


@asynccontextmanager
async def one_wish(node: Node, args: RunArgs, name: str, waits: Waits) -> AsyncIterator[Lease | None]:
    """The lease that answers it already, if any. Inside nobody else rents for it: whoever asked before and
    was cut off has either written a lease down by now or never will. `waits` is called if one still asks."""
    if not (args.once or args.sole):
        yield None
        return
    wish = args.output_dir if args.once else f"name {name}"
    lock = node.wishes.setdefault(wish, trio.Lock())
    try:
        if lock.locked():
            await waits()
        async with lock:
            yield await _rented(node, lambda one: _answers(one, args, name))
    finally:
        if not lock.statistics().tasks_waiting and not lock.locked():
            node.wishes.pop(wish, None)


def _answers(lease: Lease, args: RunArgs, name: str) -> bool:
    if args.once:
        return lease.output_dir == args.output_dir
    return lease.name == name and lease.phase in GOES_ON and lease.lease_id.hex() != args.replaces


async def _rented(node: Node, answers: Callable[[Lease], bool]) -> Lease | None:
    leases = [one for one in await node.all_leases() if one.role is Role.CALLER]
    return next((one for one in reversed(leases) if answers(one)), None)
