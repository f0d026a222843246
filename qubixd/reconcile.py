"""Chain against ledger: every lease that has or may have an escrow, at start and on a timer.

`judge` is pure and names each difference; the Reconciler reads, asks it, repairs what an event can repair
and keeps the rest in sight until it is gone. docs/money.md explains the codes.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import Final

import trio

from escrow_bridge.bridge import Bridge
from escrow_bridge.escrow import Settled
from escrow_bridge.layout import EscrowView
from ledger import journal, transactions
from ledger.store import Store
from protocol import lease_model as m
from protocol.errors import QubixError
from protocol.lease_model import Event
from protocol.lease_state import TERMINAL, Lease, Phase, Role, locked
from protocol.units import LeaseId, Qu, UnixMs
from qubixd.escrows import open_order, seen_by
from qubixd.leases import Clock, Leases, decode_state

log = logging.getLogger("qubix.reconcile")

PERIOD_S: Final = 60.0
CONFIRM_S: Final = 3.0
"""Between two looks, one side may just not have heard of it yet."""
LOOK_BACK_MS: Final = 24 * 3_600_000
"""How long ago a lease may have ended to be looked at when a node starts."""

UNKNOWN: Final = "escrow.unknown"
GONE: Final = "escrow.gone"
STILL_OPEN: Final = "escrow.still_open"
DIFFERS: Final = "escrow.differs"
CLOSING: Final = "close.unnoticed"
ABOVE_PROMISE: Final = "paid.above_promise"
PAID_DIFFERS: Final = "paid.differs"
CODES: Final = (UNKNOWN, GONE, STILL_OPEN, DIFFERS, CLOSING, ABOVE_PROMISE, PAID_DIFFERS)


@dataclass(frozen=True)
class OnChain:
    """What the contract and the ticks say about one lease."""

    view: EscrowView | None
    """The open channel: the lease's own, or one that a saved attempt has opened."""
    ended: Settled | None
    """How a channel that is gone ended; None if it is open, never was or can no longer be read."""


@dataclass(frozen=True)
class Difference:
    lease_id: LeaseId
    code: str
    sentence: str
    drift: Qu
    """By how much the two disagree about money, in QU."""
    repair: Event | None = None
    """What makes the ledger say what the chain says; None: a person has to look at it."""


def judge(lease: Lease, chain: OnChain, now: UnixMs) -> list[Difference]:
    """Every difference between a lease in the ledger and the chain. Empty if they agree."""

    def differs(code: str, sentence: str, drift: int = 0, repair: Event | None = None) -> Difference:
        return Difference(lease.lease_id, code, sentence, Qu(abs(drift)), repair)

    view = chain.view
    if not lease.escrow_id:
        return [_unknown(lease, view, now)] if view else []
    if view is None:
        return _gone(lease, chain.ended, now)
    if lease.settled or lease.phase in TERMINAL:
        sentence = f"the lease has ended, its escrow is open with {view.deposit - view.paid} QU in it"
        return [differs(STILL_OPEN, sentence, view.deposit - view.paid)]
    found = []
    if (view.deposit, view.deadline_tick) != (locked(lease), lease.deadline_tick):
        found.append(_held_differently(lease, view, now))
    if view.paid > lease.promised:
        found.append(_above_promise(lease, view.paid))
    if view.close_tick and not _knows_of_closing(lease):
        repair = m.ChainClosing(now) if lease.role is Role.PROVIDER else None
        found.append(differs(CLOSING, f"the escrow is being closed until tick {view.close_tick}", 0, repair))
    return found


def _unknown(lease: Lease, view: EscrowView, now: UnixMs) -> Difference:
    sentence = (
        f"escrow {view.escrow_id.hex()[:12]} with {view.deposit} QU was opened for this lease and the ledger "
        f"does not know it; it expires at tick {view.deadline_tick}"
    )
    opened = m.ChainOpened(view.escrow_id, view.open_tick, view.deadline_tick, now)
    repair = opened if lease.phase is Phase.FUNDING else None
    return Difference(lease.lease_id, UNKNOWN, sentence, view.deposit, repair)


def _held_differently(lease: Lease, view: EscrowView, now: UnixMs) -> Difference:
    """More is a top-up that the ledger has not heard of yet."""
    held = locked(lease)
    sentence = (
        f"the escrow holds {view.deposit} QU until tick {view.deadline_tick}, the ledger says "
        f"{held} QU until tick {lease.deadline_tick}"
    )
    more = view.deposit > held and view.deadline_tick >= lease.deadline_tick
    repair = m.ChainToppedUp(view.deposit, view.deadline_tick, now) if more else None
    return Difference(lease.lease_id, DIFFERS, sentence, Qu(abs(view.deposit - held)), repair)


def _gone(lease: Lease, ended: Settled | None, now: UnixMs) -> list[Difference]:
    known = lease.paid if lease.settled else lease.promised
    if lease.settled:
        if ended is None or ended.paid == lease.paid:
            return []
        sentence = f"the chain shows {ended.paid} QU paid, the ledger says {lease.paid} QU"
        return [Difference(lease.lease_id, PAID_DIFFERS, sentence, Qu(abs(ended.paid - lease.paid)))]
    if lease.phase in TERMINAL:
        return []
    # Nobody can tell any more how it ended: the worst is written down.
    end = ended or Settled(known, Qu(locked(lease) - known), certain=False)
    how = f"{end.paid} QU of it paid" if ended else "how cannot be read any more"
    closed = m.ChainClosed(end.paid, end.refunded, now)
    gone = Difference(
        lease.lease_id, GONE, f"the escrow has been closed, {how}", Qu(abs(end.paid - known)), closed
    )
    return [gone, _above_promise(lease, end.paid)] if end.paid > lease.promised else [gone]


