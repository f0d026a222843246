"""The world's Wire: libp2p with its pitfalls closed. Nothing outside this room imports libp2p."""

from qubixd.wire_libp2p.identity import peer_id_of, peer_key_of
from qubixd.wire_libp2p.limits import Limits
from qubixd.wire_libp2p.node import WireConfig, open_wire

__all__ = ["Limits", "WireConfig", "open_wire", "peer_id_of", "peer_key_of"]
