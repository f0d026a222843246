"""The full-screen front end: the areas, the link to the daemon, keys, colours and toasts."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.notifications import SeverityLevel

from protocol.control_watch import NoticeView, WatchArgs, WatchEvent
from tui.areas import AREAS, PAGES, load_screen
from tui.client import Client
from tui.link import DaemonLink, LinkState
from tui.messages import LeaseChanged, LinkChanged, MarketChanged, Noticed, Ticked, WalletChanged
from tui.places import control_socket
from tui.safe import safe_line
from tui.screens.help import HelpScreen
from tui.themes import THEMES

STYLES = Path(__file__).parent / "styles"
TOAST_SECONDS = 8.0
SEVERITIES: dict[str, SeverityLevel] = {
    "good": "information",
    "info": "information",
    "warning": "warning",
    "bad": "error",
}
SEVERITY_WORDS = {"good": "Good", "info": "Note", "warning": "Take note", "bad": "Trouble"}


class QubixApp(App[int]):
    """Speaks to the daemon of `directory` over its control socket, and to nobody else."""

    TITLE = "qubix"
    CSS_PATH: ClassVar[Any] = sorted(STYLES.glob("*.tcss"))
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(area.key, f"area('{area.mode}')", area.title, show=False) for area in AREAS),
        Binding("n", "new_job", "New job"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(self, directory: Path, *, theme: str = "dark") -> None:
        super().__init__()
        self.directory = directory
        self.link = DaemonLink(control_socket(directory), self._follow, self._link_changed)
        for one in THEMES.values():
            self.register_theme(one)
        self.theme = THEMES[theme].name
        for area in AREAS:
            self.add_mode(area.mode, partial(load_screen, area.screen))

    async def on_mount(self) -> None:
        self.run_worker(self.link.run(), group="link")
        self.set_interval(1.0, lambda: self.tell(Ticked()))
        if AREAS:
            await self.switch_mode(AREAS[0].mode)

    def tell(self, message: Message) -> None:
        """Give a message to the screen that is shown."""
        self.screen.post_message(message)

    def action_area(self, mode: str) -> None:
        """Go to an area; what was pushed above it stays there."""
        self.switch_mode(mode)

    def action_new_job(self) -> None:
        self.open_page("launch")

    def open_page(self, page: str, **arguments: Any) -> None:
        """Push one of PAGES above what is shown."""
        self.push_screen(load_screen(PAGES[page], **arguments))

    def action_help(self) -> None:
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen.about(self.screen))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A key whose page is not there is not shown."""
        return action != "new_job" or "launch" in PAGES

    # --- the daemon ---------------------------------------------------------------------------

    def _link_changed(self, state: LinkState) -> None:
        self.tell(LinkChanged(state))

    async def _follow(self, client: Client) -> None:
        async with aclosing(client.stream("watch", WatchArgs(market=True))) as events:
            async for event in events:
                if message := message_of(event):
                    self.tell(message)
                if event.notice:
                    self._toast(event.notice)

    def _toast(self, notice: NoticeView) -> None:
        words = f"{SEVERITY_WORDS[notice.severity]}: {safe_line(notice.sentence)}"
        self.notify(words, severity=SEVERITIES[notice.severity], timeout=TOAST_SECONDS, markup=False)


def message_of(event: WatchEvent) -> Message | None:
    """What the screen is told of an event; None for the end of the present state."""
    if event.lease:
        return LeaseChanged(event.lease)
    if event.wallet:
        return WalletChanged(event.wallet)
    if event.market:
        return MarketChanged(event.market)
    return Noticed(event.notice) if event.notice else None
