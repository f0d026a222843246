"""What the small world of the lease tests is made of: terms, a plan, an escrow, a job, two sides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from protocol import lease_model as m
from protocol.lease_model import Effect, Event
from protocol.lease_state import Lease, Role
from protocol.messages import Terms, Wish, decode
from protocol.units import EscrowId, LeaseId, PeerKey, Qu, QubicId, Seconds, UnixMs, amount_due

START_MS: Final = 1_700_000_000_000
STEP_MS: Final = 500
TICK_MS: Final = 1_000
OPEN_TICKS: Final = 3
ESCROW: Final = EscrowId(b"e" * 32)
LEASE: Final = LeaseId(b"l" * 32)


def make_terms(**changes: Any) -> Terms:
    values: dict[str, Any] = {
        "nonce": bytes(32),
        "network": "test",
        "contract_index": 1,
        "provider": PeerKey(b"p" * 32),
        "provider_id": QubicId(b"P" * 32),
        "caller": PeerKey(b"c" * 32),
        "caller_id": QubicId(b"C" * 32),
        "wish": Wish("", 0, 0, 1_000, 1_024, 1_024),
        "gpu_digests": (),
        "image": "python:3.12",
        "runner": "docker",
        "order_sha256": bytes(32),
        "meter": "seconds",
        "price_qu_per_hour": Qu(3_600_000),
        "max_seconds": Seconds(60),
        "interval_seconds": Seconds(5),
        "unpaid_intervals": 2,
        "deadline_ticks": 3_000,
        "challenge_ticks": 30,
        "pull_seconds": Seconds(60),
        "start_seconds": Seconds(30),
        "ready_seconds": Seconds(45),
        "quoted_at": UnixMs(START_MS),
        "valid_until": UnixMs(START_MS + 60_000),
    }
    values |= changes
    due = amount_due(values["price_qu_per_hour"], values["max_seconds"])
    capped = min(due, values.get("budget") or due)
    return Terms(**{"deposit": Qu(max(1, capped)), **values})


@dataclass(frozen=True)
class Plan:
    """How this world behaves where it is not being broken."""

    terms: Terms
    delays_ms: tuple[int, ...] = (100,)
    """Of one message after the other, in a circle; each way."""
    job_ms: int = 20_000
    exit_code: int = 0
    pull_ms: int = 2_000
    start_ms: int = 1_000
    stop_ms: int = 1_000
    collect_ms: int = 500
    upload_ms: int = 1_000
    ready_ms: int = 0
    """After it was let go; of a job that need not get ready, 0."""
    proof_ms: int = 20_000
    restart: str = "never"
    restarts: int = 0
    skew_ms: int = 0
    """How far the provider's clock is ahead of the caller's."""
    refuses: bool = False
    pull_fails: bool = False
    start_fails: bool = False
    proof_fails: bool = False
    dies_early: bool = False
    """Before it is ready."""
    open_fails: bool = False


@dataclass
class Escrow:
    """The contract's channel."""

    deposit: Qu
    opened_at: int
    deadline: int
    close_tick: int = 0
    paid: Qu = Qu(0)
    refunded: Qu = Qu(0)
    gone: bool = False

    def last_tick(self) -> int:
        return self.close_tick or self.deadline

    def run(self, tick: int, orders: list[Qu | None], challenge_ticks: int) -> None:
        """One tick: the provider's closes (a cumulative amount), the caller's requests (None), the clock."""
        for order in orders:
            if order is None:
                self.close_tick = self.close_tick or min(tick + challenge_ticks, self.deadline)
            else:
                self.settle(order if tick < self.last_tick() else Qu(0))
        if tick >= self.last_tick():
            self.settle(Qu(0))

    def top_up(self, tick: int, before: Qu, deposit: Qu, deadline: int) -> None:
        """A transaction that brings the difference. One that comes late or again finds another deposit."""
        if not self.gone and not self.close_tick and tick < self.deadline and self.deposit == before:
            assert deadline >= self.deadline
            self.deposit, self.deadline = deposit, deadline

    def settle(self, cumulative: Qu) -> None:
        if self.gone:
            return
        self.paid = max(self.paid, cumulative)
        self.refunded, self.gone = Qu(self.deposit - self.paid), True


@dataclass
class Job:
    """The engine's container."""

    started_at: int
    """Real time, as all here."""
    left_ms: int
    released_at: int = 0
    ready_at: int = 0
    active_ms: int = 0
    """Since it is ready, for as long as the machine was the job's: also frozen, and between two runs."""
    paused: bool = False
    nonces: list[bytes] = field(default_factory=list)
    ended_at: int = 0
    killed: bool = False
    lost: bool = False


@dataclass
class Doing:
    """The effect at the head of a lane, begun and done at some later time."""

    seq: int
    effect: Effect
    began_at: int
    ready_at: int


@dataclass
class Side:
    role: Role
    skew_ms: int
    lease: Lease | None = None
    outbox: dict[int, Effect] = field(default_factory=dict)
    next_seq: int = 0
    doing: dict[str, Doing] = field(default_factory=dict)
    up: bool = True
    down_until: int = 0
    chain_down_until: int = 0
    was_down: bool = False
    crash_next: bool = False
    """Die after the next effect, before it is marked as done."""


def event_of(effect: Effect, now: UnixMs, sent_at: int) -> Event:
    """What a message means where it arrives, at `now` by that clock; sent at `sent_at` by the provider's."""
    match effect:
        case m.SendInputs():
            return m.ReceiveInputs(now)
        case m.SendFunded(escrow_id, open_tick):
            return m.ReceiveFunded(escrow_id, open_tick, now)
        case m.SendPrepared():
            return m.ReceivePrepared(now)
        case m.SendGo():
            return m.ReceiveGo(now)
        case m.SendPause(sequence):
            return m.ReceivePause(sequence, now)
        case m.SendResume(sequence):
            return m.ReceiveResume(sequence, now)
        case m.SendRestart(nonce):
            return m.ReceiveRestart(nonce, now)
        case m.SendRunning(started_at):
            return m.ReceiveRunning(max(0, sent_at - started_at), now)
        case m.SendMeter(seconds):
            return m.ReceiveMeter(seconds, now)
        case m.SendVoucher(_, cumulative):
            return m.ReceiveVoucher(cumulative, b"signature of %d" % cumulative, now)
        case m.SendExtended(signed):
            return m.ReceiveExtended(decode(signed), now)
        case m.SendStop(reason):
            return m.ReceiveStop(reason, now)
        case m.SendExited(code, reason, sentence, seconds, sha256, size):
            return m.ReceiveExited(code, reason, sentence, seconds, sha256, size, now)
        case _:
            raise AssertionError(effect)
