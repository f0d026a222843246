"""The wallet's part of the local control API: what it holds, what it pays, what it has signed.

Frames and all else are in protocol/control.py. Money is whole QU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta


@dataclass(frozen=True)
class WalletArgs:
    pass


@dataclass(frozen=True)
class SendArgs:
    """Pay an account; the answer comes when it is final. Asked again with the same id it pays once.
    Events are WaitingEvent, where it takes unusually long."""

    payment_id: Annotated[str, Meta(min_length=1, max_length=64)]
    identity: Annotated[str, Meta(max_length=60)]
    amount: Annotated[int, Meta(ge=1)]
    check: bool = False
    """Only say whether it could be paid: the answer's state is `checked`, and nothing is written down."""


@dataclass(frozen=True)
class HistoryArgs:
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 50


@dataclass(frozen=True)
class WaitingEvent:
    why: str
    """Why the chain has to be waited for, in a sentence; empty when it goes on."""


@dataclass(frozen=True)
class WalletView:
    identity: str
    balance: int
    escrowed: int
    """In open escrows as a caller, not yet promised to anyone."""
    spent: int
    earned: int
    """Net of the fee, settled leases as a provider."""
    tick: int


@dataclass(frozen=True)
class TransactionView:
    """A transaction this node has signed. That it is listed does not say that it ran."""

    hash: str
    action: str
    tick: int
    amount: int


@dataclass(frozen=True)
class PaymentView:
    payment_id: str
    identity: str
    amount: int
    state: str
    """pending, sent, failed (nothing moved), unknown, or checked."""
    sentence: str
    at_ms: int
    transactions: list[TransactionView]


@dataclass(frozen=True)
class HistoryEntry:
    """A lease or a payment, with every transaction signed for it; or money that came by itself."""

    kind: str
    """caller, provider, send or received."""
    id: str
    state: str
    qu: int
    """What it did to the wallet: negative if it cost something. 0 while that is open."""
    at_ms: int
    transactions: list[TransactionView]
    name: str = ""
    """Of a lease's job."""
    to: str = ""
    """Identity that a payment goes to."""
    amount: int = 0
    """What a payment is to move, also while it is open."""
    sentence: str = ""
    """What has become of it, or why not."""
    sender: str = ""
    """Identity that money came from, where it is known."""


@dataclass(frozen=True)
class HistoryView:
    entries: list[HistoryEntry]
    """Newest first."""
