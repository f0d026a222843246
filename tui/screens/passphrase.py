"""The passphrase of this machine's keys: chosen at the first start, and another one (or none) at any time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Button, Input, Label

from protocol.errors import QubixError
from tui import wallet_keys
from tui.screens.journey import Journey, Step, Words
from tui.screens.seed_steps import PassphraseStep
from tui.screens.start_node import place_words

GOOD_PASSPHRASE_CHARS: Final = 12
WHY: Final = (
    "Without a passphrase the daemon opens them by itself: right for a machine that is yours alone. "
    "Whoever can read your files could take the money.",
    "With one, they are of no use to a thief. You type it whenever the daemon starts. If you forget "
    "it, only your seed brings the money back.",
)


class ChoosePassphraseStep(Step):
    """One, or none."""

    TITLE: ClassVar[str] = "A passphrase, if you want one"
    BUTTONS = (("none", "Go on without one"), ("use", "Use this passphrase"))

    def __init__(self, words: Sequence[str], done: Callable[[str], None]) -> None:
        """`done` hears it; "" is none."""
        super().__init__()
        self._words = words
        self._done = done

    def compose_step(self) -> ComposeResult:
        for words in self._words:
            yield Words(words)
        for name, label in (("first", "Passphrase"), ("second", "Again")):
            with Horizontal(classes="row"):
                yield Label(label, classes="name")
                yield Input(id=name, password=True, max_length=wallet_keys.MAX_PASSPHRASE_BYTES)
        yield Words(id="strength", classes="quiet")

    def take_focus(self) -> None:
        self.query_one("#none", Button).focus()

    @on(Input.Changed)
    def _typed(self) -> None:
        self.say("")
        length = len(self.query_one("#first", Input).value)
        short = 0 < length < GOOD_PASSPHRASE_CHARS
        words = f"{length} characters; {GOOD_PASSPHRASE_CHARS} or more are hard to guess." if short else ""
        self.query_one("#strength", Words).update(words)

    @on(Button.Pressed, "#none")
    def _none(self) -> None:
        if self.query_one("#first", Input).value or self.query_one("#second", Input).value:
            self.say("You have typed a passphrase. Use it, or empty both fields to go on without one.")
            return
        self._done("")

    @on(Input.Submitted, "#first")
    def _to_second(self) -> None:
        self.query_one("#second", Input).focus()

    @on(Input.Submitted, "#second")
    @on(Button.Pressed, "#use")
    def _use(self) -> None:
        first, second = (self.query_one(name, Input).value for name in ("#first", "#second"))
        trouble = wallet_keys.trouble_in_passphrase(first)
        if not trouble and first != second:
            trouble = "The two are not the same; type the second one again."
        self.say(trouble)
        if not trouble:
            self._done(first)


class NewPassphraseStep(ChoosePassphraseStep):
    """Another one for keys that there are."""

    TITLE = "The new passphrase"
    BUTTONS = (("use", "Use this passphrase"), ("none", "Go on without one"))

    def take_focus(self) -> None:
        self.query_one("#first", Input).focus()


class PassphraseScreen(Journey):
    """True if the keys are sealed anew."""

    NAME = "passphrase"
    HELP = (
        "Seals the keys of this machine with another passphrase, or takes it away. The daemon goes on as it"
        " is; the new passphrase is asked for when it starts the next time. Copies of the keystore that were"
        " made before still open with the old one."
    )

    def first(self) -> Step:
        if wallet_keys.wants_passphrase(self.directory):
            return PassphraseStep("Your keys are sealed with a passphrase. Type the present one.", self._open)
        return self._new_step("")

    def _new_step(self, old: str) -> Step:
        where = place_words(self.directory / wallet_keys.KEYSTORE)
        return NewPassphraseStep((f"Your keys lie in {where}.", *WHY), lambda new: self._use(old, new))

    def _open(self, old: str) -> None:
        self.run_worker(self._try(old), exclusive=True)

    async def _try(self, old: str) -> None:
        """Whether it is the right one, before another is chosen."""
        try:
            await wallet_keys.export(self.directory, old)
        except QubixError as error:
            self.step.say(str(error))
        else:
            self.go(self._new_step(old))

    def _use(self, old: str, new: str) -> None:
        self.run_worker(self._change(old, new), exclusive=True)

    async def _change(self, old: str, new: str) -> None:
        try:
            await wallet_keys.change_passphrase(self.directory, old, new)
        except QubixError as error:
            self.step.say(str(error))
            return
        words = "The new passphrase holds from the next start of the daemon on."
        self.notify(words if new else "There is no passphrase any more.", markup=False)
        self.dismiss(True)
