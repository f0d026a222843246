"""What one node grants to strangers: connections, streams, memory, messages. Counts, bytes, seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Limits:
    """Defaults suit the open network; tests shorten the times."""

    connections: int = 150
    """All connections; one costs about 92 KB and 22 ms of CPU to accept."""
    inbound_connections: int = 120
    """The rest stays free for dialling out, so a flood cannot cut this node off."""
    connections_per_peer: int = 2
    """Two, because both ends may dial at once; a third closes the oldest."""
    connections_per_ip: int = 64
    handshakes: int = 32
    """Inbound connections that have not proved their key yet."""
    handshakes_per_ip: int = 16
    handshake_seconds: float = 10.0
    echoes: int = 128
    """Connections that have been told from where they come and stay open for a moment."""
    echoes_per_ip: int = 16

    streams_per_peer: int = 64
    """Inbound streams open, and inbound handlers running, at a time."""
    stream_idle_seconds: float = 7_200.0
    """A stream without a byte in either direction for so long is reset."""
    linger_seconds: float = 30.0
    """How long a stream closed here waits for the peer to close its half."""
    unread_bytes: int = 256 * 1024 * 1024
    """Received but unread, over all streams of the node."""

    ping_seconds: float = 10.0
    silence_seconds: float = 20.0
    """Nothing heard for so long, although pinged: the peer is gone."""
    recheck_seconds: float = 4.0
    """The same after this machine's network has changed."""
    pong_seconds: float = 90.0
    """The peer sends, but answers no ping: it is gone or hostile."""

    dial_seconds: float = 8.0
    """One address: TCP, noise and yamux."""
    dial_stagger_seconds: float = 0.3
    """The next address starts when the one before failed or took so long."""
    relay_after_seconds: float = 1.0
    """Plain addresses have so much time to answer before relays are asked."""
    relay_stagger_seconds: float = 2.0
    """The next relay is asked when the one before refused or took so long."""
    improve_seconds: tuple[float, ...] = (0.0, 30.0, 120.0, 600.0)
    """While a peer is connected through a relay only its plain addresses are tried, after such pauses."""
    relayed_idle_seconds: float = 60.0
    """A relayed connection without a stream ends after so long."""
    reach_seconds: float = 5.0
    """Trying for another whether it can be reached."""
    open_seconds: float = 10.0
    """Agreeing on a protocol over an existing connection."""
    redial_first_seconds: float = 1.0
    redial_last_seconds: float = 60.0
    redial_attempts: int = 6
    """For a lost peer that is no bootstrap peer; those are dialled for ever."""

    gossip_rate: float = 100.0
    """Messages a second read from one peer; beyond, its stream is read more slowly."""
    gossip_burst: int = 400
    rejects_before_drop: int = 20
    ban_seconds: float = 600.0


DIRECTORY_LIMITS: Final = Limits(connections=750, inbound_connections=700)
"""A directory's providers and readers each hold a connection: about 70 MB and 750 open files in all."""
