"""The trust part of a node, put together: standing, receipts, scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import trio

from escrow_bridge.chain import Chain
from escrow_bridge.qubic import Wallet
from ledger.store import Store
from protocol.lease_state import Lease
from protocol.score import NEWCOMER, Score
from protocol.signing import NodeKey
from protocol.units import PeerKey
from qubixd.book import OfferBook
from qubixd.config import Config
from qubixd.leases import Clock, Leases
from qubixd.proofs import Prover
from qubixd.receipt_door import Market
from qubixd.receipt_shelf import ReceiptShelf
from qubixd.receipts import Receipts
from qubixd.standing import Standings
from qubixd.wire import Wire
from qubixd.words import Places, Words


@dataclass(frozen=True)
class Trust:
    wire: Wire
    standing: Standings
    receipts: Receipts
    words: Words
    shelf: ReceiptShelf

    @classmethod
    def build(
        cls,
        config: Config,
        *,
        wire: Wire,
        key: NodeKey,
        wallet: Wallet,
        store: Store,
        chain: Chain,
        now_ms: Clock,
        leases: Leases,
        book: OfferBook,
        directories: Places,
        addresses_of: Callable[[Lease], Sequence[str]],
    ) -> Self:
        market = Market(config.network, config.contract_index)
        standing = Standings(store)

        def offer_of(provider: PeerKey) -> bytes | None:
            entry = book.get(provider, now_ms())
            return entry.raw if entry else None

        def measured(provider: PeerKey, result: Score) -> None:
            book.measure(provider, score=result.g, reliability=result.reliability)
            if result.confidence > NEWCOMER.confidence:  # somebody paid it: no flood drives it out
                book.keep([provider])

        leases.on_change.append(lambda lease: book.keep([lease.terms.provider]))

        receipts = Receipts(
            wire=wire,
            key=key,
            store=store,
            prover=Prover(chain, config.contract_index),
            market=market,
            now_ms=now_ms,
            directories=directories,
            offer_of=offer_of,
            qu_per_credit=config.qu_per_credit,
            measured=measured,
        )
        words = Words(
            wire=wire,
            key=key,
            wallet=wallet,
            store=store,
            leases=leases,
            standings=standing,
            now_ms=now_ms,
            directories=directories,
            addresses_of=addresses_of,
            changed=receipts.forget,
        )
        shelf = ReceiptShelf(
            key=key,
            store=store,
            market=market,
            now_ms=now_ms,
            keeps_for_others=config.directory,
            changed=receipts.forget,
        )
        return cls(wire, standing, receipts, words, shelf)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. To be started before leases change for the first time. DiskFull."""
        await self.standing.load()
        self.shelf.open(self.wire)
        async with trio.open_nursery() as nursery:
            if self.shelf.keeps_for_others:
                nursery.start_soon(self.receipts.prove_arrivals)
            await self.words.run(task_status)
