"""What the demo shows: a line per step with a spinner while it lasts, the job's log, the balance sheet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.status import Status
from rich.table import Table
from rich.text import Text

from protocol.units import FEE_BASIS_POINTS, Qu, fee_of
from tui import show
from tui.processes import log_tail
from tui.safe import safe_line

LABEL_CHARS = 10


@dataclass(frozen=True)
class Money:
    """Everything the balance sheet says, in whole QU. Wallets are (before, after)."""

    deposit: int
    paid: int
    provider_received: int
    fee: int
    refunded: int
    caller: tuple[int, int]
    provider: tuple[int, int]
    seconds: int
    vouchers: int
    caller_risk: int
    """The most the caller could have lost had the provider vanished."""
    provider_risk: int

    def mistakes(self) -> Iterator[str]:
        """A sentence for every sum that is not what it must be."""
        if self.paid <= 0:
            yield "nothing was paid"
        if self.fee != fee_of(Qu(self.paid)):
            yield f"the fee is {self.fee} QU, not {fee_of(Qu(self.paid))} QU"
        if self.provider_received != self.paid - self.fee:
            yield "what the provider received is not what was paid less the fee"
        if self.deposit != self.paid + self.refunded:
            yield "the deposit is not what was paid plus what came back"
        if self.caller[0] - self.caller[1] != self.paid:
            yield "the caller's wallet did not change by what was paid"
        if self.provider[1] - self.provider[0] != self.provider_received:
            yield "the provider's wallet did not change by what it received"


class Screen:
    """Writes for a person: to standard output, or beside it where that is kept for JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._console = show.console(sys.stderr if as_json else sys.stdout)
        self._spinner: Status | None = None

    def say(self, text: str, style: str = "") -> None:
        self._console.print(Text(safe_line(text, 2_000), style))

    def log_line(self, text: str) -> None:
        """A line the job printed."""
        self._console.print(Text(f"  {'':{LABEL_CHARS}} │ {safe_line(text, 200)}", "dim"))

    def done(self, label: str, text: str, seconds: float) -> None:
        self._console.print(
            Text.assemble(
                ("✓ ", show.GOOD),
                (f"{label:{LABEL_CHARS}} ", "bold"),
                safe_line(text),
                (f"  {seconds:.1f} s", "dim"),
            )
        )

    def now(self, label: str, text: str, began: float) -> None:
        """What is under way since `began`, where a terminal can show it."""
        if not self._console.is_terminal:
            return
        line = show.Ticking(Text.assemble((f"{label:{LABEL_CHARS}} ", "bold"), safe_line(text)), began)
        if self._spinner is None:
            self._spinner = self._console.status(line)
            self._spinner.start()
        self._spinner.update(line)

    def quiet(self) -> None:
        """Nothing is under way."""
        if self._spinner:
            self._spinner.stop()
            self._spinner = None

    @contextmanager
    def step(self, label: str, doing: str) -> Iterator[list[str]]:
        """A step of the demo; what the body appends to the list is what was done."""
        began, said = time.monotonic(), list[str]()
        self.now(label, doing, began)
        yield said
        self.quiet()
        self.done(label, " ".join(said) or doing, time.monotonic() - began)

    def logs_of(self, logs: Mapping[str, Path]) -> None:
        """The last words of processes, so that nobody has to look for a file."""
        self.quiet()
        for name, log in logs.items():
            self.say(f"last lines of the {name}'s log:", "bold")
            for line in log_tail(log):
                self.say(f"  {line}", "dim")

    def result(self, name: str, lines: Sequence[str], sha256: str, *, matches: bool) -> None:
        self.say("")
        self.say(f"What came back: {name}", "bold")
        for line in lines:
            self.say(f"  {line}")
        self.say(f"  sha256 {sha256}", "dim")
        if matches:
            self.say("  Computed a second time here, from the same data: the same bytes.", show.GOOD)
        else:
            self.say("  This is NOT what the same computation gives here.", show.BAD)

    def balance_sheet(self, money: Money) -> None:
        """Where every QU went."""
        self.say("")
        self.say("What happened to the money", "bold")
        self._console.print(_uses(money))
        self._console.print(_wallets(money))
        self.say(f"  The caller signed {money.vouchers} vouchers, each for the time used up to then.")
        self.say("  Had one side vanished at the worst moment, the other would have lost at most:")
        self.say(
            f"  the caller {show.qu(money.caller_risk)} QU, the provider {show.qu(money.provider_risk)} QU."
        )


def _uses(money: Money) -> Table:
    sheet = Table.grid(padding=(0, 2))
    sheet.add_column()
    sheet.add_column(justify="right")
    percent = FEE_BASIS_POINTS / 100
    for label, amount, style in (
        ("  deposit: locked by the caller in the escrow contract", money.deposit, "bold"),
        (f"    used: {money.seconds} s of computing", money.paid, ""),
        ("      to the provider", money.provider_received, show.GOOD),
        (f"      fee of {percent:g} %, kept by the contract", money.fee, ""),
        ("    not used: back to the caller", money.refunded, show.GOOD),
    ):
        sheet.add_row(Text(label), Text(f"{show.qu(amount)} QU", style))
    return sheet


def _wallets(money: Money) -> Table:
    wallets = Table(box=box.SIMPLE_HEAD, show_footer=True, padding=(0, 2))
    changes = [after - before for before, after in (money.caller, money.provider)]
    wallets.add_column("wallet", footer="sum")
    wallets.add_column("before", justify="right")
    wallets.add_column("after", justify="right")
    wallets.add_column("change", justify="right", footer=f"{sum(changes) + money.fee:,}")
    for name, (before, after) in (("caller", money.caller), ("provider", money.provider)):
        wallets.add_row(name, show.qu(before), show.qu(after), f"{after - before:+,}")
    wallets.add_row("fee in the contract", "", "", f"{money.fee:+,}")
    return wallets
