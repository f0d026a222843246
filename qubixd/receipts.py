"""Scores of providers: the receipts they are made of are fetched and proven, then the score is made.

Everything is bounded: how many receipts of a provider count, how many are looked up on the chain for one
page, and how long a page waits for peers and chain.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import msgspec
import trio

from ledger import receipts
from ledger.receipts import FETCHED, ReceiptRow, SettlementRow
from ledger.store import Store
from protocol import messages, signing
from protocol.errors import MessageInvalid, QubixError
from protocol.messages import MAX_RECEIPT_BYTES, GetReceipts, Settlement
from protocol.score import LEAST_PAID, Counters, Proof, Score
from protocol.signing import NodeKey
from protocol.units import PeerKey, Qu, QubicId, UnixMs
from qubixd.evidence import (
    FORMAT,
    CountersEntry,
    EvidenceFile,
    Gist,
    Known,
    LeaseEntry,
    entry_of,
    gist_of,
    recompute,
    score_fields,
    score_from,
    wallet_of,
)
from qubixd.leases import Clock
from qubixd.proofs import Finding, Prover
from qubixd.receipt_door import Market, check_receipt, opened, verify
from qubixd.receipt_shelf import MAX_ANSWER, receipt_row, settlement_row
from qubixd.talk import send_signed
from qubixd.wire import Stream, Wire, receive_frame
from qubixd.wire_libp2p import peer_id_of
from qubixd.words import RECEIPTS_PROTOCOL, Places

log = logging.getLogger("qubix.receipts")

SCORE_LIFE_MS: Final = 60_000
FETCH_EVERY_MS: Final = 300_000
FEW: Final = 4
FEW_LIFE_MS: Final = 10_000
"""Whoever wants so few scores looks at them closely: they are made, and receipts fetched, that often."""
COUNTERS_LIFE_MS: Final = 600_000
LOOK_AGAIN_MS: Final = 3_600_000
"""After which a receipt is looked up again that the chain could not say anything about."""
FETCH_S: Final = 3.0
PROVE_S: Final = 3.0
"""How long a page of scores waits for peers and for the chain."""
FETCH_LIMIT: Final = 100
"""Receipts of one provider asked for and counted."""
PAGE_LIMIT: Final = 20
"""Receipts asked for of each provider of a page: a directory sends some 3 MB for 64 of them."""
PROOFS_EACH: Final = 4
PROOFS_IN_ALL: Final = 64
"""Receipts looked up on the chain for one page: each only once, so a provider's are all known in the end."""
ARRIVALS_EVERY_S: Final = 10.0
ARRIVALS_WAIT_MS: Final = 20_000
"""So long a receipt waits for the settlement that says where to look."""
AT_ONCE: Final = 4
MAX_CACHED: Final = 10_000
MAX_ASKED: Final = 64
"""Providers in one question, as GetReceipts has it."""
MAX_HEARD_OF: Final = 4 * MAX_ASKED
"""Providers of one page about whom others and the chain are asked; of the rest counts what is known here."""
K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True)
class _Known:
    """What was found out about one provider, and when."""

    result: Score
    at: UnixMs


