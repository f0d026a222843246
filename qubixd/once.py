"""`run` asked again rents nothing again: a front end that lost its daemon may repeat itself.

What tells one wish from another is the output folder, which the front end chooses anew for each.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from protocol.lease_state import Lease, Role
from qubixd.node import Node


@asynccontextmanager
async def one_wish(node: Node, output_dir: str) -> AsyncIterator[Lease | None]:
    """The lease that this folder belongs to already, if any. Inside nobody else rents for it: whoever asked
    before and was cut off has either written a lease down by now or never will."""
    lock = node.wishes.setdefault(output_dir, trio.Lock())
    try:
        async with lock:
            yield await _rented_for(node, output_dir)
    finally:
        if not lock.statistics().tasks_waiting and not lock.locked():
            node.wishes.pop(output_dir, None)


async def _rented_for(node: Node, output_dir: str) -> Lease | None:
    leases = [one for one in await node.all_leases() if one.role is Role.CALLER]
    return next((one for one in reversed(leases) if one.output_dir == output_dir), None)
