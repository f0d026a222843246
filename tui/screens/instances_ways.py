"""The ways into a job: what each is for, the command that does it, and what a press of Enter does. Pure."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from protocol.control_access import AccessView, PortView
from protocol.ports import PAGES
from tui import show
from tui.safe import safe_line

Act = Literal["attach", "ssh", "page", "bring", "copy"]
"""A shell here; the same by ssh; a page in the browser; a port brought here; the command copied."""
HINTS: Final[dict[Act, str]] = {
    "attach": "opens here",
    "ssh": "opens here",
    "page": "opens a browser",
    "bring": "brings it here",
    "copy": "copies this",
}
"""What Enter does."""
FOR: Final = {"vnc": "a VNC viewer", "game": "Moonlight"}
"""What a port is brought here for."""


@dataclass(frozen=True)
class Way:
    what: str
    command: str
    act: Act
    port: PortView | None = None


def ways(access: AccessView) -> list[Way]:
    """The best for a person first."""
    short = show.short_id(access.lease_id)
    pages = [_page(one, short) for one in access.ports if one.kind in PAGES]
    shells = [Way("a shell in the job", f"qubix attach {short}", "attach")]
    shells += [Way("the same by ssh", f"qubix ssh {short}", "ssh")] * any(
        one.kind == "ssh" for one in access.ports
    )
    others = [_other(one, short) for one in access.ports if one.kind not in (*PAGES, "ssh")]
    return [
        *pages,
        *shells,
        *others,
        Way("one command in the job", f"qubix exec {short} ls", "copy"),
        Way("files into the job", f"qubix cp FILE {short}:", "copy"),
        Way("files out of the job", f"qubix cp {short}:FILE .", "copy"),
        Way("its log in another terminal", f"qubix logs -f {short}", "copy"),
    ]


def _page(port: PortView, short: str) -> Way:
    name = safe_line(port.name, 32)
    return Way(f"{name}, a page", f"qubix open {short} {name}", "page", port)


def _other(port: PortView, short: str) -> Way:
    udp = "/udp" if port.protocol == "udp" else ""
    name, viewer = safe_line(port.name, 32), FOR.get(port.kind)
    what = f"{name} for {viewer}" if viewer else f"{name} (port {port.port}{udp})"
    return Way(what, f"qubix forward {short} {port.port}{udp}", "bring", port)


def has_windows(environment: Mapping[str, str] = os.environ, platform: str = sys.platform) -> bool:
    """Whether a browser would open beside the terminal and not in it."""
    return platform in ("darwin", "win32") or any(
        environment.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