class Receipts:
    """The service of one node."""

    def __init__(
        self,
        *,
        wire: Wire,
        key: NodeKey,
        store: Store,
        prover: Prover,
        market: Market,
        now_ms: Clock,
        directories: Places,
        offer_of: Callable[[PeerKey], bytes | None],
        qu_per_credit: int,
        measured: Callable[[PeerKey, Score], None] = lambda provider, result: None,
    ) -> None:
        """`offer_of`: a provider's newest signed offer; `measured`: is told every score."""
        self._wire = wire
        self._key = key
        self._store = store
        self._prover = prover
        self._market = market
        self._now_ms = now_ms
        self._directories = directories
        self._offer_of = offer_of
        self._qu_per_credit = qu_per_credit
        self._measured = measured
        self._scores: OrderedDict[PeerKey, _Known] = OrderedDict()
        self._fetched: OrderedDict[PeerKey, UnixMs] = OrderedDict()
        self._counters: OrderedDict[PeerKey, tuple[UnixMs, Counters | None]] = OrderedDict()
        self._gists: OrderedDict[bytes, Gist] = OrderedDict()
        self._chance = random.SystemRandom()
        """Which receipts are looked up must not be foreseen by those who made them."""

    def forget(self, provider: PeerKey) -> None:
        """Something new is known about it: its score is made anew when it is next wanted."""
        self._scores.pop(provider, None)

    # --- fetching -----------------------------------------------------------------------------

    async def _fetch(self, providers: Sequence[PeerKey]) -> None:
        """Ask the directories in use; the providers themselves where there are few, or no directories."""
        places = [(peer, where) for peer, where in self._directories() if peer != self._key.public]
        plan = [(peer, where, tuple(providers)) for peer, where in places]
        if not places or len(providers) <= FEW:
            plan += [(one, self._addresses(one), (one,)) for one in providers if one != self._key.public]
        limit = trio.CapacityLimiter(2 * AT_ONCE)
        async with trio.open_nursery() as nursery:
            for peer, where, about in plan:
                nursery.start_soon(self._fetch_from, peer, where, about, limit)

    async def _fetch_from(
        self, peer: PeerKey, addresses: Sequence[str], about: Sequence[PeerKey], limit: trio.CapacityLimiter
    ) -> None:
        async with limit:
            try:
                stream = await self._wire.open(peer, RECEIPTS_PROTOCOL, addresses)
                async with stream:
                    limit_each = FETCH_LIMIT if len(about) <= FEW else PAGE_LIMIT
                    await send_signed(stream, self._key.sign(GetReceipts(tuple(about), limit_each)))
                    await stream.send_eof()
                    await self._read(stream, frozenset(about))
            except (QubixError, trio.BrokenResourceError) as error:
                log.debug("no receipts from %s: %s", peer.hex()[:16], error)

    async def _read(self, stream: Stream, about: frozenset[PeerKey]) -> None:
        """Keep what is right of an answer; the first wrong record ends it: the rest is no better."""
        known = await self._records(about)
        found, settled = list[ReceiptRow](), list[SettlementRow]()
        try:
            for _ in range(2 * min(MAX_ANSWER, FETCH_LIMIT * len(about))):
                raw = await receive_frame(stream, MAX_RECEIPT_BYTES)
                if raw is None:
                    break
                if raw not in known:
                    self._sort(raw, about, found, settled)
        finally:
            if found or settled:
                with trio.CancelScope(shield=True):
                    await receipts.keep(self._store, self._key.public, found, settled)

    def _sort(
        self,
        raw: bytes,
        about: frozenset[PeerKey],
        found: list[ReceiptRow],
        settled: list[SettlementRow],
    ) -> None:
        signed, now = verify(raw), self._now_ms()
        if isinstance(signed.message, Settlement):
            _check_about(signed.signer, about)
            settled.append(settlement_row(signed, FETCHED, now))
        else:
            checked = check_receipt(signed, self._market, now)
            _check_about(checked.terms.provider, about)
            found.append(receipt_row(checked, FETCHED, now))

    async def _records(self, about: frozenset[PeerKey]) -> set[bytes]:
        """What is here already and need not be verified again."""
        rows = [row for one in about for row in await self._rows(one)]
        return {record for row, settlement in rows for record in (row.record, settlement)}

    async def _rows(self, provider: PeerKey) -> tuple[tuple[ReceiptRow, bytes], ...]:
        return await receipts.of_provider(self._store, provider, FETCH_LIMIT, self._key.public)

    # --- proving ------------------------------------------------------------------------------

    async def _prove(self, providers: Sequence[PeerKey]) -> None:
        """Look some receipts up on the chain, and the registered providers' counters."""
        left = [PROOFS_IN_ALL]
        limit = trio.CapacityLimiter(AT_ONCE)
        async with trio.open_nursery() as nursery:
            for provider in providers:
                nursery.start_soon(self._prove_one, provider, left, limit)

    async def _prove_one(self, provider: PeerKey, left: list[int], limit: trio.CapacityLimiter) -> None:
        async with limit:
            rows = await self._rows(provider)
            try:
                await self._count_on_chain(provider, rows)
                for row, settlement in self._sample(rows):
                    if left[0] > 0:
                        left[0] -= 1
                        await self._prove_receipt(row, settlement)
            except QubixError as error:
                log.debug("receipts of %s not looked up: %s", provider.hex()[:16], error)

    async def prove_arrivals(self) -> None:
        """For a directory, until cancelled: look up what was brought while its ticks can still be read. What
        the chain bears out is not driven out by floods of what it does not."""
        while True:
            await trio.sleep(ARRIVALS_EVERY_S)
            settled_by = self._now_ms() - ARRIVALS_WAIT_MS
            rows = await receipts.unchecked(self._store, settled_by, PROOFS_IN_ALL, self._key.public)
            try:
                for row, settlement in rows:
                    await self._prove_receipt(row, settlement)
            except QubixError as error:
                log.debug("arrivals not looked up: %s", error)

    def _sample(self, rows: Sequence[tuple[ReceiptRow, bytes]]) -> list[tuple[ReceiptRow, bytes]]:
        """Those worth a look: one of each wallet's would do, but which they are is left to chance. What is
        too small to count is looked up last."""
        now = self._now_ms()
        open_ = [
            (row, settlement)
            for row, settlement in rows
            if row.proof == Proof.CLAIMED
            and row.source != self._key.public
            and (settlement or row.failed or row.cumulative >= LEAST_PAID)
            and now - row.checked_ms > LOOK_AGAIN_MS
        ]
        self._chance.shuffle(open_)
        return sorted(open_, key=lambda pair: pair[0].cumulative < LEAST_PAID)[:PROOFS_EACH]

    async def _prove_receipt(self, row: ReceiptRow, settlement: bytes) -> None:
        now = self._now_ms()
        settled = signing.opened(settlement).message if settlement else None
        try:
            finding = await self._prover.look(opened(row.record), settled, now)
        except QubixError as error:
            # One that names a tick about which no answer is to be had must not keep all others waiting.
            await self._prover.tick()
            log.debug("a receipt cannot be looked up: %s", error)
            finding = Finding(Proof.CLAIMED, Qu(0), UnixMs(0))
        proven = replace(
            row, proof=finding.proof, paid=finding.paid, opened_ms=finding.opened_ms, checked_ms=now
        )
        if finding.proof is Proof.CLAIMED:
            # What came just now may lack its settlement or name a tick too young to be read: again soon.
            just_came = now - row.at_ms <= ARRIVALS_WAIT_MS
            proven = replace(proven, opened_ms=0, checked_ms=0 if just_came else now)
        await receipts.confirm(self._store, [proven])

    async def _count_on_chain(self, provider: PeerKey, rows: Sequence[tuple[ReceiptRow, bytes]]) -> None:
        known = self._counters.get(provider)
        wallet = self._wallet_of(provider, rows)
        if wallet is None or (known and self._now_ms() - known[0] < COUNTERS_LIFE_MS):
            return
        counters = await self._prover.counters(wallet, provider)
        _remember(self._counters, provider, (self._now_ms(), counters))

    def _wallet_of(self, provider: PeerKey, rows: Sequence[tuple[ReceiptRow, bytes]]) -> QubicId | None:
        offer = self._offer(provider)
        return wallet_of(offer, [] if offer else [self._gist(row) for row, _ in rows])

    def _gist(self, row: ReceiptRow) -> Gist:
        """Taking a receipt apart is most of a score's work, and receipts do not change."""
        name = hashlib.sha256(row.record).digest()
        known = self._gists.get(name) or gist_of(opened(row.record))
        _remember(self._gists, name, known)
        return known

    def _offer(self, provider: PeerKey) -> messages.Offer | None:
        raw = self._offer_of(provider)
        offer: messages.Offer | None = signing.opened(raw).message if raw else None
        return offer

    def _addresses(self, provider: PeerKey) -> Sequence[str]:
        offer = self._offer(provider)
        return offer.addresses if offer else ()

    # --- scoring ------------------------------------------------------------------------------

    def cached(self, provider: PeerKey) -> Score | None:
        """The last score made of a provider, however old."""
        known = self._scores.get(provider)
        return known.result if known else None

    def counted(self, provider: PeerKey) -> Counters | None:
        """What the contract counted for it when it was last asked."""
        return self._counters.get(provider, (0, None))[1]

    async def scores(self, providers: Sequence[PeerKey]) -> dict[PeerKey, Score]:
        """The scores of some providers, from what is known here and can be heard in a few seconds."""
        now, wanted = self._now_ms(), list(dict.fromkeys(providers))
        life_ms = FEW_LIFE_MS if len(wanted) <= FEW else SCORE_LIFE_MS
        stale = [one for one in wanted if not self._is_fresh(one, now - life_ms)]
        for start in range(0, len(stale), MAX_ASKED):
            await self._renew(stale[start : start + MAX_ASKED], ask=start < MAX_HEARD_OF)
        return {one: known.result for one in wanted if (known := self._scores.get(one))}

    def _is_fresh(self, provider: PeerKey, since: int) -> bool:
        known = self._scores.get(provider)
        return known is not None and known.at > since

    async def _renew(self, providers: Sequence[PeerKey], *, ask: bool = True) -> None:
        now = self._now_ms()
        every_ms = FEW_LIFE_MS if len(providers) <= FEW else FETCH_EVERY_MS
        to_fetch = [one for one in providers if now - self._fetched.get(one, 0) >= every_ms]
        if to_fetch and ask:
            with trio.move_on_after(FETCH_S):
                await self._fetch(to_fetch)
            for one in to_fetch:
                _remember(self._fetched, one, now)
        if ask:
            with trio.move_on_after(PROVE_S):
                await self._prove(providers)
        for one in providers:
            result = await self._score(one)
            _remember(self._scores, one, _Known(result, now))
            self._measured(one, result)

    async def _score(self, provider: PeerKey) -> Score:
        leases = [
            Known(self._gist(row), bool(settlement), Proof(row.proof), row.paid, row.opened_ms)
            for row, settlement in await self._rows(provider)
        ]
        return score_from(self._file(provider, ()), self._offer(provider), leases)

    def _file(self, provider: PeerKey, leases: tuple[LeaseEntry, ...]) -> EvidenceFile:
        raw, counters = self._offer_of(provider), self.counted(provider)
        return EvidenceFile(
            format=FORMAT,
            provider=provider.hex(),
            viewer=self._key.public.hex(),
            network=self._market.network,
            contract_index=self._market.contract_index,
            at_ms=self._now_ms(),
            offer=raw.hex() if raw else "",
            qu_per_credit=self._qu_per_credit,
            counters=CountersEntry(**vars(counters)) if counters else None,
            benchmark=None,
            leases=leases,
        )

    async def evidence(self, provider: PeerKey) -> dict[str, Any]:
        """Everything the score of a provider is made of, as a file that `qubixd.evidence` understands."""
        await self._renew([provider])
        entries = [
            entry_of(opened(row.record), settlement, Proof(row.proof), row.paid, row.opened_ms)
            for row, settlement in await self._rows(provider)
        ]
        file = self._file(provider, tuple(entries))
        fields: dict[str, Any] = msgspec.to_builtins(file)
        return fields | {"peer_id": peer_id_of(provider), "score": score_fields(recompute(file))}


def _check_about(provider: PeerKey, about: frozenset[PeerKey]) -> None:
    if provider not in about:
        raise MessageInvalid("a receipt about somebody else")


def _remember(table: OrderedDict[K, T], key: K, value: T) -> None:
    """Keep the newest MAX_CACHED."""
    table[key] = value
    table.move_to_end(key)
    if len(table) > MAX_CACHED:
        table.popitem(last=False)
