"""The first start: from nothing to a wallet, a daemon and the market, in under a minute.

Nothing is on the disk before the seed was shown (or typed) and the passphrase chosen, so that everything
before can be done again: Escape goes back, to the very first screen and out.
"""

from __future__ import annotations

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.widgets import Button

from protocol.errors import QubixError
from tui import practice, show, wallet_keys
from tui.safe import safe_line
from tui.screens.journey import Journey, Step, Words
from tui.screens.passphrase import WHY, ChoosePassphraseStep
from tui.screens.seed_steps import ShowSeedStep, TypeSeedStep
from tui.screens.start_node import StartStep, chain_words, place_words
from tui.starting import Started
from tui.wallet_keys import OwnSeed


class FirstRunScreen(Journey):
    """True once a daemon runs and the market shall be shown; False if somebody wants out."""

    NAME = "first start"
    HELP = (
        "This sets up qubix on this machine: a wallet that only you hold, and a daemon that runs in the "
        "background. Nothing is written before you have seen your seed, and Escape always goes back."
    )
    backed_up = False

    def first(self) -> Step:
        return WelcomeStep()

    def seed_shown(self, seed: OwnSeed, *, checked: bool) -> None:
        self.backed_up = checked
        where = place_words(self.directory / wallet_keys.KEYSTORE)
        words = (f"Your keys will lie in {where}, sealed.", *WHY)
        self.go(ChoosePassphraseStep(words, lambda passphrase: self.start(seed, passphrase)))

    def start(self, seed: OwnSeed, passphrase: str) -> None:
        self.go(StartStep(self.started, seed=seed.letters, passphrase=passphrase))

    def started(self, started: Started) -> None:
        wallet_keys.remember_backup(self.directory, done=self.backed_up)
        self.go(ReadyStep(started))


class WelcomeStep(Step):
    TITLE = "Welcome"
    BUTTONS = (("make", "Make a new wallet"), ("have", "I have a seed"), ("quit", "Quit"))

    @property
    def first_run(self) -> FirstRunScreen:
        assert isinstance(self.screen, FirstRunScreen)
        return self.screen

    def compose_step(self) -> ComposeResult:
        yield Words(Text("Rent computers from people, or rent out yours.", "bold"))
        yield Words(
            "Nobody is in the middle: your machine talks to theirs, and jobs are paid by the second from a "
            "wallet that only you hold."
        )
        yield Words("There is nothing of qubix on this machine yet. In less than a minute there will be:")
        yield Words(
            "1  a wallet: a seed of 55 letters, and what to do with it\n"
            "2  a daemon: runs in the background and meets other machines\n"
            "3  the market: what can be rented now, and for how much"
        )
        yield Words(f"Network   {chain_words()}\nFiles     {place_words(self.journey.directory)}")

    @on(Button.Pressed, "#make")
    def _make(self) -> None:
        self.run_worker(self._draft(), exclusive=True)

    async def _draft(self) -> None:
        try:
            seed = await wallet_keys.draft(self.journey.directory)
        except QubixError as error:
            self.say(str(error))
            return
        journey = self.first_run
        journey.go(ShowSeedStep(seed, lambda checked: journey.seed_shown(seed, checked=checked)))

    @on(Button.Pressed, "#have")
    def _have(self) -> None:
        journey = self.first_run
        journey.go(TypeSeedStep(lambda seed: journey.seed_shown(seed, checked=True)))

    @on(Button.Pressed, "#quit")
    def _quit(self) -> None:
        self.journey.dismiss(False)


class ReadyStep(Step):
    """What there is now, and what to do with it."""

    TITLE = "Ready"
    BACK = False
    BUTTONS = (("market", "Open the market"), ("practice", "Start a practice provider"))

    def __init__(self, started: Started) -> None:
        super().__init__()
        self._started = started

    def compose_step(self) -> ComposeResult:
        wallet, net = self._started.wallet, self._started.net
        yield Words(Text("All set: the daemon runs, and goes on when you close this.", "bold"))
        money = (
            f"{show.qu(wallet.balance)} QU{' of play money' if net else ''}" if wallet else "not known yet"
        )
        yield Words(f"Wallet    {money}\nIdentity  {safe_line(self._started.identity)}")
        if not (wallet and wallet.balance):
            yield Words(
                "To rent, send some QU to this identity; the wallet shows it as a picture, too (key 3)."
            )
        yield Words(
            "1  The market lists machines; Enter shows one, n begins a new job.\n"
            "2  Every screen has its keys in the last line, and ? explains it.\n"
            "3  `qubix down` ends the daemon; `qubix` comes back here."
        )
        if net:
            yield Words(
                "On this network there is only what runs on this machine. A practice provider is a second "
                "daemon that offers this machine to you, so that there is something to rent.",
                id="practice-words",
            )

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#practice", Button).display = self._started.net is not None

    @on(Button.Pressed, "#market")
    def _market(self) -> None:
        self.journey.dismiss(True)

    @on(Button.Pressed, "#practice")
    def _practice(self, event: Button.Pressed) -> None:
        event.button.disabled = True
        event.button.label = "Starting it ..."
        self.run_worker(self._start_practice(event.button), exclusive=True)

    async def _start_practice(self, button: Button) -> None:
        try:
            await practice.start_provider(self.journey.directory)
        except QubixError as error:
            self.say(str(error))
            button.disabled = False
            button.label = "Start a practice provider"
            return
        button.label = "A practice provider runs"
        self.query_one("#market", Button).focus()
        words = "A practice provider offers this machine now. `qubix devnet --end` ends it with the network."
        self.query_one("#practice-words", Words).update(words)
