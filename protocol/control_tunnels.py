"""The control API's verbs of tunnels: `connect`, `tunnel` and `forward`.

After the answer to `connect` the control connection is no more one: it carries the bytes of the tunnel as
they are, both ways, each with its own end. So nothing else is asked on that connection. What cannot be said
there, how it travels and why it ended, another connection learns by `tunnel`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from msgspec import Meta

from protocol.tunnel_messages import Cells, Port

MAX_PORTS: Final = 64
"""Of one `forward`."""
Protocol = Literal["tcp", "udp"]
Kind = Literal["tcp", "udp", "program", "files"]
LocalPort = Annotated[int, Meta(ge=0, le=65_535)]

# --- arguments --------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConnectArgs:
    """A stream into the job of a lease that this node has rented; fields as in tunnel_messages."""

    lease: str
    kind: Kind = "tcp"
    port: Port = 1
    """Of tcp and udp. Datagrams travel with a u16 big-endian length before each."""
    command: Annotated[list[Annotated[str, Meta(max_length=4_096)]], Meta(max_length=64)] = field(
        default_factory=list
    )
    terminal: bool = False
    columns: Cells = 80
    rows: Cells = 24
    term: Annotated[str, Meta(max_length=64)] = "xterm-256color"


@dataclass(frozen=True)
class TunnelArgs:
    """Follow one tunnel to its end. Events are PathView: now, and at each change."""

    tunnel: Annotated[str, Meta(max_length=64)]


@dataclass(frozen=True)
class ForwardPort:
    """A port of this machine that leads to one inside the job. `local` 0: any that is free."""

    local: LocalPort
    remote: Port
    protocol: Protocol = "tcp"


@dataclass(frozen=True)
class ForwardArgs:
    """Listen on 127.0.0.1 for as long as the request lasts. Events are ForwardEvent."""

    lease: str
    ports: Annotated[list[ForwardPort], Meta(max_length=MAX_PORTS)] = field(default_factory=list)
    """Empty: those that the job file names, each under its own number."""


# --- events and answers -----------------------------------------------------------------------


@dataclass(frozen=True)
class PathView:
    """How the streams between this node and a provider travel now."""

    kind: str
    """A PathKind; empty if there has been none yet."""
    waiting: bool = False
    """The last one is lost; the streams wait for another."""
    rtt_ms: float | None = None
    sent_per_second: int = 0
    received_per_second: int = 0
    """Bytes, over the last seconds, of all streams with that provider."""
    address: str = ""


@dataclass(frozen=True)
class ConnectView:
    """The last frame on this connection. The bytes of the tunnel follow."""

    tunnel: str
    """For `tunnel`."""
    lease_id: str
    path: PathView


@dataclass(frozen=True)
class TunnelEnd:
    """How a tunnel ended: in good order, or cut off with a code and a sentence."""

    code: str = ""
    sentence: str = ""


@dataclass(frozen=True)
class ForwardEvent:
    """`what`: "listening" once, first of all, with the real `ports`; "opened" and "closed" for each
    connection or sender of datagrams, with its port; "refused" where there was nobody inside the job;
    "path" for a change of the path or of the rate."""

    what: Literal["listening", "opened", "closed", "refused", "path"]
    ports: list[ForwardPort]
    open: int = 0
    """Connections through this request now."""
    path: PathView | None = None
    code: str = ""
    sentence: str = ""
    """Of "refused", of a "closed" that was cut off, and of "listening" where nothing will answer yet."""


@dataclass(frozen=True)
class ForwardEnd:
    """The job has ended, and with it the listening."""

    sentence: str
