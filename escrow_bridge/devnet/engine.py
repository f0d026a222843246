"""The devnet's chain: takes transactions, runs each in its tick against the compiled contract.

Drops in silence what a real node drops, and tells its own process why. Where the real network leaves
things to chance (a target tick too near, the order within a tick) the engine has one fixed answer.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import astuple, dataclass
from typing import Final

from escrow_bridge.chain import Outcome, TickInfo
from escrow_bridge.devnet.host import Host
from escrow_bridge.qubic import Transaction, parse_transaction, signature_valid, transaction_digest
from escrow_bridge.wire_format import SLOTS, EntityRecord
from protocol.errors import MessageInvalid, UsageError
from protocol.units import Qu, QubicId, Tick

LEAST_KEPT_TICKS: Final = 100
"""Clients take "no data" for a young tick to mean an empty one."""


@dataclass(frozen=True)
class Rules:
    """What this network does with ticks."""

    tick_duration_ms: int = 500
    min_offset: int = 3
    """A transaction for a tick nearer than this is lost (on the real network: often)."""
    max_offset: int = 31
    keep_ticks: int = 1_000
    """Past ticks that stay readable (real nodes: about 100)."""
    epoch_ticks: int = 0
    """An epoch ends by itself after so many ticks; 0 = only when told."""
    lost_ticks: int = 0
    """In so many first ticks of an epoch no transaction runs."""
    silence_ms: int = 0
    """How long nobody answers once an epoch has begun."""

    def __post_init__(self) -> None:
        for name in ("epoch_ticks", "lost_ticks", "silence_ms"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} cannot be below zero")
        if not 1 <= self.tick_duration_ms < 1 << 16:
            raise UsageError(f"a tick lasts 1 to 65535 ms, not {self.tick_duration_ms}")
        if self.keep_ticks < LEAST_KEPT_TICKS:
            raise UsageError(f"a node keeps at least {LEAST_KEPT_TICKS} past ticks, not {self.keep_ticks}")


class Drop(enum.StrEnum):
    """Why a transaction was dropped."""

    MALFORMED = "malformed"
    SIGNATURE = "signature"
    BALANCE = "balance"
    TOO_NEAR = "too_near"
    TOO_FAR = "too_far"
    REPEATED = "repeated"
    TICK_FULL = "tick_full"


class Engine:
    """All state of one devnet. Synchronous; whoever owns it decides when a tick passes."""

    def __init__(self, host: Host, rules: Rules | None = None) -> None:
        self.host = host
        self.rules = rules or Rules()
        self.dropped: Counter[Drop] = Counter()
        self._tick = self._initial_tick = Tick(host.tick)
        self.first_tick = self._tick
        self.silent = False
        """Set around an epoch change by whoever makes the ticks; servers then answer nothing."""
        self._epoch_ends = False
        # Tick -> digest -> raw transaction, in slot order: those waiting, then those that were in it.
        self._waiting: dict[Tick, dict[bytes, bytes]] = {}
        self._past: dict[Tick, dict[bytes, bytes]] = {}
        host.begin_tick(self._tick)

    def tick_info(self) -> TickInfo:
        return TickInfo(self._tick, self.host.epoch, self._initial_tick, self.rules.tick_duration_ms)

    def submit(self, raw: bytes) -> Drop | None:
        """Queue a transaction for its tick; otherwise say (to this process only) why it is dropped."""
        drop = self._reason_to_drop(raw)
        if drop is not None:
            self.dropped[drop] += 1
        return drop

    def _reason_to_drop(self, raw: bytes) -> Drop | None:
        try:
            transaction = parse_transaction(raw)
        except MessageInvalid:
            return Drop.MALFORMED
        offset = transaction.tick - self._tick
        if offset < self.rules.min_offset:
            return Drop.TOO_NEAR
        if offset > self.rules.max_offset:
            return Drop.TOO_FAR
        queue = self._waiting.setdefault(transaction.tick, {})
        digest = transaction_digest(raw)
        if digest in queue:
            return Drop.REPEATED
        if len(queue) >= SLOTS:
            return Drop.TICK_FULL
        if self.host.balance(transaction.source) <= 0:
            return Drop.BALANCE
        if not signature_valid(raw):
            return Drop.SIGNATURE
        queue[digest] = raw
        return None

    def advance(self) -> None:
        """Run the current tick with its transactions and begin the next."""
        tick, included = self._tick, self._waiting.pop(self._tick, {})
        for raw in included.values():
            self._apply(parse_transaction(raw))
        self.host.end_tick()
        self._past[tick] = included
        self._past.pop(Tick(tick - self.rules.keep_ticks), None)
        self._tick = Tick(tick + 1)
        if self._epoch_ends or self._tick - self._initial_tick == self.rules.epoch_ticks:
            self._begin_epoch()
        # At once, so that read functions see the tick being made, as on a node.
        self.host.begin_tick(self._tick)

    def _begin_epoch(self) -> None:
        self.host.change_epoch()
        self._epoch_ends, self._initial_tick = False, self._tick
        for offset in range(self.rules.lost_ticks):
            self._waiting.pop(Tick(self._tick + offset), None)

    def _apply(self, transaction: Transaction) -> None:
        self.host.apply(
            transaction.source,
            transaction.destination,
            transaction.amount,
            transaction.input_type,
            transaction.payload,
        )

    def end_epoch(self) -> None:
        """Let the epoch end with the current tick; ticks go on counting."""
        self._epoch_ends = True

    def balance(self, owner: QubicId) -> Qu:
        return Qu(self.host.balance(owner))

    def entity(self, owner: QubicId) -> EntityRecord | None:
        """None: this account never sent or received anything."""
        known = self.host.entity(owner)
        return None if known is None else EntityRecord(*astuple(known))

    def fill_up(self, owner: QubicId, to: Qu) -> Qu:
        """Give an account so much that it has `to`, or nothing if it has; its balance."""
        if (missing := to - self.host.balance(owner)) > 0:
            self.host.credit(owner, missing)
        return Qu(self.host.balance(owner))

    def past(self, tick: Tick) -> dict[bytes, bytes] | None:
        """Digest -> raw transaction of a past tick, in slot order; None if it is not past or too old."""
        return self._past.get(tick)

    def outcome(self, digest: bytes, tick: Tick) -> Outcome:
        if tick >= self._tick:
            return Outcome.PENDING
        included = self._past.get(tick)
        if included is None:
            return Outcome.UNKNOWN
        return Outcome.INCLUDED if digest in included else Outcome.MISSED
