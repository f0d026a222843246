"""The public mirror in the local control API: argument and answer of `mirror`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MirrorArgs:
    """Switch the public mirror `on` or off, for now and after a restart. Without: only show it."""

    on: bool | None = None


@dataclass(frozen=True)
class MirrorView:
    """A file from which web pages can serve the market; it holds nothing secret."""

    on: bool
    path: str
    offers: int
    """Live ones in it."""
    newest_change: int
    """What readers go on from; rises, restarts included."""
    updated_ms: int
    """When it was last complete, Unix milliseconds; 0: not yet since it was switched on."""
    trouble: str = ""
    """Why nothing can be written at the moment; the daemon tries again."""
