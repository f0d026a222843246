"""The area Network: peers and the ways to them, directories and relays, gossip, the chain."""

from __future__ import annotations

from typing import ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import DataTable, Static, TabbedContent, TabPane

from protocol.control_network import NetworkArgs, NetworkView
from tui.screens import network_view as shown
from tui.screens.area import AreaScreen
from tui.screens.filling import Column, Row, fill

REFRESH_SECONDS: Final = 3.0
MEASURE_EVERY: Final = 5
"""Looks, between two at which round trips are measured."""


class NetworkScreen(AreaScreen):
    AREA = "network"
    HELP = (
        "How this node stands in its network. Above, in a word each: peers, the market, the chain. Below: "
        "every connected peer with the way to it (direct, or by a relay, which is slower), its round trip "
        "and what tunnels carry; then directories and relays, gossip, and this node's own addresses. m "
        "measures all round trips now. `qubix doctor` says what to change if something is not ok."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "measure", "Measure round trips"),
        Binding("p", "tab('peers')", "Peers", show=False),
        Binding("d", "tab('directories')", "Directories and relays", show=False),
        Binding("g", "tab('gossip')", "Gossip", show=False),
        Binding("i", "tab('node')", "This node", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.view: NetworkView | None = None
        self._rtts: dict[str, float] = {}
        self._looks = 0

    def compose_body(self) -> ComposeResult:
        yield Static("", id="network-head", markup=False)
        with TabbedContent(id="network-tabs", initial="peers"):
            with TabPane("p Peers", id="peers"):
                yield DataTable[Text](id="network-peers", cursor_type="row", zebra_stripes=True)
            with TabPane("d Directories, relays", id="directories"):
                yield Static("", id="network-words", markup=False)
                yield DataTable[Text](id="network-directories", cursor_type="row", zebra_stripes=True)
                yield DataTable[Text](id="network-relays", cursor_type="row", zebra_stripes=True)
            with TabPane("g Gossip", id="gossip"), VerticalScroll():
                yield Static("", id="network-gossip", markup=False)
            with TabPane("i This node", id="node"), VerticalScroll():
                yield Static("", id="network-node", markup=False)

    def on_mount(self) -> None:
        self.refresh_every(REFRESH_SECONDS)
        self.app.theme_changed_signal.subscribe(self, lambda _: self._draw())

    def on_resize(self) -> None:
        self._draw()

    async def load(self) -> None:
        measure = self._looks % MEASURE_EVERY == 0
        self.view = await self.link.call("network", NetworkArgs(measure))
        self._looks += 1
        here = {one.peer_id for one in self.view.peers}
        self._rtts = {peer: rtt for peer, rtt in self._rtts.items() if peer in here}
        self._rtts |= {one.peer_id: one.rtt_ms for one in self.view.peers if one.rtt_ms is not None}
        self._draw()

    def action_measure(self) -> None:
        self._looks = 0
        self.reload()

    def action_tab(self, name: str) -> None:
        self.query_one(TabbedContent).active = name
        if name == "peers":
            self.query_one("#network-peers").focus()

    def _draw(self) -> None:
        view = self.view
        if view is None or not self.is_mounted:
            return
        colours = self.app.theme_variables
        self.query_one("#network-head", Static).update(shown.head(view, colours))
        self._fill("peers", shown.PEER_COLUMNS, shown.peer_rows(view, self._rtts, colours))
        words = self.query_one("#network-words", Static)
        words.update(about := shown.about_directories(view))
        words.display = bool(about)
        self._fill("directories", shown.DIRECTORY_COLUMNS, shown.directory_rows(view, colours))
        self._fill("relays", shown.RELAY_COLUMNS, shown.relay_rows(view))
        self.query_one("#network-gossip", Static).update(shown.gossip_details(view))
        self.query_one("#network-node", Static).update(shown.node_details(view))

    def _fill(self, name: str, columns: tuple[Column, ...], rows: list[Row]) -> None:
        table = self.query_one(f"#network-{name}", DataTable)
        table.display = bool(rows)
        fill(table, columns, rows, self.size.width)
