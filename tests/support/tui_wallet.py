"""Canned answers of the wallet's verbs."""

from __future__ import annotations

from typing import Any, Final

from protocol.control_wallet import (
    HistoryEntry,
    HistoryView,
    PaymentView,
    SendArgs,
    TransactionView,
    WalletView,
)
from tests.support.views import HOSTILE

ME: Final = "HQDWFMZKCPIBYNVAGLTEXROSUJHQDWFMZKCPIBYNVAGLTEXROSUJHQDWFMZK"
OTHER: Final = "ZCPAWNVAGLTEXROSUJHQDWFMZKCPIBYNVAGLTEXROSUJHQDWFMZKCPIBYNVA"
AT_MS: Final = 1_788_000_000_000
HOUR_MS: Final = 3_600_000
WALLET: Final = WalletView(ME, 998_765_432, 30_000_000, 1_234_568, 95_000, 12_345_678)
EMPTY: Final = WalletView(ME, 0, 0, 0, 0, 12_345_678)


def signed(action: str, amount: int = 0) -> TransactionView:
    return TransactionView("qhxubwzmcpdlktvnryeoaisfgj" * 2 + "qhxubwzm", action, 12_345_600, amount)


ENTRIES: Final = [
    HistoryEntry("caller", "3fa9c1" + "0" * 58, "running", 0, AT_MS, [signed("open", 30_000_000)], "train"),
    HistoryEntry(
        "send",
        "pay-rent",
        "pending",
        0,
        AT_MS - HOUR_MS,
        [signed("transfer", 250_000)],
        to=OTHER,
        amount=250_000,
    ),
    HistoryEntry(
        "caller",
        "77ab01" + "0" * 58,
        "done",
        -1_234_568,
        AT_MS - 5 * HOUR_MS,
        [signed("open", 5_000_000)],
        "stable-diffusion",
        sentence="the job ended by itself with exit code 0",
    ),
    HistoryEntry(
        "provider", "c0ffee" + "0" * 58, "done", 95_000, AT_MS - 30 * HOUR_MS, [signed("close")], HOSTILE
    ),
    HistoryEntry(
        "caller", "bad001" + "0" * 58, "failed", 0, AT_MS - 40 * HOUR_MS, [], HOSTILE, sentence=HOSTILE
    ),
]


def paid(args: SendArgs) -> PaymentView:
    state = "checked" if args.check else "sent"
    sentence = "" if args.check else "carried out in tick 12345690"
    return PaymentView(args.payment_id, args.identity, args.amount, state, sentence, AT_MS, [])


ANSWERS: Final[dict[str, Any]] = {"wallet": WALLET, "history": HistoryView(ENTRIES), "send": paid}
