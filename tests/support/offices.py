"""Nodes that deal in receipts and nothing else, on a net in memory.

async with Offices(town) as offices:
    library = await offices.open("library", keeps_for_others=True)
    judge = await offices.open("judge", directories=[library])
    score = await judge.score(provider)
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from ledger.store import Store, inline, open_store
from protocol.messages import Offer
from protocol.score import Score
from protocol.units import PeerKey, Qu, UnixMs
from qubixd.proofs import Prover
from qubixd.receipt_door import verify
from qubixd.receipt_shelf import ReceiptShelf
from qubixd.receipts import Receipts
from qubixd.talk import ask
from qubixd.wire import Wire
from qubixd.words import RECEIPTS_PROTOCOL
from tests.support.deals import offer
from tests.support.memory_wire import MemoryNet
from tests.support.receipt_deals import MARKET, Deal, Party, Town


@dataclass
class Office:
    """One node's receipts."""

    party: Party
    town: Town
    store: Store
    wire: Wire
    shelf: ReceiptShelf
    receipts: Receipts

    async def score(self, provider: Party) -> Score:
        """Made anew."""
        key = provider.key.public
        self.receipts.forget(key)
        return (await self.receipts.scores([key]))[key]

    async def tell(self, other: Office, party: Party, *envelopes: object) -> None:
        """Bring messages, signed by `party`, over the net; a refusal is raised."""
        for message in envelopes:
            await ask(self.wire, party.key, other.party.key.public, message, (), RECEIPTS_PROTOCOL)

    async def take(self, *deals: Deal) -> None:
        """As if both sides had brought their words."""
        for deal in deals:
            await self.shelf.take(verify(deal.receipt))
            await self.shelf.take(verify(deal.settlement))


class Offices:
    def __init__(self, town: Town) -> None:
        self.town = town
        self.net = MemoryNet(delay_seconds=0.01)
        self.offers: dict[PeerKey, bytes] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    def advertise(self, provider: Party, price: int = 1) -> None:
        """The provider's offer, at what the catalogue says its GPU is worth with 1 QU a credit."""
        made = offer_of(provider, price, self.town.now)
        self.offers[provider.key.public] = provider.key.sign(made)

    async def open(
        self, name: str, *, keeps_for_others: bool = False, directories: Sequence[Office] = ()
    ) -> Office:
        party = Party(name)
        store = await self._stack.enter_async_context(open_store(":memory:", inline))
        wire = await self._stack.enter_async_context(self.net.wire(party.key.public))

        def now() -> UnixMs:
            return self.town.now

        receipts = Receipts(
            wire=wire,
            key=party.key,
            store=store,
            prover=Prover(self.town.chain, MARKET.contract_index),
            market=MARKET,
            now_ms=now,
            directories=lambda: [(one.party.key.public, ()) for one in directories],
            offer_of=self.offers.get,
            qu_per_credit=1,
        )
        shelf = ReceiptShelf(
            key=party.key,
            store=store,
            market=MARKET,
            now_ms=now,
            keeps_for_others=keeps_for_others,
            changed=receipts.forget,
        )
        shelf.open(wire)
        return Office(party, self.town, store, wire, shelf, receipts)


def offer_of(provider: Party, price: int, now: UnixMs) -> Offer:
    wallet = provider.wallet.public_key
    return replace(offer(1, now), qubic_id=wallet, price_qu_per_hour=Qu(price), name=provider.name)
