"""A seed's backup, at any time after the first start: shown, asked for again, and never again reminded of."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.widgets import Button

from protocol.errors import QubixError
from tui import wallet_keys
from tui.screens.journey import Journey, Step, Words
from tui.screens.seed_steps import PassphraseStep, ShowSeedStep
from tui.wallet_keys import OwnSeed


class BackupScreen(Journey):
    """True if somebody has shown that he has a copy."""

    NAME = "back up the seed"
    HELP = "Shows the 55 letters of your seed and asks for some of them again. Look around before you begin."

    def first(self) -> Step:
        if wallet_keys.wants_passphrase(self.directory):
            return PassphraseStep(
                "Your keys are sealed with a passphrase. It is needed to show the seed.", self._open
            )
        return ReadyToLookStep()

    def _open(self, passphrase: str) -> None:
        self.run_worker(self._export(passphrase), exclusive=True)

    async def _export(self, passphrase: str) -> None:
        try:
            seed = await wallet_keys.export(self.directory, passphrase)
        except QubixError as error:
            self.step.say(str(error))
            return
        self.show_seed(seed)

    def show_seed(self, seed: OwnSeed) -> None:
        self.go(ShowSeedStep(seed, self._done))

    def _done(self, checked: bool) -> None:
        if checked:
            wallet_keys.remember_backup(self.directory, done=True)
            self.notify("Your copy is right. Keep it where only you can get at it.", markup=False)
        self.dismiss(checked)


class ReadyToLookStep(Step):
    """Before a seed stands on a screen."""

    TITLE = "Are you alone?"
    BUTTONS = (("show", "Show the seed"), ("cancel", "Back"))

    def compose_step(self) -> ComposeResult:
        yield Words("Your seed will be shown on this screen.")
        yield Words(
            "Nobody else should see it, on this screen or on one that is shared or recorded. Take paper, or "
            "open your password manager."
        )

    @on(Button.Pressed, "#show")
    async def _show(self) -> None:
        try:
            seed = await wallet_keys.export(self.journey.directory)
        except QubixError as error:
            self.say(str(error))
            return
        assert isinstance(self.screen, BackupScreen)
        self.screen.show_seed(seed)

    @on(Button.Pressed, "#cancel")
    def _cancel(self) -> None:
        self.journey.back()
