"""The shelf: what this node keeps of other nodes' receipts and settlements, and gives out again.

A directory keeps them for everybody, any other node those about itself. One peer can say so much in a
minute and have so much kept (ledger/receipts.py), and so can all of them together.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

from ledger import journal, receipts
from ledger.receipts import ReceiptRow, SettlementRow
from ledger.store import Store
from protocol.errors import CapacityTaken, MessageInvalid, QubixError, Refused
from protocol.messages import Ack, GetReceipts, Receipt, Settlement
from protocol.signing import NodeKey, Signed
from protocol.units import PeerKey, UnixMs
from qubixd.leases import Clock, decode_state
from qubixd.places import network_of
from qubixd.receipt_door import Checked, Market, check_receipt, verify
from qubixd.talk import IDLE_TIMEOUT_S, REQUEST_TIMEOUT_S, patience, receive_signed, refusal_of, send_signed
from qubixd.wire import Stream, Wire, send_frame
from qubixd.words import RECEIPTS_PROTOCOL

log = logging.getLogger("qubix.receipts")

MAX_ANSWER: Final = 2_000
"""Receipts in one answer."""
MAX_PER_MINUTE: Final = 60
"""Messages of one peer."""
MAX_PER_MINUTE_IN_ALL: Final = 1_200
MAX_PER_MINUTE_OF_A_NETWORK: Final = 300
"""Of peers in one /16, once half of what is listened to has been said: new identities cost nothing there."""


class ReceiptShelf:
    """Answers `/qubix/receipts/1` on one wire."""

    def __init__(
        self,
        *,
        key: NodeKey,
        store: Store,
        market: Market,
        now_ms: Clock,
        keeps_for_others: bool,
        changed: Callable[[PeerKey], None],
    ) -> None:
        """`changed`: is told about whom something new is known."""
        self._key = key
        self._store = store
        self._market = market
        self._now_ms = now_ms
        self.keeps_for_others = keeps_for_others
        self._changed = changed
        self._minute = 0
        self._heard: Counter[PeerKey] = Counter()
        self._networks: Counter[str] = Counter()
        self._ip_of: Callable[[PeerKey], str | None] = lambda peer: None

    def open(self, wire: Wire) -> None:
        """Begin to answer."""
        self._ip_of = wire.remote_ip
        wire.serve(RECEIPTS_PROTOCOL, self.serve)

    async def serve(self, stream: Stream, peer: PeerKey) -> None:
        with patience(REQUEST_TIMEOUT_S):
            signed = await receive_signed(stream, peer)
        try:
            self._count(peer)
            if isinstance(signed.message, GetReceipts):
                await self._give(stream, signed.message)
            else:
                await self.take(signed)
                await send_signed(stream, self._key.sign(Ack()))
        except QubixError as error:
            log.info("refused %s of %s: %s", type(signed.message).__name__, peer.hex()[:16], error)
            await send_signed(stream, self._key.sign(refusal_of(error)))
        await stream.send_eof()

    def _count(self, peer: PeerKey) -> None:
        """CapacityTaken if a peer, its network, or all of them, say more in a minute than is listened to."""
        minute, network = self._now_ms() // 60_000, network_of(self._ip_of(peer))
        if minute != self._minute:
            self._minute, self._heard, self._networks = minute, Counter(), Counter()
        said = self._heard.total()
        crowded = 2 * said >= MAX_PER_MINUTE_IN_ALL
        if (
            said >= MAX_PER_MINUTE_IN_ALL
            or self._heard[peer] >= MAX_PER_MINUTE
            or (crowded and self._networks[network] >= MAX_PER_MINUTE_OF_A_NETWORK)
        ):
            raise CapacityTaken("too many receipts at once; come again in a minute")
        self._heard[peer] += 1
        self._networks[network] += 1

    async def take(self, signed: Signed) -> None:
        """Keep the word of a peer. Refused if it is none of our business, CapacityTaken if there is no place
        for it now; MessageInvalid, SignatureInvalid, VoucherInvalid for what is wrong with it."""
        now, lost = self._now_ms(), 0
        match signed.message:
            case Receipt():
                checked = check_receipt(verify(signed.raw), self._market, now)
                if not (self.keeps_for_others or checked.terms.provider == self._key.public):
                    raise Refused("this node keeps receipts about itself only; give them to a directory")
                row = receipt_row(checked, signed.signer, now)
                lost = await receipts.keep(self._store, self._key.public, [row])
                self._changed(checked.terms.provider)
            case Settlement():
                verify(signed.raw)
                await self._check_concerns_us(signed)
                settled = settlement_row(signed, signed.signer, now)
                lost = await receipts.keep(self._store, self._key.public, [], [settled])
                self._changed(signed.signer)
            case _:
                raise MessageInvalid("this is the protocol for receipts")
        if lost:
            raise CapacityTaken("there is no place for more of these here")

    async def _check_concerns_us(self, signed: Signed) -> None:
        if self.keeps_for_others:
            return
        row = await journal.lease(self._store, signed.message.lease_id)
        if row is None or decode_state(row.state).terms.provider != signed.signer:
            raise Refused("this node keeps settlements of its own leases only; give them to a directory")

    async def _give(self, stream: Stream, wanted: GetReceipts) -> None:
        each = max(1, min(wanted.limit, MAX_ANSWER // len(wanted.providers)))
        for provider in dict.fromkeys(wanted.providers):
            rows = await receipts.of_provider(self._store, provider, each, self._key.public)
            for row, settlement in rows:
                with patience(IDLE_TIMEOUT_S):
                    await send_frame(stream, row.record)
                    if settlement:
                        await send_frame(stream, settlement)


def receipt_row(checked: Checked, source: bytes, now: UnixMs) -> ReceiptRow:
    """As the ledger keeps it; `source` is who brought it."""
    return ReceiptRow(
        checked.lease_id,
        checked.terms.provider,
        checked.raw,
        checked.failed,
        checked.receipt.cumulative,
        checked.receipt.ended_at,
        source,
        now,
    )


def settlement_row(signed: Signed, source: bytes, now: UnixMs) -> SettlementRow:
    """The same."""
    return SettlementRow(signed.message.lease_id, signed.signer, signed.raw, source, now)
