"""The control API's verb `access`: what it takes to get into a job that this node has rented."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class AccessArgs:
    lease: str
    """A lease id or an unambiguous prefix of one."""


@dataclass(frozen=True)
class PortView:
    """A named port of the job, see protocol/ports.py."""

    name: str
    port: int
    protocol: str
    kind: str
    path: str = field(default="", repr=False)
    """Of a page: where to begin, with the token in it."""
    password: str = field(default="", repr=False)
    """What a page asks for; of http in a form field of that name."""


@dataclass(frozen=True)
class AccessView:
    lease_id: str
    name: str
    phase: str
    ports: list[PortView]
    public_keys: str
    """The SSH keys that it was begun with, lines as in authorized_keys."""
    host_key: str
    """Its SSH server's public key; empty where it makes one itself."""
