"""Steps around a seed: shown to its owner, asked for again, typed in by him.

Nothing of it is kept here longer than the screen lives.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import ClassVar, Final

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Button, Input, Label

from protocol.errors import QubixError
from protocol.seeds import WALLET_SEED_LETTERS, mistake_in_seed
from tui import wallet_keys
from tui.safe import safe_line
from tui.screens.journey import Step, Words
from tui.wallet_keys import OwnSeed

GROUP_LETTERS: Final = 5
GROUPS: Final = WALLET_SEED_LETTERS // GROUP_LETTERS
ASKED_GROUPS: Final = 3
COLUMNS: Final = 4
MAX_PASTED_CHARS: Final = 400


def groups_of(seed: str) -> list[str]:
    """Its eleven groups of five letters, as they are shown and asked for."""
    return [seed[at : at + GROUP_LETTERS] for at in range(0, len(seed), GROUP_LETTERS)]


def seed_sheet(seed: str) -> Text:
    """The groups with their numbers, in rows that are read from left to right."""
    sheet = Text()
    for number, group in enumerate(groups_of(seed), 1):
        sheet.append(f"{number:>3} ", "dim")
        sheet.append(group, "bold")
        sheet.append("\n" if number % COLUMNS == 0 else "   ")
    return sheet


def place_of(seed: str, at: int) -> str:
    """Where a letter is, for somebody who looks at groups; `at` counts from 1."""
    group, letter = divmod(at - 1, GROUP_LETTERS)
    return f"letter {at} (group {group + 1}, place {letter + 1})"


def trouble_in(typed: str) -> str:
    """What is wrong with a seed as it was typed, and where; "" if nothing. Gaps and lines do not count."""
    seed = "".join(typed.split())
    mistake = mistake_in_seed(seed)
    if mistake is None:
        return ""
    if not seed:
        return "Nothing was typed yet. A seed has 55 small letters, a to z."
    if mistake.at <= len(seed) and not ("a" <= seed[mistake.at - 1] <= "z"):
        what = "a capital letter" if seed[mistake.at - 1].isupper() else "not a letter a to z"
        return f"At {place_of(seed, mistake.at)} there is {what}. A seed has only small letters a to z."
    missing = WALLET_SEED_LETTERS - len(seed)
    if missing > 0:
        return f"{missing} of 55 letters {'is' if missing == 1 else 'are'} missing: there are {len(seed)}."
    return f"{-missing} too many: there are {len(seed)} letters and a seed has 55."


class SeedInput(Input):
    """Takes a pasted seed whole, also if it comes in groups or lines."""

    def _on_paste(self, event: events.Paste) -> None:
        text = " ".join(event.text[:MAX_PASTED_CHARS].split())
        if text:
            start, end = sorted(self.selection)
            self.replace(text, start, end)
        event.prevent_default()
        event.stop()


class ShowSeedStep(Step):
    """A seed, why it matters, and the way on once it is written down."""

    TITLE = "Your seed"
    BUTTONS = (("written", "I have written it down"), ("later", "Not now"))

    def __init__(self, seed: OwnSeed, done: Callable[[bool], None]) -> None:
        """`done` hears whether the backup was checked."""
        super().__init__()
        self._seed = seed
        self._done = done

    def compose_step(self) -> ComposeResult:
        yield Words(
            "These 55 letters are your wallet. Write them down now, group by group: on paper, or into a "
            "password manager."
        )
        yield Words(seed_sheet(self._seed.letters), id="seed-sheet")
        yield Words(
            "• Whoever has them has the money. Nobody honest ever asks for them.\n"
            "• If this disk dies they are the only way back; nobody keeps a copy.\n"
            "• A photo, a mail or a chat is no safe place."
        )
        yield Words(f"Next, {ASKED_GROUPS} of the groups are asked again.", classes="quiet")

    @on(Button.Pressed, "#written")
    def _written(self) -> None:
        self.journey.go(CheckSeedStep(self._seed, self._done))

    @on(Button.Pressed, "#later")
    def _later(self) -> None:
        self._done(False)


class CheckSeedStep(Step):
    """Some groups of the seed again, so that the copy is known to be right."""

    TITLE = "Is your copy right?"
    BUTTONS = (("check", "Check"), ("again", "Show the seed again"))

    def __init__(self, seed: OwnSeed, done: Callable[[bool], None]) -> None:
        super().__init__()
        self._groups = groups_of(seed.letters)
        self._asked = sorted(secrets.SystemRandom().sample(range(1, GROUPS + 1), ASKED_GROUPS))
        self._done = done

    @property
    def asked(self) -> list[int]:
        """Numbers of the groups that are asked for."""
        return self._asked

    def compose_step(self) -> ComposeResult:
        yield Words("Type these groups from your copy. It shows now whether it is complete.")
        for number in self._asked:
            with Horizontal(classes="row"):
                yield Label(f"Group {number}", classes="name")
                yield Input(id=f"group-{number}", max_length=GROUP_LETTERS, classes="short")

    @on(Input.Submitted)
    @on(Button.Pressed, "#check")
    def _check(self) -> None:
        fields = {number: self.query_one(f"#group-{number}", Input) for number in self._asked}
        wrong = [n for n, one in fields.items() if one.value.strip().lower() != self._groups[n - 1]]
        if not wrong:
            self._done(True)
            return
        fields[wrong[0]].focus()
        if fields[wrong[0]].value:
            self.say(f"Group {wrong[0]} is not what was shown. Look at your copy, or show the seed again.")
        else:
            self.say("")

    @on(Button.Pressed, "#again")
    def _again(self) -> None:
        self.journey.back()


class TypeSeedStep(Step):
    """A seed that somebody has already."""

    TITLE = "Use a seed you have"
    BUTTONS = (("use", "Go on"), ("show", "Show what I type"), ("back", "Back"))

    def __init__(self, done: Callable[[OwnSeed], None]) -> None:
        super().__init__()
        self._done = done

    def compose_step(self) -> ComposeResult:
        yield Words("Type or paste the 55 letters. Gaps between groups do not matter.")
        yield SeedInput(password=True, placeholder="55 letters a-z", id="seed", max_length=MAX_PASTED_CHARS)
        yield Words("0 of 55 letters", id="count", classes="quiet")
        yield Words(
            "Use a seed in one place only: two daemons with the same one spend the same money without "
            "knowing of each other."
        )

    @on(Input.Changed, "#seed")
    def _typed(self, event: Input.Changed) -> None:
        self.say("")
        seed = "".join(event.value.split())
        strange = seed and mistake_in_seed(seed.ljust(WALLET_SEED_LETTERS, "a")[:WALLET_SEED_LETTERS])
        count = f"{len(seed)} of {WALLET_SEED_LETTERS} letters"
        self.query_one("#count", Words).update(count)
        if strange:
            self.say(trouble_in(event.value))

    @on(Button.Pressed, "#show")
    def _show(self, event: Button.Pressed) -> None:
        field = self.query_one("#seed", SeedInput)
        field.password = not field.password
        event.button.label = "Show what I type" if field.password else "Hide what I type"
        field.focus()

    @on(Button.Pressed, "#back")
    def _back(self) -> None:
        self.journey.back()

    @on(Input.Submitted)
    @on(Button.Pressed, "#use")
    def _use(self) -> None:
        field = self.query_one("#seed", SeedInput)
        trouble = trouble_in(field.value)
        self.say(trouble)
        if trouble:
            field.focus()
            return
        self.run_worker(self._look("".join(field.value.split())), exclusive=True)

    async def _look(self, seed: str) -> None:
        try:
            identity = await wallet_keys.identity_of(self.journey.directory, seed)
        except QubixError as error:
            self.say(str(error))
            return
        self.journey.go(IsItYoursStep(OwnSeed(identity, seed), self._done))


class IsItYoursStep(Step):
    """Any 55 letters are a seed: only its owner can see that they open the right wallet."""

    TITLE = "Is this your wallet?"
    BUTTONS = (("yes", "Yes, use it"), ("no", "No, back to the seed"))

    def __init__(self, seed: OwnSeed, done: Callable[[OwnSeed], None]) -> None:
        super().__init__()
        self._seed = seed
        self._done = done

    def compose_step(self) -> ComposeResult:
        yield Words("This seed opens the wallet")
        yield Words(identity_sheet(self._seed.identity), id="identity-sheet")
        yield Words(
            "Compare it with the identity you know. One wrong letter in the seed opens another wallet, an "
            "empty one, and nothing else can tell you so."
        )

    @on(Button.Pressed, "#yes")
    def _yes(self) -> None:
        self._done(self._seed)

    @on(Button.Pressed, "#no")
    def _no(self) -> None:
        self.journey.back()


def identity_sheet(identity: str, columns: int = 6) -> Text:
    """60 letters in groups of five, easy to compare."""
    groups = groups_of(safe_line(identity))
    rows = (groups[at : at + columns] for at in range(0, len(groups), columns))
    return Text("\n".join(" ".join(row) for row in rows), "bold")


class PassphraseStep(Step):
    """The passphrase of keys that have one."""

    TITLE: ClassVar[str] = "Your passphrase"
    BUTTONS = (("open", "Go on"), ("cancel", "Back"))

    def __init__(self, why: str, done: Callable[[str], None]) -> None:
        super().__init__()
        self._why = why
        self._done = done

    def compose_step(self) -> ComposeResult:
        yield Words(self._why)
        with Vertical():
            yield Input(password=True, id="passphrase", max_length=wallet_keys.MAX_PASSPHRASE_BYTES)

    @on(Input.Submitted)
    @on(Button.Pressed, "#open")
    def _open(self) -> None:
        typed = self.query_one("#passphrase", Input).value
        if typed:
            self._done(typed)
        else:
            self.say("These keys were sealed with a passphrase; type it. Without it only the seed helps.")

    @on(Button.Pressed, "#cancel")
    def _cancel(self) -> None:
        self.journey.back()
