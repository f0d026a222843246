"""The demo on a chain that is not its own: the provider's fresh wallet gets a little money and returns it."""

from __future__ import annotations

import argparse
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocol.control_wallet import PaymentView, SendArgs, WalletArgs, WalletView
from protocol.errors import PaymentFailed, QubixError, UsageError
from tui import show
from tui.client import Client
from tui.demo_screen import Screen

FLOAT_QU: Final = 1_000
"""An empty wallet can send no transaction, and closing an escrow needs a small bond that comes back."""


@dataclass(frozen=True)
class Foreign:
    """A chain that others run, and whose money pays for the demo."""

    chain: str
    contract_index: int
    seed_file: Path

    @property
    def options(self) -> tuple[str, ...]:
        return ("--chain", self.chain, "--contract-index", str(self.contract_index))


def foreign_of(options: argparse.Namespace) -> Foreign | None:
    """None for the demo on a private network. UsageError for half of it."""
    given = (options.chain, options.contract_index, options.wallet_seed_file)
    if given == (None, None, None):
        return None
    if None in given:
        raise UsageError(
            "for a demo on a chain of yours give all of --chain, --contract-index and --wallet-seed-file"
        )
    return Foreign(options.chain, options.contract_index, Path(options.wallet_seed_file).absolute())


async def lend(caller: Client, provider: Client, screen: Screen) -> None:
    """Give the provider's fresh wallet what it needs to send transactions."""
    with screen.step("float", "sending the provider's new wallet a little money") as said:
        wallet: WalletView = await provider.call("wallet", WalletArgs())
        sent = await _pay(caller, wallet.identity, FLOAT_QU)
        said.append(f"{show.qu(sent.amount)} QU sent to the provider's new wallet; they come back at the end")


async def give_back(caller: Client, provider: Client, screen: Screen) -> bool:
    """Send everything in the provider's wallet to the caller's; is nothing left there?"""
    try:
        with screen.step("return", "sending the provider's money back to your wallet") as said:
            earned: WalletView = await provider.call("wallet", WalletArgs())
            if earned.balance:
                home: WalletView = await caller.call("wallet", WalletArgs())
                await _pay(provider, home.identity, earned.balance)
            said.append(f"{show.qu(earned.balance)} QU went from the provider's wallet back to yours")
    except (QubixError, OSError) as error:
        screen.quiet()
        screen.say(f"The provider's money could not be sent back: {error}", show.BAD)
        return False
    return True


async def _pay(client: Client, identity: str, amount: int) -> PaymentView:
    args = SendArgs(f"demo-{secrets.token_hex(8)}", identity, amount)
    payment: PaymentView = await client.call("send", args)
    if payment.state != "sent":
        raise PaymentFailed(payment.sentence)
    return payment
