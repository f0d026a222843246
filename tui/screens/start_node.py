"""The daemon's start, drawn: what is done, what is under way, and what to do if it fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Final

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.widgets import Button

from protocol.errors import PassphraseWrong, QubixError, StartFailed
from tui import private_net, starting, wallet_keys
from tui.processes import log_tail
from tui.screens.journey import Journey, Step, Words
from tui.screens.seed_steps import PassphraseStep
from tui.starting import Started

LOG_LINES: Final = 4
DOING: Final = {
    "keys": "sealing your keys",
    "network": "the private network of this machine",
    "daemon": "the daemon, in the background",
    "wallet": "the wallet",
}
"""Of each part of a start, what it is about."""
SLOW_HINT: Final = "The very first start compiles a contract and may take half a minute."


class StartStep(Step):
    """Keys, if there are none yet, then everything up to a wallet that answers. It can be tried again."""

    TITLE = "Starting"
    BACK: ClassVar[bool] = False
    BUTTONS = (("again", "Try again"), ("back", "Back"))

    def __init__(self, done: Callable[[Started], None], *, seed: str = "", passphrase: str = "") -> None:
        """`seed` makes the keys; "" where they are there."""
        super().__init__()
        self._done = done
        self._seed = seed
        self._new = bool(seed)
        self._passphrase = passphrase
        self._parts = ["keys"] if seed else []
        self._parts += ["network"] if private_net.no_chain_named(None) else []
        self._parts += ["daemon", "wallet"]
        self._took: dict[str, float] = {}
        self._now = ""
        self._since = 0.0
        self._failed = False

    def compose_step(self) -> ComposeResult:
        yield Words(id="parts")
        yield Words(SLOW_HINT, id="hint", classes="quiet")
        yield Words(id="log", classes="quiet")

    def on_mount(self) -> None:
        super().on_mount()
        self.set_interval(0.25, self._draw)
        self._try()

    @on(Button.Pressed, "#again")
    def _try(self) -> None:
        self._failed = False
        self.say("")
        self._took = {name: took for name, took in self._took.items() if name == "keys"}
        self._buttons(shown=False)
        self.run_worker(self._start(), exclusive=True)

    @on(Button.Pressed, "#back")
    def _back(self) -> None:
        self.journey.back()

    async def _start(self) -> None:
        directory = self.journey.directory
        try:
            if self._seed:
                self._begin("keys")
                await wallet_keys.keep(directory, self._seed, self._passphrase)
                self._seed = ""
            started = await starting.start_node(directory, self._begin, self._passphrase)
        except QubixError as error:
            self._fail(error)
            return
        self._begin("")
        self._done(started)

    def _begin(self, part: str) -> None:
        now = time.monotonic()
        if self._now:
            self._took[self._now] = now - self._since
        self._now, self._since = part, now
        self._draw()

    def _fail(self, error: QubixError) -> None:
        self._failed = True
        wrong = isinstance(error, PassphraseWrong)
        self.say(
            "That passphrase does not open the keys. Go back and type it again." if wrong else str(error)
        )
        unclear = self._now == "daemon" and isinstance(error, StartFailed)
        lines = log_tail(self.journey.directory / "daemon.log", LOG_LINES) if unclear else []
        self.query_one("#log", Words).update("\n".join(lines))
        self._draw()
        self._buttons(shown=True)

    def _buttons(self, *, shown: bool) -> None:
        self.query_one("#again", Button).display = shown
        # Once the keys are sealed, another passphrase cannot be chosen any more.
        self.query_one("#back", Button).display = shown and (bool(self._seed) or not self._new)
        if shown:
            self.take_focus()

    def _draw(self) -> None:
        """A line for each part: its state in words, then what it is, then how long it took."""
        text = Text()
        for part in self._parts:
            word, colour = self._state(part)
            seconds = self._took.get(part, time.monotonic() - self._since if part == self._now else 0.0)
            took = f"  {seconds:.1f} s" if seconds and not (self._failed and part == self._now) else ""
            text.append(f"{word:8}", f"bold {self.app.theme_variables[colour]}").append(DOING[part]).append(
                f"{took}\n", "dim"
            )
        self.query_one("#parts", Words).update(text)

    def _state(self, part: str) -> tuple[str, str]:
        if part in self._took and part != self._now:
            return "done", "success"
        if part != self._now:
            return "next", "secondary"
        return ("failed", "error") if self._failed else ("now", "warning")


class StartNodeScreen(Journey):
    """For a machine that has keys and no daemon that answers. True once one does."""

    NAME = "start the daemon"
    HELP = "The daemon is not running. This starts it in the background, as `qubix up --detach` does."

    def first(self) -> Step:
        if wallet_keys.wants_passphrase(self.directory):
            return PassphraseStep(
                "Your keys are sealed with a passphrase; the daemon needs it to start.", self._with_passphrase
            )
        return StartStep(self._started)

    def _with_passphrase(self, passphrase: str) -> None:
        self.go(StartStep(self._started, passphrase=passphrase))

    def _started(self, _: Started) -> None:
        self.dismiss(True)


def chain_words() -> str:
    """Where a new node will be, for somebody who has named nothing or something."""
    if private_net.no_chain_named(None):
        return "A private one on this machine: play money, nothing is at stake."
    return "The chain that your settings name."


def place_words(directory: Path) -> str:
    """A directory as its owner writes it."""
    home = str(Path.home())
    return f"~{str(directory)[len(home) :]}" if str(directory).startswith(f"{home}/") else str(directory)
