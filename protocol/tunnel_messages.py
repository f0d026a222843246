"""What the caller of a lease asks of its job over a link: a port, a program, its files.

Each is the opening of one stream of a link (qubixd/link), which says who asks; it is answered there. What
follows on the stream depends on the opening: raw bytes, datagrams, or frames of terminal_frames and
file_frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from protocol.message_fields import Lease32, Word

Port = Annotated[int, Meta(ge=1, le=65_535)]
Cells = Annotated[int, Meta(ge=1, le=10_000)]


@dataclass(frozen=True)
class OpenTcp:
    """A connection to a TCP port inside the job; raw bytes follow both ways."""

    lease_id: Lease32
    port: Port


@dataclass(frozen=True)
class OpenUdp:
    """One sender's conversation with a UDP port inside the job; datagrams follow both ways, each a u16
    big-endian length and so many bytes."""

    lease_id: Lease32
    port: Port


@dataclass(frozen=True)
class OpenProgram:
    """A program beside the job; frames of protocol/terminal_frames.py follow both ways."""

    lease_id: Lease32
    command: Annotated[tuple[Annotated[str, Meta(max_length=4_096)], ...], Meta(max_length=64)]
    """Empty: a shell, bash where the image has it."""
    terminal: bool
    """With a terminal of its own; else standard output and error come apart."""
    columns: Cells = 80
    rows: Cells = 24
    term: Word = "xterm-256color"
    """The kind of the caller's terminal, for TERM."""


@dataclass(frozen=True)
class OpenFiles:
    """The job's workspace; questions and answers of protocol/file_frames.py follow."""

    lease_id: Lease32
