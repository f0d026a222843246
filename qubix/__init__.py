"""Rent machines from Python: the client of a qubix daemon's control API, for trio and asyncio alike.

    async with qubix.connect() as node:
        async for event in node.run("job.yaml", max_price_qu_per_hour=50_000):
            print(event.phase, event.detail)

docs/api.md describes it; errors are the tree of protocol/errors.py.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from protocol.control import LeaseView as LeaseView
    from protocol.control import RunEvent as RunEvent
    from protocol.control_watch import NoticeView as NoticeView
    from protocol.control_watch import WatchEvent as WatchEvent
    from protocol.errors import DaemonUnreachable as DaemonUnreachable
    from protocol.errors import QubixError as QubixError
    from protocol.errors import VersionMismatch as VersionMismatch
    from qubix.client import Client as Client
    from qubix.node import Node as Node
    from qubix.node import connect as connect

_WHERE: Final = {
    "Client": "qubix.client",
    "DaemonUnreachable": "protocol.errors",
    "LeaseView": "protocol.control",
    "Node": "qubix.node",
    "NoticeView": "protocol.control_watch",
    "QubixError": "protocol.errors",
    "RunEvent": "protocol.control",
    "VersionMismatch": "protocol.errors",
    "WatchEvent": "protocol.control_watch",
    "connect": "qubix.node",
}
__all__ = sorted(_WHERE)  # noqa: PLE0605  # a list of constants; the linter wants it spelt twice


def __getattr__(name: str) -> object:
    """Each name when it is first used: whoever only asks where a node's files are loads nothing else."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
