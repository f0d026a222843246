"""The Chain: what the bridge needs from a Qubic network, whoever provides it.

Implementations raise ChainUnreachable for trouble on the way, ChainDisagrees when several nodes are
asked and no two say the same, and nothing else. Everything that comes back has been checked by size and
type. docs/chains.md says who is believed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol

from protocol.units import Qu, QubicId, Tick


@dataclass(frozen=True)
class TickInfo:
    tick: Tick
    """The tick being made now; transactions for ticks up to and including it may be too late."""
    epoch: int
    initial_tick: Tick
    """First tick of this epoch."""
    tick_duration_ms: int


@dataclass(frozen=True)
class Balance:
    amount: Qu
    as_of: Tick


class Outcome(enum.Enum):
    """Where a transaction stands."""

    PENDING = "pending"
    """Its tick is not past yet, or its data is not there yet."""
    INCLUDED = "included"
    """It is in its tick. That does not say that it succeeded: read the contract."""
    MISSED = "missed"
    """Its tick passed without it: it will never execute."""
    UNKNOWN = "unknown"
    """Its tick is too old for this node to say."""


class Chain(Protocol):
    @property
    def name(self) -> str:
        """For sentences: "tick 7 is the newest at NAME"."""
        ...

    async def tick_info(self) -> TickInfo: ...

    async def balance(self, owner: QubicId) -> Balance: ...

    async def broadcast(self, transaction: bytes) -> None:
        """Hand a signed transaction to the network. Nothing is acknowledged; see `outcome`."""
        ...

    async def outcome(self, transaction: bytes) -> Outcome:
        """What became of a whole signed transaction, in the tick that it names."""
        ...

    async def query(
        self, contract_index: int, input_type: int, payload: bytes, *, tick_at: int | None = None
    ) -> bytes:
        """Call a contract's read function. An empty answer means that it failed there.

        `tick_at`: where in the answer the u32 of the tick lies in which it was given, if it has one:
        answers of different nodes then count as the same although they were given in different ticks.
        """
        ...

    async def transactions(self, tick: Tick) -> tuple[bytes, ...] | None:
        """The raw transactions of a past tick, in the order in which they ran; None if it is too old
        (or too young) for this node to say. Included does not mean executed. Raises ChainUnreachable while
        the chain is known to be past it and only this source is not."""
        ...
