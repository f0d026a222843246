"""`qubix wallet`: keys by a program of the daemon's, money by the daemon. No seed passes through here."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from rich.text import Text

from protocol.control_wallet import HistoryArgs, HistoryView, SendArgs, WalletArgs, WalletView
from protocol.errors import MoneyError, PaymentFailed, QubixError, UsageError
from tui import show
from tui.places import data_dir
from tui.processes import module_command
from tui.verbs import ask, ask_patiently, tell

KEY_ACTIONS = ("new", "import", "export", "passphrase")
MOST_DIGITS = 18
ACTIONS = ("balance", *KEY_ACTIONS, "send", "history")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=ACTIONS, default="balance", help="balance if left out")
    parser.add_argument("to", nargs="?", metavar="IDENTITY", help="send: who gets it, 60 letters")
    parser.add_argument("amount", nargs="?", metavar="QU", help="send: how much")
    parser.add_argument("--id", metavar="ID", help="send: asked again with the same id it is paid once")
    parser.add_argument("--seed-file", metavar="FILE", help="import: a 0600 file, else standard input")
    parser.add_argument("--to", dest="file", metavar="FILE", help="export: a file that does not exist yet")
    parser.add_argument("--show", action="store_true", help="export: show the seed on this terminal")
    parser.add_argument("--passphrase-file", metavar="FILE", help="passphrase of the keystore")
    parser.add_argument("--new-passphrase-file", metavar="FILE", help="passphrase: the new one, else typed")
    parser.add_argument("--no-passphrase", action="store_true", help="passphrase: none from now on")
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="history: the last N (50)")


async def wallet(options: argparse.Namespace) -> int:
    if options.action in KEY_ACTIONS:
        return await _keys(options)
    if options.action == "send":
        return await _send(options)
    if options.to is not None:
        raise UsageError(f"`qubix wallet {options.action}` takes no {options.to[:64]!r}")
    if options.action == "history":
        return await _history(options)
    view: WalletView = await ask(options, "wallet", WalletArgs())
    return tell(options, view, show.wallet_sheet(view))


async def _keys(options: argparse.Namespace) -> int:
    """That program has the terminal for itself; what it says is the answer."""
    words = [options.action, "--data-dir", str(data_dir(options.data_dir))]
    named = ("seed_file", "passphrase_file", "new_passphrase_file")
    files = [
        ("--to", options.file),
        *((f"--{one.replace('_', '-')}", getattr(options, one)) for one in named),
    ]
    for flag, value in files:
        words += [flag, value] if value else []
    said = (("--show", options.show), ("--no-passphrase", options.no_passphrase), ("--json", options.json))
    words += [flag for flag, given in said if given]
    process = await asyncio.create_subprocess_exec(*module_command("qubixd.wallet", *words))
    return await process.wait()


async def _send(options: argparse.Namespace) -> int:
    if options.to is None or options.amount is None:
        raise UsageError("say who gets how much: qubix wallet send IDENTITY QU")
    digits = options.amount.replace("_", "").replace(",", "")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= MOST_DIGITS and int(digits) > 0):
        raise UsageError(f"{options.amount[:64]!r} is not a whole number of QU above 0")
    payment_id = options.id or os.urandom(8).hex()
    try:
        view = await ask_patiently(options, "send", SendArgs(payment_id, options.to, int(digits)))
    except (UsageError, MoneyError):  # it was never begun
        raise
    except (QubixError, asyncio.CancelledError):
        show.console(sys.stderr).print(
            Text(f"Whether it was sent is not known here; ask again with --id {payment_id} to pay only once.")
        )
        raise
    if view.state != "sent" and not options.json:
        raise PaymentFailed(view.sentence)
    tell(options, view, show.payment_sheet(view))
    return 0 if view.state == "sent" else PaymentFailed.exit_code


async def _history(options: argparse.Namespace) -> int:
    view: HistoryView = await ask(options, "history", HistoryArgs(options.limit))
    empty = Text("Nothing was rented, served, sent or received with this wallet yet.")
    return tell(options, view, show.history_table(view.entries) if view.entries else empty)
