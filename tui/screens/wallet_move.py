"""Money in and out: where to send it, and a payment from its form to its end."""

from __future__ import annotations

import os
from contextlib import aclosing
from typing import TYPE_CHECKING, ClassVar, Final, cast

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Static

from protocol.control_wallet import PaymentView, SendArgs, WaitingEvent, WalletView
from protocol.errors import DaemonUnreachable, MoneyError, QubixError, UsageError
from protocol.units import MAX_QU
from tui import private_net, show
from tui.qr import qr_code
from tui.safe import safe_line, safe_text
from tui.screens.journey import Journey, Step, Words
from tui.screens.key_line import CalmFooter
from tui.screens.seed_steps import identity_sheet

if TYPE_CHECKING:
    from pathlib import Path

    from tui.app import QubixApp

IDENTITY_LETTERS: Final = 60
MAX_TYPED_CHARS: Final = 100


class DepositScreen(ModalScreen[None]):
    """Where others send money to: as a picture for a telephone, and as letters."""

    HELP = "Others pay to this identity. A telephone reads the picture; c copies the letters."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,d", "app.pop_screen", "Close", key_display="Esc"),
        Binding("c", "copy", "Copy identity"),
    ]

    def __init__(self, identity: str) -> None:
        super().__init__()
        self._identity = identity

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="wallet-box"), Horizontal(id="deposit"):
            yield Static(qr_code(self._identity), id="deposit-code", markup=False)
            yield Static(self._words(), id="deposit-words", markup=False)
        yield CalmFooter()

    def _words(self) -> Text:
        text = Text.assemble(("Send QU to this identity\n\n", "bold"), identity_sheet(self._identity, 4))
        text.append("\n\nIt arrives within a few seconds and shows in the balance by itself.", "")
        if private_net.no_chain_named(None):
            text.append("\n\nThis is the private network of this machine: only play money lives here. ")
            text.append("Press Esc, then g for some.")
        return text

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self._identity)
        self.notify("The identity is in the clipboard, if this terminal allows that.", markup=False)


class SendScreen(Journey):
    """A payment. True if it was sent."""

    NAME = "send"
    HELP = (
        "Pays an identity from this wallet. It is shown once more before it is signed, and it cannot be "
        "taken back. Asked twice it is paid once: a payment has a number of its own."
    )

    def __init__(self, view: WalletView, directory: Path) -> None:
        super().__init__(directory)
        self.view = view

    def first(self) -> Step:
        return PaymentStep(self.view)


class PaymentStep(Step):
    """To whom, and how much."""

    TITLE = "To whom, and how much?"
    BUTTONS = (("look", "Look it over"), ("cancel", "Back"))

    def __init__(self, view: WalletView) -> None:
        super().__init__()
        self._view = view

    def compose_step(self) -> ComposeResult:
        yield Words(
            f"The wallet has {show.qu(self._view.balance)} QU. Sending costs nothing beside the amount."
        )
        yield Label("To (an identity, 60 capital letters)")
        yield Input(id="to", max_length=MAX_TYPED_CHARS, classes="wide")
        yield Words(id="to-words", classes="quiet")
        yield Label("Amount in QU")
        yield Input(id="amount", max_length=24, classes="wide")
        yield Words(id="amount-words", classes="quiet")

    @on(Input.Changed, "#to")
    def _to_typed(self, event: Input.Changed) -> None:
        self.say("")
        letters = "".join(event.value.split())
        words = f"{len(letters)} of {IDENTITY_LETTERS} letters" if letters else ""
        self.query_one("#to-words", Words).update(words)

    @on(Input.Changed, "#amount")
    def _amount_typed(self, event: Input.Changed) -> None:
        self.say("")
        amount = amount_of(event.value)
        words = f"{show.qu(amount)} QU; {show.qu(self._view.balance - amount)} QU stay" if amount else ""
        self.query_one("#amount-words", Words).update(words)

    @on(Input.Submitted, "#to")
    def _to_amount(self) -> None:
        self.query_one("#amount", Input).focus()

    @on(Button.Pressed, "#cancel")
    def _cancel(self) -> None:
        self.journey.back()

    @on(Input.Submitted, "#amount")
    @on(Button.Pressed, "#look")
    def _look(self) -> None:
        to, amount = (self.query_one(name, Input) for name in ("#to", "#amount"))
        wrong_to, wrong_amount = trouble_in_identity(to.value), trouble_in_amount(amount.value)
        self.say(wrong_to or wrong_amount)
        if wrong_to or wrong_amount:
            (to if wrong_to else amount).focus()
            return
        order = SendArgs(os.urandom(8).hex(), "".join(to.value.split()), amount_of(amount.value))
        self.run_worker(self._check(order), exclusive=True)

    async def _check(self, order: SendArgs) -> None:
        """The daemon knows whether the letters are an identity and whether there is enough."""
        try:
            asked = SendArgs(order.payment_id, order.identity, order.amount, check=True)
            await cast("QubixApp", self.app).link.call("send", asked)
        except QubixError as error:
            self.say(str(error))
            return
        self.journey.go(ConfirmStep(order, self._view))


