"""The world's Wire: libp2p with its pitfalls closed. Nothing outside this room imports libp2p."""

from qubixd.wire_libp2p import rooms  # before all that imports libp2p
from qubixd.wire_libp2p.addresses import is_circuit, peers_of, tcp_address
from qubixd.wire_libp2p.identity import peer_id_of, peer_key_of
from qubixd.wire_libp2p.limits import DIRECTORY_LIMITS, Limits
from qubixd.wire_libp2p.opening import WireConfig, open_wire

__all__ = [
    "DIRECTORY_LIMITS",
    "Limits",
    "WireConfig",
    "is_circuit",
    "open_wire",
    "peer_id_of",
    "peer_key_of",
    "peers_of",
    "rooms",
    "tcp_address",
]
