"""What every area has: the bar with the areas, the banner, the states of its body, and the footer.

    class WalletScreen(AreaScreen):
        AREA = "wallet"
        HELP = "What this area is for, in two or three sentences."

        def compose_body(self) -> ComposeResult:
            yield Static(id="balance", markup=False)

        def on_mount(self) -> None:
            self.refresh_every(5)

        async def load(self) -> None:
            view = await self.link.call("wallet", WalletArgs())
            self.query_one("#balance", Static).update(...)
            # or: self.show_state("empty", "Nothing here yet.", "Press d to deposit.")

`load` runs when the screen is shown, when the daemon comes back, every so many seconds, and when
`reload()` is called. A newer load cancels an older one. QubixErrors of `load` are shown, not raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Center, Horizontal, Middle, Vertical
from textual.screen import Screen
from textual.widgets import Static
from textual.worker import Worker

from protocol.errors import QubixError
from tui.areas import AREAS, Area
from tui.link import DaemonLink
from tui.messages import LinkChanged
from tui.safe import safe_line, safe_text
from tui.screens.key_line import KeyLine

if TYPE_CHECKING:
    from tui.app import QubixApp

State = Literal["loading", "empty", "error"]
NARROW_COLUMNS = 100
LOW_ROWS = 30
MARKS: dict[State, str] = {"loading": "…", "empty": "-", "error": "!"}


class AreaTab(Static):
    """One area's name in the bar; a click leads there."""

    def __init__(self, area: Area, *, here: bool) -> None:
        words = f"[{area.key} {area.title}]" if here else f" {area.key} {area.title} "
        super().__init__(words, classes="-here" if here else "", markup=False)
        self._mode = area.mode

    def on_click(self) -> None:
        cast("QubixApp", self.app).action_area(self._mode)


class AreaBar(Horizontal):
    """The areas, and in words whether the daemon answers."""

    def __init__(self, here: str) -> None:
        super().__init__()
        self._here = here

    def compose(self) -> ComposeResult:
        yield from (AreaTab(area, here=area.mode == self._here) for area in AREAS)
        yield Static("", id="link-words", markup=False)


class AreaScreen(Screen[Any]):
    """See the module. `loaded` says whether the body shows something true already."""

    AREA: ClassVar[str] = ""
    """The mode that is marked in the bar."""
    HELP: ClassVar[str] = ""
    """For `?`: what this screen is for and what to do first."""
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (NARROW_COLUMNS, "-normal"), (160, "-wide")]  # noqa: RUF012  # Textual's own type
    VERTICAL_BREAKPOINTS = [(0, "-low"), (LOW_ROWS, "-high")]  # noqa: RUF012  # Textual's own type

    loaded = False
    _loading: Worker[None] | None = None
    _stated = False

    # --- for the screens ----------------------------------------------------------------------

    def compose_body(self) -> ComposeResult:
        """The widgets of the body."""
        yield from ()

    async def load(self) -> None:
        """Ask the daemon and show the answer."""

    @property
    def qubix(self) -> QubixApp:
        return cast("QubixApp", self.app)

    @property
    def link(self) -> DaemonLink:
        return self.qubix.link

    @property
    def compact(self) -> bool:
        """Whether the terminal is a small one: leave out what is not needed."""
        return self.app.size.width < NARROW_COLUMNS or self.app.size.height < LOW_ROWS

    @property
    def is_asking(self) -> bool:
        """Whether `load` is under way."""
        return self._loading is not None and self._loading.is_running

    def reload(self) -> None:
        """Load now; an older load that has not ended is dropped."""
        if self.link.state == "up":
            self._loading = self.run_worker(self._load, group="load", exclusive=True)

    def refresh_every(self, seconds: float) -> None:
        """Load again and again while the screen is shown; never while a load is still under way."""
        self.set_interval(seconds, self._refresh)

    def show_state(self, state: State, sentence: str, hint: str = "") -> None:
        """Show a sentence, and what to do about it, instead of the body."""
        self._stated = True
        self.query_one("#state-mark", Static).update(MARKS[state])
        self.query_one("#state-sentence", Static).update(safe_text(sentence))
        self.query_one("#state-hint", Static).update(safe_text(hint))
        self.set_class(True, "-stated")
        for one in MARKS:
            self.query_one("#state").set_class(one == state, f"-{one}")

    def show_body(self) -> None:
        """Show the body again."""
        self.set_class(False, "-stated")

    def say_error(self, error: QubixError) -> None:
        """A toast with an error's sentence; for what a person has just asked for."""
        self.app.notify(safe_text(str(error)), severity="error", timeout=10, markup=False)

    # --- the machinery ------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        yield AreaBar(self.AREA)
        yield Static("", id="banner", markup=False)
        with Vertical(id="body"):
            yield from self.compose_body()
        with Middle(id="state"), Center(), Vertical(id="state-box"):
            yield Static("", id="state-mark", markup=False)
            yield Static("", id="state-sentence", markup=False)
            yield Static("", id="state-hint", markup=False)
        yield KeyLine()

    @on(events.Mount)
    def _follow_colours(self) -> None:
        """What was drawn with the colours of another theme is drawn anew."""
        self.app.theme_changed_signal.subscribe(self, lambda _: self.reload())

    @on(events.Resize)
    def _resized(self) -> None:
        keys = self.query_one(KeyLine)
        keys.compact = self.compact
        keys.show_command_palette = not self.compact
        keys.refresh(recompose=True)

    @on(events.ScreenResume)
    def _shown(self) -> None:
        self._show_link()
        self.reload()

    @on(LinkChanged)
    def _link_changed(self) -> None:
        self._show_link()
        self.reload()

    def _refresh(self) -> None:
        if self.is_current and not self.is_asking:
            self.reload()

    async def _load(self) -> None:
        self._stated = False
        try:
            await self.load()
        except QubixError as error:
            self._load_failed(error)
            return
        self.loaded = True
        self._say("")
        if not self._stated:
            self.show_body()

    def _load_failed(self, error: QubixError) -> None:
        """What is shown stays if there is something; the banner says that it is old."""
        if self.link.state != "up":
            self._show_link()
        elif self.loaded:
            self._say(f"Not up to date: {safe_line(str(error))}")
        else:
            self.show_state("error", str(error), "It is tried again by itself; `qubix doctor` says more.")

    def _show_link(self) -> None:
        state = self.link.state
        words = {"up": "connected", "connecting": "connecting", "down": "daemon away"}
        self.query_one("#link-words", Static).update(words[state])
        self.set_class(state == "down", "-away")
        self._say(
            ""
            if state != "down"
            else f"The daemon is away; it is tried again, F2 starts it. {_sentence(safe_line(self.link.why))}"
        )
        if not self.loaded and state == "up":
            self.show_state("loading", "Asking the daemon.")
        elif not self.loaded and state == "connecting":
            self.show_state("loading", "Looking for the daemon of this machine.")
        elif not self.loaded:
            hint = "Press F2 to start it here, or say `qubix up` in another terminal."
            self.show_state("error", "No qubix daemon answers.", hint)

    def _say(self, words: str) -> None:
        banner = self.query_one("#banner", Static)
        if words != banner.content:  # else the whole screen would be laid out anew after each load
            banner.update(words)
            banner.display = bool(words)


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:].rstrip('.')}." if words else ""