def _above_promise(lease: Lease, paid: Qu) -> Difference:
    signer = "this node knows to have signed" if lease.role is Role.CALLER else "the vouchers kept here say"
    sentence = (
        f"the contract has paid {paid} QU, {signer} {lease.promised} QU: the ledger is older than what was "
        "done, or the wallet is used elsewhere"
    )
    return Difference(lease.lease_id, ABOVE_PROMISE, sentence, Qu(paid - lease.promised))


def _knows_of_closing(lease: Lease) -> bool:
    return lease.closing or (lease.role is Role.PROVIDER and lease.phase is Phase.SETTLING)


class Reconciler:
    """Looks at all leases again and again. `standing` are the differences nobody has repaired."""

    def __init__(self, leases: Leases, store: Store, bridge: Bridge, now_ms: Clock) -> None:
        self._leases = leases
        self._store = store
        self._bridge = bridge
        self._now_ms = now_ms
        self._seen_ended: set[LeaseId] = set()
        self.standing: dict[LeaseId, list[Difference]] = {}
        self.totals: Counter[str] = Counter()

    @property
    def counters(self) -> dict[str, int]:
        """Rising totals, and what stands now: how many differences, about how much money."""
        standing = [one for found in self.standing.values() for one in found]
        return dict(self.totals) | {
            "reconcile.standing": len(standing),
            "reconcile.drift_qu": sum(one.drift for one in standing),
        }

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. The first look is at what the ledger said when this began."""
        at_start = await self._to_look_at()
        task_status.started()
        for lease in at_start:
            await self._look(lease, confirm=False)
        while True:
            self.totals["reconcile.rounds"] += 1
            await trio.sleep(PERIOD_S)
            for lease in await self._to_look_at():
                await self._look(lease, confirm=True)

    async def _to_look_at(self) -> list[Lease]:
        """The active leases, those that have ended since the last look, and where something stands."""
        ended = []
        for row in await journal.leases(self._store, TERMINAL):
            lease = decode_state(row.state)
            young = self._now_ms() - lease.ended_at < LOOK_BACK_MS
            if (young and lease.lease_id not in self._seen_ended) or lease.lease_id in self.standing:
                ended.append(lease)
        return [*self._leases.active(), *ended]

    async def _look(self, lease: Lease, *, confirm: bool) -> None:
        """Until the chain answers: a lease that was not compared is not known to be right."""
        while True:
            try:
                await self._compare(lease, confirm=confirm)
            except QubixError as error:
                log.debug("lease %s not compared: %s", lease.lease_id.hex()[:12], error)
                await trio.sleep(CONFIRM_S)
            else:
                return

    async def _compare(self, lease: Lease, *, confirm: bool) -> None:
        chain = await self._on_chain(lease)
        found = judge(lease, chain, self._now_ms())
        if found and confirm:
            await trio.sleep(CONFIRM_S)
            lease = await self._leases.get(lease.lease_id)
            found = judge(lease, await self._on_chain(lease), self._now_ms())
        elif any(one.repair for one in found):
            # Told is what the ledger said at start, repaired what it says by now.
            fresh = judge(await self._leases.get(lease.lease_id), chain, self._now_ms())
            repairs = [one for one in fresh if one.repair]
            found = [one for one in found if not one.repair] + repairs
        if lease.phase in TERMINAL:
            self._seen_ended.add(lease.lease_id)
        before = {one.code for one in self.standing.pop(lease.lease_id, ())}
        left = [one for one in found if not await self._repaired(one, known=one.code in before)]
        if left:
            self.standing[lease.lease_id] = left

    async def _repaired(self, one: Difference, *, known: bool) -> bool:
        short = one.lease_id.hex()[:12]
        if not known:
            self.totals[f"reconcile.{one.code}"] += 1
        if one.repair is not None:
            await self._leases.feed(one.lease_id, one.repair)
            log.info("lease %s: %s; repaired [%s]", short, one.sentence, one.code)
            self.totals["reconcile.repaired"] += 1
            return True
        if not known:
            log.warning("lease %s: %s [%s]", short, one.sentence, one.code)
        return False

    async def _on_chain(self, lease: Lease) -> OnChain:
        if not lease.escrow_id:
            return OnChain(await self._opened_unknown(lease), None)
        view = await self._bridge.reader.read(lease.escrow_id, opened=lease.open_tick)
        ended = None if view else await self._bridge.reader.how_it_ended(seen_by(lease))
        return OnChain(view, ended)

    async def _opened_unknown(self, lease: Lease) -> EscrowView | None:
        """A channel that one of our signed transactions has opened for this lease."""
        if lease.role is not Role.CALLER:
            return None
        signed = await transactions.about(self._store, lease.lease_id)
        ticks = [one.tick for one in signed if one.action == "open"]
        return await self._bridge.opened_in(open_order(lease), ticks)
