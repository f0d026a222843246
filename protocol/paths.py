"""The ways between two nodes, from the best to the last."""

from __future__ import annotations

import enum


class PathKind(enum.StrEnum):
    """`rank` orders them: a lower one is better."""

    DIRECT = "direct"
    """TLS 1.3 on a connection that one of them could simply open."""
    PUNCHED = "punched"
    """The same, on a connection that both opened at once through their routers."""
    WIRE = "wire"
    """A stream of the direct libp2p connection."""
    RELAYED = "relayed"
    """A stream of a libp2p connection that a third node carries, which it can neither read nor change."""

    @property
    def rank(self) -> int:
        return tuple(PathKind).index(self)
