"""The ways into a running job and the command for each, from the ports that it names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from protocol.ports import PAGES

SHELL: Final = "shell"
RESULTS: Final = "results"
GAME: Final = "moonlight"
TITLES: Final = {
    "jupyter": "Jupyter Lab in the browser",
    "novnc": "a desktop in the browser",
    "vnc": "a VNC viewer",
    "ssh": "SSH, VS Code Remote",
    "code-server": "VS Code in the browser",
}
"""Ports of the templates, by name."""


class NamedPort(Protocol):
    """What ports.Port and control_access.PortView have in common."""

    @property
    def name(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def kind(self) -> str: ...


@dataclass(frozen=True)
class Way:
    """`command` is a verb with its arguments; {id} stands for the lease."""

    key: str
    title: str
    command: str
    says: str

    def words(self, lease_id: str) -> list[str]:
        """The verb and its arguments."""
        return self.command.format(id=lease_id[:8]).split()

    def line(self, lease_id: str) -> str:
        """The command for this lease; options may follow."""
        return " ".join(("qubix", *self.words(lease_id)))


_SHELL: Final = Way(SHELL, "a shell in the job", "attach {id}", "opens a shell beside the job")
_RESULTS: Final = Way(RESULTS, "none: bring back what it leaves", "logs -f {id}", "follows what the job says")


def ways_of(ports: Iterable[NamedPort]) -> list[Way]:
    """The best first; a shell, and the log alone, are always possible."""
    known = list(ports)
    games = [port for port in known if port.kind == "game"]
    pages = [_page(port) for port in known if port.kind in PAGES and not games]
    others = [way for port in known if (way := _other(port))]
    return [*([_game()] if games else []), *pages, *others, _SHELL, _RESULTS]


def way_of(ways: Sequence[Way], key: str) -> Way:
    """The one somebody chose, or the best."""
    return next((way for way in ways if way.key == key), ways[0])


def _page(port: NamedPort) -> Way:
    title = TITLES.get(port.name, f"port {port.port} in the browser")
    return Way(port.name, title, f"open {{id}} {port.port}", "shows it in the browser")


def _other(port: NamedPort) -> Way | None:
    if port.kind == "ssh":
        return Way(port.name, TITLES["ssh"], "ssh {id}", "opens a shell by SSH")
    if port.kind == "vnc":
        says = "brings it here for a VNC viewer"
        return Way(port.name, TITLES["vnc"], f"forward {{id}} {port.port}", says)
    return None


def _game() -> Way:
    says = "lets Moonlight find it at 127.0.0.1"
    return Way(GAME, "Moonlight", "forward {id}", says)
