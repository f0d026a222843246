"""`qubix status`: the daemon and its network in a few lines; with --peers everything of the network."""

from __future__ import annotations

import argparse

from rich.console import Group, RenderableType
from rich.text import Text

from protocol.control import StatusArgs, StatusView
from protocol.control_network import NetworkArgs, NetworkView
from tui import show
from tui.verbs import ask, tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = "the peers with the way to each, directories, relays, gossip and the chain"
    parser.add_argument("--peers", action="store_true", help=text)


async def status(options: argparse.Namespace) -> int:
    if options.peers:
        network: NetworkView = await ask(options, "network", NetworkArgs(measure=True))
        return tell(options, network, network_screen(network))
    view: StatusView = await ask(options, "status", StatusArgs())
    return tell(options, view, show.status_sheet(view))


def network_screen(view: NetworkView) -> RenderableType:
    """The same as the area Network of `qubix tui`, one below the other."""
    from tui.screens import network_view as shown  # here: it takes a while, and most ask for less

    colours = {"success": show.GOOD, "warning": "yellow", "error": show.BAD}
    parts: list[RenderableType] = [shown.head(view, colours), Text("")]
    lists = (
        (shown.PEER_COLUMNS, shown.peer_rows(view, {}, colours)),
        (shown.DIRECTORY_COLUMNS, shown.directory_rows(view, colours)),
        (shown.RELAY_COLUMNS, shown.relay_rows(view)),
    )
    for columns, rows in lists:
        if rows:
            parts += [shown.plain_table(columns, rows), Text("")]
    parts += [Text(shown.about_directories(view)), shown.node_details(view)]
    return Group(*parts)