class ConfirmStep(Step):
    """The last look before money goes."""

    TITLE = "Is this right?"
    BUTTONS = (("back", "No, back"), ("send", "Yes, send it"))

    def __init__(self, order: SendArgs, view: WalletView) -> None:
        super().__init__()
        self._order = order
        self._view = view

    def compose_step(self) -> ComposeResult:
        yield Words(Text(f"{show.qu(self._order.amount)} QU", "bold"))
        yield Words("to")
        yield Words(identity_sheet(self._order.identity), id="identity-sheet")
        yield Words(f"{show.qu(self._view.balance - self._order.amount)} QU stay in the wallet.")
        yield Words("It cannot be taken back. Compare the letters with where you have them from.")

    @on(Button.Pressed, "#back")
    def _back(self) -> None:
        self.journey.back()

    @on(Button.Pressed, "#send")
    def _send(self) -> None:
        self.journey.go(PayingStep(self._order))


class PayingStep(Step):
    """Until the payment is final. It goes on in the daemon whoever looks."""

    TITLE = "Sending"
    BACK = False
    BUTTONS = (("close", "Close"), ("again", "Ask again"))

    def __init__(self, order: SendArgs) -> None:
        super().__init__()
        self._order = order
        self._sent = False

    def compose_step(self) -> ComposeResult:
        yield Words(id="paying")
        yield Words(id="paying-why", classes="quiet")

    def on_mount(self) -> None:
        super().on_mount()
        self._ask()

    @on(Button.Pressed, "#close")
    def _close(self) -> None:
        self.journey.dismiss(self._sent)

    @on(Button.Pressed, "#again")
    def _ask(self) -> None:
        self.say("")
        self.query_one("#again", Button).display = False
        self.query_one("#paying", Words).update(f"Sending {show.qu(self._order.amount)} QU ...")
        self.run_worker(self._send(), exclusive=True)

    async def _send(self) -> None:
        """The same number each time: however often it is asked, it is paid once."""
        try:
            async with aclosing(cast("QubixApp", self.app).link.stream("send", self._order)) as items:
                async for item in items:
                    self._take(item)
        except (UsageError, MoneyError) as error:
            self._end("Not sent", str(error))
        except DaemonUnreachable:
            self._lost("The daemon went away. When it is back, ask again:")
        except QubixError as error:
            self._lost(f"{safe_line(str(error))}. Ask again:")

    def _take(self, item: WaitingEvent | PaymentView) -> None:
        if isinstance(item, WaitingEvent):
            self.query_one("#paying-why", Words).update(safe_text(item.why))
            return
        self._sent = item.state == "sent"
        heads = {
            "sent": "Sent.",
            "failed": "Not sent; nothing moved.",
            "unknown": "Nobody can tell any more.",
        }
        self._end(heads.get(item.state, safe_line(item.state)), item.sentence)

    def _end(self, head: str, sentence: str) -> None:
        colours = self.app.theme_variables
        self.query_one("#paying", Words).update(
            Text(head, f"bold {colours['success' if self._sent else 'error']}")
        )
        words = f"{sentence[:1].upper()}{sentence[1:].rstrip('.')}." if sentence else ""
        self.query_one("#paying-why", Words).update(safe_text(words))

    def _lost(self, why: str) -> None:
        self.query_one("#paying", Words).update("Whether it was sent is not known yet.")
        self.say(f"{why} the same payment is never paid twice.")
        button = self.query_one("#again", Button)
        button.display = True
        button.focus()


def amount_of(typed: str) -> int:
    """A whole number of QU; `_`, `,`, `'` and spaces may group its digits. 0 if it is none."""
    digits = "".join(one for one in typed if one not in "_,' ")
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def trouble_in_amount(typed: str) -> str:
    """What is wrong with it, in a sentence; "" if nothing."""
    if not typed.strip():
        return "Say how much: a whole number of QU."
    if not 0 < amount_of(typed) <= MAX_QU:
        return f"{safe_line(typed, 30)!r} is not a whole number of QU from 1 to {MAX_QU:,}."
    return ""


def trouble_in_identity(typed: str) -> str:
    """What can be seen without its check letters, and where; "" if nothing."""
    letters = "".join(typed.split())
    if not letters:
        return "Say who gets it: an identity, 60 capital letters."
    strange = next((at for at, one in enumerate(letters, 1) if not "A" <= one <= "Z"), None)
    if strange:
        what = "a small letter" if letters[strange - 1].islower() else "something else than a letter A to Z"
        return f"At letter {strange} of the identity there is {what}; it has capital letters only."
    if len(letters) != IDENTITY_LETTERS:
        return f"The identity has {len(letters)} letters; it must have {IDENTITY_LETTERS}."
    return ""
