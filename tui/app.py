"""The full-screen front end: the areas, the link to the daemon, keys, colours and toasts."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App, ScreenError, SystemCommand
from textual.binding import Binding, BindingType
from textual.dom import DOMNode
from textual.events import Event, Key, Paste
from textual.message import Message
from textual.notifications import SeverityLevel
from textual.screen import ModalScreen, Screen

from protocol.control_watch import NoticeView, WatchArgs, WatchEvent
from tui.areas import AREAS, PAGES, load_screen
from tui.client import Client
from tui.key_turns import KeyTurns
from tui.link import DaemonLink, LinkState
from tui.messages import LeaseChanged, LinkChanged, MarketChanged, Noticed, Ticked, WalletChanged
from tui.places import control_socket
from tui.safe import safe_line, safe_text
from tui.screens.help import HelpScreen, is_told
from tui.screens.journey import Journey
from tui.themes import THEMES, remember, remembered
from tui.wallet_keys import has_keys

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
        Binding("f2", "start_node", "Start the daemon"),
        Binding("f3", "colours", "Light or dark", show=False),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(self, directory: Path, *, theme: str = "") -> None:
        super().__init__()
        self.directory = directory
        self._met = False
        self._turns = KeyTurns(self, super().on_event)
        self.link = DaemonLink(control_socket(directory), self._follow, self._link_changed)
        for one in THEMES.values():
            self.register_theme(one)
        self.theme = THEMES[theme or remembered(directory)].name
        for area in AREAS:
            self.add_mode(area.mode, partial(load_screen, area.screen))

    async def on_mount(self) -> None:
        self.run_worker(self.link.run(), group="link")
        self.set_interval(1.0, lambda: self.tell(Ticked()))
        if AREAS:
            await self.switch_mode(AREAS[0].mode)

    async def on_event(self, event: Event) -> None:
        """What is typed goes one by one, so that none is lost to a field that is not marked yet."""
        if isinstance(event, Key | Paste) and not event.is_forwarded:
            await self._turns.take(event)
        else:
            await super().on_event(event)

    def tell(self, message: Message) -> None:
        """Give a message to the screen that is shown. While the app begins or ends there is none."""
        with suppress(ScreenError):
            self.screen.post_message(message)

    def action_area(self, mode: str) -> None:
        """Go to an area; what was pushed above it stays there."""
        self.switch_mode(mode)

    def action_new_job(self) -> None:
        if not isinstance(self.screen, ModalScreen):
            self.open_page("launch")

    def action_start_node(self) -> None:
        """Start the daemon of this directory; asks for the passphrase if there is one."""
        if not isinstance(self.screen, Journey):
            self.push_screen(load_screen(PAGES["start_node"], directory=self.directory), self._went_on)

    def action_colours(self) -> None:
        """From light to dark, or back; the next start knows it."""
        name = "light" if self.current_theme.dark else "dark"
        self.theme = THEMES[name].name
        remember(self.directory, name)

    def open_page(self, page: str, **arguments: Any) -> None:
        """Push one of PAGES above what is shown."""
        self.push_screen(load_screen(PAGES[page], **arguments))

    def action_help(self) -> None:
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen.about(self.screen))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A daemon that answers cannot be started."""
        return action != "start_node" or self.link.state == "down"

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The palette: the areas, what the screen can do, and what is always there."""
        for area in AREAS:
            yield SystemCommand(
                area.title, f"Go to this area (key {area.key})", partial(self.action_area, area.mode)
            )
        for one in screen.active_bindings.values():
            if one.enabled and one.node is not self and is_told(one):
                key, do = (
                    self.get_key_display(one.binding),
                    partial(self._do_in, one.node, one.binding.action),
                )
                yield SystemCommand(one.binding.description, f"On this screen (key {key})", do)
        yield SystemCommand("New job", "Choose a machine and rent it (key n)", self.action_new_job)
        if self.link.state == "down":
            yield SystemCommand("Start the daemon", "It runs on when you leave (F2)", self.action_start_node)
        yield SystemCommand("Light or dark colours", "Change them (F3)", self.action_colours)
        yield SystemCommand("Help", "What this screen is for, and its keys (key ?)", self.action_help)
        yield SystemCommand("Quit", "Leave; daemon and jobs go on (key q)", self.action_quit)

    async def _do_in(self, node: DOMNode, action: str) -> None:
        await self.run_action(action, default_namespace=node)

    def _fatal_error(self) -> None:
        """Textual's own shows what variables hold, a typed seed too, and words of strangers as they are."""
        self._exit_renderables.append(Text(safe_text(traceback.format_exc())))
        self._close_messages_no_wait()

    # --- the daemon ---------------------------------------------------------------------------

    def _link_changed(self, state: LinkState) -> None:
        first, self._met = not self._met, True
        with suppress(ScreenError):  # the app ends
            self.refresh_bindings()
        self.tell(LinkChanged(state))
        if first and state == "down" and not has_keys(self.directory):
            self.push_screen(load_screen(PAGES["first_run"], directory=self.directory), self._started)

    def _started(self, started: bool | None) -> None:
        """The first run was left; False: its reader wants to leave all of it."""
        if started is False:
            self.exit()
        self._went_on(started)

    def _went_on(self, started: bool | None) -> None:
        if started:
            self.link.try_now()

    async def _follow(self, client: Client) -> None:
        async with aclosing(client.stream("watch", WatchArgs(market=True))) as events:
            async for event in events:
                if not isinstance(event, WatchEvent):  # its answer: it watches no longer
                    return
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
