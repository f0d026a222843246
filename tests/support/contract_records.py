"""What the model of the escrow contract remembers, and what it is asked for: names, amounts and ticks."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Channel:
    caller: str
    provider: str
    deposit: int
    deadline: int
    challenge: int
    burn: int
    paid: int = 0
    close_tick: int = 0

    @property
    def last_tick(self) -> int:
        return self.close_tick or self.deadline


@dataclass
class Provider:
    stake: int
    since: int
    exit_epoch: int = 0
    volume: int = 0
    completed: int = 0
    disputed: int = 0
    failed: int = 0
    stars: list[int] = field(default_factory=list)


@dataclass
class Ticket:
    amount: int
    epoch: int
    rated: bool = False
    disputed: bool = False


@dataclass
class Case:
    caller: str
    provider: str
    until: int
    verdicts: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Span:
    """A receipt: who signed it, for which lease, and when."""

    escrow: bytes
    start: int
    end: int
    signer: str


@dataclass(frozen=True)
class Wish:
    """One lease as OpenMany is asked for it; ticks count from now."""

    escrow: bytes
    provider: str
    deposit: int
    deadline: int
    challenge: int
    burn: int
