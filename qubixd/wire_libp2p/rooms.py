"""Opens libp2p by its rooms: its own front door imports all it can do (QUIC, WebSocket, DHT, Bitswap, ACME),
half of a daemon's time to start, and none of it is used here.

To be imported before anything of libp2p. Packages in BARE can be imported from, but their own `__init__`
does not run. Modules in ABSENT hold stand-ins for the names that the used parts mention (in annotations,
`except` clauses, and branches behind options that are off here); to make one of them raises. A name that a
later libp2p takes besides stops the program at import.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from types import MappingProxyType, ModuleType
from typing import Final

from dns import _features

BARE: Final = ("libp2p", "libp2p.transport", "libp2p.relay", "libp2p.relay.circuit_v2")
ABSENT: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "libp2p.discovery.bootstrap.bootstrap": ("BootstrapDiscovery",),
        "libp2p.discovery.mdns.mdns": ("MDNSDiscovery", "create_mdns_discovery"),
        "libp2p.discovery.upnp.upnp": ("UpnpManager",),
        "libp2p.security.tls.autotls.acme": ("ACMEClient", "compute_b36_peer_id"),
        "libp2p.security.tls.autotls.broker": ("BrokerClient",),
        "libp2p.transport.quic.config": ("QUICTransportConfig",),
        "libp2p.transport.quic.exceptions": ("QUICStreamClosedError", "QUICStreamResetError"),
        "libp2p.transport.quic.stream": ("QUICStream",),
    }
)


class Absent(Exception):
    """What is not here; RuntimeError if it is made after all. An exception, because some stand for one that
    is caught."""

    def __init__(self, *_args: object, **_named: object) -> None:
        raise RuntimeError(f"this node goes without libp2p's {type(self).__name__}")


def _open_bare(name: str) -> None:
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ImportError(f"{name} is not installed")
    sys.modules[name] = importlib.util.module_from_spec(spec)


def _stand_in(name: str, members: tuple[str, ...]) -> None:
    module = sys.modules[name] = ModuleType(name)
    for member in members:
        setattr(module, member, type(member, (Absent,), {}))


def _open_rooms() -> None:
    """Whoever has imported all of libp2p before keeps it."""
    if "libp2p" in sys.modules:
        return
    _features.force("doq", False)  # DNS over QUIC: dnspython would import aioquic for it
    for name in BARE:
        _open_bare(name)
    for name, members in ABSENT.items():
        _stand_in(name, members)


_open_rooms()
