"""The table of what the full-screen front end shows: its areas, and the pages that lie above them.

A screen registers with one line here: "module:class". Modules are imported when first shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from textual.screen import Screen


@dataclass(frozen=True)
class Area:
    """One mode of the app: its name in code, on the screen, the key that leads there, and its screen."""

    mode: str
    title: str
    key: str
    screen: str


AREAS: tuple[Area, ...] = (
    Area("market", "Market", "1", "tui.screens.market:MarketScreen"),
    Area("instances", "Instances", "2", "tui.screens.instances:InstancesScreen"),
    Area("wallet", "Wallet", "3", "tui.screens.wallet:WalletScreen"),
    Area("provider", "Provider", "4", "tui.screens.provider:ProviderScreen"),
    Area("network", "Network", "5", "tui.screens.network:NetworkScreen"),
)
"""In the order of their keys. The first is shown at the start."""

PAGES: dict[str, str] = {
    "provider_hours": "tui.screens.provider_hours:ProviderHoursScreen",
    "first_run": "tui.screens.first_run:FirstRunScreen",
    "start_node": "tui.screens.start_node:StartNodeScreen",
    "instance": "tui.screens.instances_page:InstancePage",
    "instance_more": "tui.screens.instances_more:MoreScreen",
    "ssh_keys": "tui.screens.instances_keys:KeysPage",
    "launch": "tui.screens.launch:LaunchScreen",
}
"""Pages that are pushed above an area: "launch" (key n), "first_run" (shown where nothing is set up)."""


def load_screen(where: str, **arguments: Any) -> Screen[Any]:
    """The screen that "module:class" names."""
    module, name = where.split(":")
    screen: Screen[Any] = getattr(import_module(module), name)(**arguments)
    return screen
