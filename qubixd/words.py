"""What this node says of its own leases when they are over: receipts as a caller, settlements as a provider.

Everything follows from the journal and the list of signed transactions, and the same lease gives the same
bytes; a row in the ledger says that a lease has been spoken of. So a node killed at any instant says
everything once. What was said is carried to the other side and to the directories in use, for a day.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from escrow_bridge import layout
from escrow_bridge.qubic import Wallet
from ledger import receipts, transactions
from ledger.receipts import ReceiptRow, SettlementRow, Word
from ledger.store import Store
from protocol import signing
from protocol.errors import CapacityTaken, PeerRefused, QubixError
from protocol.faults import Outcome, outcome_of
from protocol.lease_state import TERMINAL, Lease, Role
from protocol.messages import MAX_RECEIPT_BYTES, Receipt, Settlement
from protocol.signing import NodeKey
from protocol.units import LeaseId, PeerKey, Tick
from qubixd.leases import Clock, Leases, decode_state
from qubixd.standing import Standings
from qubixd.talk import ask
from qubixd.wire import Wire

log = logging.getLogger("qubix.receipts")

RECEIPTS_PROTOCOL: Final = "/qubix/receipts/1"
GIVE_UP_MS: Final = 24 * 3_600_000
FIRST_ROUND_S: Final = 5.0
LONGEST_ROUND_S: Final = 300.0
MAX_AT_ONCE: Final = 8

Places = Callable[[], Sequence[tuple[PeerKey, Sequence[str]]]]
"""The directories in use at this moment, with their addresses."""


@dataclass(frozen=True)
class Saying:
    """What is to be written down about one ended lease."""

    word: Word
    receipt: ReceiptRow | None = None
    settlement: SettlementRow | None = None


class Words:
    """Speaks of every ended lease once, and carries it to those whom it concerns."""

    def __init__(
        self,
        *,
        wire: Wire,
        key: NodeKey,
        wallet: Wallet,
        store: Store,
        leases: Leases,
        standings: Standings,
        now_ms: Clock,
        directories: Places,
        addresses_of: Callable[[Lease], Sequence[str]],
        changed: Callable[[PeerKey], None],
    ) -> None:
        """`changed`: is told about whom something new is known."""
        self._wire = wire
        self._key = key
        self._wallet = wallet
        self._store = store
        self._leases = leases
        self._standings = standings
        self._now_ms = now_ms
        self._directories = directories
        self._addresses_of = addresses_of
        self._tell_of = changed
        self._ended: list[Lease] = []
        self._wake = trio.Event()
        self._done: set[tuple[bytes, PeerKey]] = set()
        """(lease, peer): has taken our word. Lost at a restart: telling again does no harm."""

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Begins with what had ended before this node was last stopped. DiskFull."""
        self._leases.on_change.append(self._changed)
        for row in await receipts.unspoken(self._store, TERMINAL):
            await self._speak(decode_state(row.state))
        task_status.started()
        wait_s = FIRST_ROUND_S
        while True:
            self._wake = trio.Event()
            while self._ended:
                await self._speak(self._ended.pop(0))
            left = await self._deliver()
            wait_s = min(LONGEST_ROUND_S, 2 * wait_s) if left else LONGEST_ROUND_S
            with trio.move_on_after(wait_s):
                await self._wake.wait()
                wait_s = FIRST_ROUND_S

    def _changed(self, lease: Lease) -> None:
        if lease.phase in TERMINAL:
            self._ended.append(lease)
            self._wake.set()

    # --- speaking -----------------------------------------------------------------------------

    async def _speak(self, lease: Lease) -> None:
        now = self._now_ms()
        saying = self._receipt(lease) if lease.role is Role.CALLER else await self._settlement(lease)
        standing = None
        if lease.role is Role.CALLER:
            provider, standings = lease.terms.provider, self._standings
            standing = standings.after_failure(provider, reason_of(lease), now)
            if standing is None and lease.started_at:
                standing = standings.after_success(provider)
        spoken = await receipts.speak(
            self._store,
            saying.word,
            now,
            receipt=saying.receipt,
            settlement=saying.settlement,
            standing=standing,
        )
        if spoken and standing is not None:
            self._standings.took(standing)
        self._tell_of(lease.terms.provider)

    def _receipt(self, lease: Lease) -> Saying:
        """Nothing is said of a lease that locked no money, nor of one from before receipts were known."""
        nothing = Saying(Word(lease.lease_id, b""))
        if not lease.escrow_id or not lease.signed_terms:
            return nothing
        receipt = receipt_of(lease, self._wallet)
        raw = self._key.sign(receipt)
        if len(raw) > MAX_RECEIPT_BYTES:
            log.warning("lease %s: its terms are too long for a receipt", lease.lease_id.hex()[:12])
            return nothing
        row = ReceiptRow(
            lease.lease_id,
            lease.terms.provider,
            raw,
            receipt.outcome == Outcome.FAILED,
            receipt.cumulative,
            lease.ended_at,
            self._key.public,
            self._now_ms(),
        )
        return Saying(Word(lease.lease_id, raw), receipt=row)

    async def _settlement(self, lease: Lease) -> Saying:
        """Nothing is said where nothing was paid, or by transactions that are not ours."""
        signed = await transactions.about(self._store, lease.lease_id)
        ours = [one for one in signed if one.action in ("close", "redeem")]
        if not ours or not lease.paid:
            return Saying(Word(lease.lease_id, b""))
        last = max(ours, key=lambda one: (one.tick, one.at_ms))
        raw = self._key.sign(Settlement(lease.lease_id, Tick(last.tick), last.digest))
        row = SettlementRow(lease.lease_id, self._key.public, raw, self._key.public, self._now_ms())
        return Saying(Word(lease.lease_id, raw), settlement=row)

    # --- carrying -----------------------------------------------------------------------------

    async def _deliver(self) -> bool:
        """One round to everybody who has not taken our word yet; whether somebody is left."""
        waiting = await receipts.undelivered(self._store, self._now_ms() - GIVE_UP_MS)
        by_peer: dict[PeerKey, list[Word]] = {}
        wanted: dict[bytes, set[PeerKey]] = {}
        addresses: dict[PeerKey, Sequence[str]] = {}
        for word in waiting:
            for peer, where in await self._concerned(word):
                wanted.setdefault(word.lease_id, set()).add(peer)
                addresses[peer] = where
                if (word.lease_id, peer) not in self._done:
                    by_peer.setdefault(peer, []).append(word)
        places = trio.CapacityLimiter(MAX_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for peer, words in by_peer.items():
                nursery.start_soon(self._tell, peer, words, addresses[peer], places)
        return await self._note_delivered(wanted)

    async def _concerned(self, word: Word) -> list[tuple[PeerKey, Sequence[str]]]:
        lease = await self._leases.get(LeaseId(word.lease_id))
        other = lease.terms.provider if lease.role is Role.CALLER else lease.terms.caller
        places = [
            (peer, where) for peer, where in self._directories() if peer not in (other, self._key.public)
        ]
        return [(other, self._addresses_of(lease)), *places]

    async def _tell(
        self, peer: PeerKey, words: Sequence[Word], addresses: Sequence[str], places: trio.CapacityLimiter
    ) -> None:
        """Everything to one peer, until it cannot be reached or has no place now. Any other refusal is an
        answer."""
        async with places:
            for word in words:
                message = signing.opened(word.record).message
                try:
                    await ask(self._wire, self._key, peer, message, addresses, RECEIPTS_PROTOCOL)
                except PeerRefused as error:
                    log.info("%s did not take our word: %s", peer.hex()[:16], error)
                    if error.refusal_code == CapacityTaken.code:
                        return
                except (QubixError, trio.BrokenResourceError) as error:
                    log.debug("our word waits for %s: %s", peer.hex()[:16], error)
                    return
                self._done.add((word.lease_id, peer))

    async def _note_delivered(self, wanted: dict[bytes, set[PeerKey]]) -> bool:
        left = False
        for lease_id, peers in wanted.items():
            if any((lease_id, peer) not in self._done for peer in peers):
                left = True
                continue
            await receipts.delivered(self._store, lease_id)
            self._done -= {(lease_id, peer) for peer in peers}
        return left


def reason_of(lease: Lease) -> str:
    """Why a caller's lease ended, as far as the provider is concerned. A job that could not start because
    this side never brought its files was given up by this side."""
    gave_up = lease.reason == "lease.start_timeout" and not lease.has_inputs
    return "lease.stopped_by_caller" if gave_up else lease.reason


def receipt_of(lease: Lease, wallet: Wallet) -> Receipt:
    """The caller's word on a lease that is over; always the same for the same lease."""
    digest = layout.voucher_digest(lease.escrow_id, lease.promised)
    ready_ms = max(1, lease.started_at - lease.funded_at) if lease.started_at else 0
    return Receipt(
        signed_terms=lease.signed_terms,
        escrow_id=lease.escrow_id,
        open_tick=lease.open_tick,
        outcome=outcome_of(reason_of(lease)),
        ready_ms=ready_ms,
        seconds=lease.seconds,
        cumulative=lease.promised,
        voucher=wallet.sign(digest) if lease.promised else b"",
        ended_at=lease.ended_at,
        extension=lease.extension,
    )
