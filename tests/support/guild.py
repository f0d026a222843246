"""Drives the escrow contract's registry, receipts, disputes and purchases on a native host."""

from __future__ import annotations

from typing import Final

from escrow_bridge import layout_registry as layout
from escrow_bridge.layout_registry import DisputeView, ProviderView, Receipt, TicketKind, TicketView, Verdict
from escrow_bridge.qubic import Wallet
from protocol.units import EscrowId, QubicId, Tick
from tests.support.escrow import (
    BUY,
    DECIDE,
    EXIT,
    OPEN_DISPUTE,
    RATE,
    REGISTER,
    ROTATE,
    SLASH,
    UPDATE,
    Code,
    Desk,
)
from tests.support.probes import QUBIX

STAKE: Final = 2_000_003
PEER, METADATA = b"\x0e" * 32, b"\x0d" * 32
GPU, OTHER_GPU = b"\x61" * 32, b"\x62" * 32
ARBITER_SEEDS: Final = ("i" * 55, "j" * 55, "k" * 55)
GET_PROVIDER, GET_TICKET, GET_DISPUTE, GET_ARBITERS = 3, 4, 5, 6
ENOUGH: Final = 10_000
"""What a lease must pay to be rated, and the least price."""
BOND_OF_DISPUTE: Final = 100_000
DISPUTE_TICKS: Final = 600_000
PURSE_OF_ARBITERS: Final = 1_000


class Guild(Desk):
    """The desk with three arbiters; `register` makes the provider a registered one."""

    def __init__(self) -> None:
        super().__init__()
        self.arbiters = [Wallet(seed) for seed in ARBITER_SEEDS]
        for arbiter in self.arbiters:
            self.host.credit(arbiter.public_key, PURSE_OF_ARBITERS)

    def register(self, stake: int = STAKE, by: Wallet | None = None) -> Code:
        payload = layout.register_input(PEER, METADATA, self.network)
        return self.code(by or self.provider, REGISTER, payload, stake)

    def update(self, peer: bytes, metadata: bytes, added: int = 0, by: Wallet | None = None) -> Code:
        return self.code(
            by or self.provider, UPDATE, layout.register_input(peer, metadata, self.network), added
        )

    def exit(self, by: Wallet | None = None) -> Code:
        return self.code(by or self.provider, EXIT, layout.exit_input(self.network))

    def view(self, provider: bytes | None = None) -> ProviderView | None:
        key = self.provider.public_key if provider is None else provider
        return layout.decode_provider(self.host.query(QUBIX, GET_PROVIDER, key))

    def ended_lease(self, paid: int = ENOUGH, terms: bytes = bytes(32), burn: int = 0) -> bytes:
        """Escrow id of a lease that paid so much and was closed."""
        code, escrow = self.open(paid + 5, terms=terms, burn=burn)
        assert code == Code.OK
        assert self.close(escrow, paid) == Code.OK
        return escrow

    def ticket(self, escrow: bytes) -> TicketView | None:
        holder, provider = QubicId(self.caller.public_key), QubicId(self.provider.public_key)
        return self.ticket_of(TicketKind.LEASE, escrow, holder, provider)

    def ticket_of(
        self, kind: TicketKind, subject: bytes, holder: QubicId, provider: QubicId
    ) -> TicketView | None:
        payload = layout.ticket_input(kind, subject, holder, provider)
        return layout.decode_ticket(self.host.query(QUBIX, GET_TICKET, payload))

    def rate(self, escrow: bytes, stars: int, by: Wallet | None = None) -> Code:
        payload = layout.rate_input(EscrowId(escrow), QubicId(self.provider.public_key), stars)
        return self.code(by or self.caller, RATE, payload)

    def receipt(self, escrow: bytes, ticks: tuple[int, int], gpu: bytes = GPU) -> Receipt:
        return Receipt(gpu, EscrowId(escrow), Tick(ticks[0]), Tick(ticks[1]))

    def slash(
        self, first: Receipt, second: Receipt, *, attached: int = 200, signer: Wallet | None = None
    ) -> Code:
        """The stranger reports two receipts of the provider, signed by it or by `signer`."""
        signer = signer or self.provider
        payload = layout.slash_input(
            QubicId(self.provider.public_key),
            first,
            self.provider.sign(first.digest(self.network)),
            second,
            signer.sign(second.digest(self.network)),
        )
        return self.code(self.stranger, SLASH, payload, attached)

    def dispute(self, escrow: bytes, by: Wallet | None = None, bond: int = BOND_OF_DISPUTE) -> Code:
        payload = layout.open_dispute_input(EscrowId(escrow), QubicId(self.provider.public_key), METADATA)
        return self.code(by or self.caller, OPEN_DISPUTE, payload, bond)

    def decide(self, escrow: bytes, verdict: int, by: Wallet) -> Code:
        payload = bytearray(layout.decide_input(EscrowId(escrow), Verdict.FOR_CALLER))
        payload[32] = verdict
        return self.code(by, DECIDE, bytes(payload))

    def case(self, escrow: bytes) -> DisputeView | None:
        return layout.decode_dispute(self.host.query(QUBIX, GET_DISPUTE, escrow))

    def rotate(self, candidate: bytes, slot: int, by: Wallet) -> Code:
        return self.code(by, ROTATE, layout.rotate_input(QubicId(candidate), self.network, slot))

    def buy(self, item: bytes, price: int, by: Wallet | None = None, seller: bytes | None = None) -> Code:
        whom = self.provider.public_key if seller is None else seller
        payload = layout.buy_input(QubicId(whom), item, self.network)
        return self.code(by or self.caller, BUY, payload, price)

    def next_epoch(self) -> None:
        self.host.end_tick()
        self.host.change_epoch()
        self.host.begin_tick(self.host.tick + 1)
