"""Leases between parties on the real contract, with the receipts and settlements that speak of them.

town = Town()
provider, caller = town.party("alice"), town.party("bob")
town.register(provider)
deal = town.deal(provider, caller, paid=50_000)
deal.receipt, deal.settlement      # signed envelopes
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, Final

from escrow_bridge import layout, layout_registry
from escrow_bridge.devnet.__main__ import CONTRACT_INDEX, build_engine
from escrow_bridge.devnet.engine import Rules
from escrow_bridge.devnet.local import LocalChain
from escrow_bridge.layout import Function, Procedure
from escrow_bridge.qubic import Wallet, contract_id, sign_transaction, transaction_digest
from protocol.messages import Receipt, Settlement, Terms
from protocol.signing import NodeKey
from protocol.units import EscrowId, LeaseId, Qu, Seconds, Tick, UnixMs
from qubixd.desk import lease_id_of
from qubixd.proofs import Prover
from qubixd.receipt_door import Market
from tests.support.deals import NOW, WISH

NETWORK: Final = "devnet"
MARKET: Final = Market(NETWORK, CONTRACT_INDEX)
FUNDS: Final = Qu(10**10)
PRICE: Final = Qu(3_600_000)
"""1,000 QU a second."""
STAKE: Final = Qu(1_000_000)
DEADLINE_TICKS: Final = 5_000


@dataclass(frozen=True)
class Party:
    """Somebody with a node and a wallet."""

    name: str
    key: NodeKey = field(init=False, repr=False)
    wallet: Wallet = field(init=False, repr=False)

    def __post_init__(self) -> None:
        letters = hashlib.sha512(self.name.encode()).digest()
        object.__setattr__(self, "key", NodeKey(hashlib.sha256(b"node " + self.name.encode()).digest()))
        object.__setattr__(self, "wallet", Wallet("".join(chr(97 + byte % 26) for byte in letters[:55])))


@dataclass(frozen=True)
class Deal:
    """One lease that is over, and what both sides say of it."""

    provider: Party
    caller: Party
    signed_terms: bytes
    said: Receipt
    settled: Settlement

    @property
    def lease_id(self) -> LeaseId:
        return lease_id_of(self.signed_terms)

    @property
    def receipt(self) -> bytes:
        return self.caller.key.sign(self.said)

    @property
    def settlement(self) -> bytes:
        return self.provider.key.sign(self.settled)

    def saying(self, **changes: Any) -> Deal:
        """The same with another receipt."""
        return replace(self, said=replace(self.said, **changes))


class Town:
    """One chain with the contract. Time is the test's: `now` is when all of this has just happened."""

    def __init__(self, keep_ticks: int = 1_000) -> None:
        self.chain = LocalChain(build_engine(Rules(1_000, keep_ticks=keep_ticks)))
        self.now = NOW
        self._deals = 0
        info = layout.decode_info(self.chain.engine.host.query(CONTRACT_INDEX, Function.GET_INFO, b""))
        assert info is not None
        self.network = info.network

    @property
    def prover(self) -> Prover:
        return Prover(self.chain, CONTRACT_INDEX)

    @property
    def tick(self) -> Tick:
        return self.chain.engine.tick_info().tick

    def party(self, name: str, funds: Qu = FUNDS) -> Party:
        party = Party(name)
        if funds:
            self.chain.engine.host.credit(party.wallet.public_key, funds)
        return party

    def send(self, party: Party, procedure: Procedure, payload: bytes, amount: int) -> tuple[Tick, bytes]:
        """Have it run; (its tick, its digest). Whether it did anything is the contract's affair."""
        tick = Tick(self.tick + 3)
        contract = contract_id(CONTRACT_INDEX)
        raw = sign_transaction(party.wallet, contract, Qu(amount), tick, procedure, payload)
        assert self.chain.engine.submit(raw) is None
        self.pass_ticks(4)
        return tick, transaction_digest(raw)

    def pass_ticks(self, count: int) -> None:
        for _ in range(count):
            self.chain.engine.advance()

    def register(self, provider: Party) -> None:
        payload = layout_registry.register_input(provider.key.public, bytes(32), self.network)
        self.send(provider, Procedure.REGISTER, payload, STAKE)

    def terms(self, provider: Party, caller: Party, deposit: Qu, **changes: Any) -> Terms:
        self._deals += 1
        values: dict[str, Any] = {
            "nonce": self._deals.to_bytes(32, "big"),
            "network": NETWORK,
            "contract_index": CONTRACT_INDEX,
            "provider": provider.key.public,
            "provider_id": provider.wallet.public_key,
            "caller": caller.key.public,
            "caller_id": caller.wallet.public_key,
            "wish": WISH,
            "gpu_digests": (),
            "image": "python:3.12",
            "runner": "docker",
            "order_sha256": bytes(32),
            "meter": "seconds",
            "price_qu_per_hour": PRICE,
            "max_seconds": Seconds(86_400),
            "interval_seconds": Seconds(5),
            "unpaid_intervals": 3,
            "deposit": deposit,
            "deadline_ticks": DEADLINE_TICKS,
            "challenge_ticks": 16,
            "pull_seconds": Seconds(1_800),
            "start_seconds": Seconds(120),
            "quoted_at": UnixMs(self.now - 90_000_000),
            "valid_until": UnixMs(self.now - 89_000_000),
        }
        return Terms(**values | changes)

    def deal(
        self,
        provider: Party,
        caller: Party,
        *,
        paid: int,
        outcome: str = "completed",
        opens: bool = True,
        closes: bool = True,
        redeems: int | None = None,
        **changes: Any,
    ) -> Deal:
        """Rent, pay, settle. `opens`, `closes`: whether the transactions are sent at all; `redeems`: how
        much the provider really takes; `changes`: of the terms."""
        terms = self.terms(provider, caller, Qu(paid + 5), **changes)
        signed_terms = provider.key.sign(terms)
        lease_id = lease_id_of(signed_terms)
        open_tick = self._open(terms, lease_id, caller) if opens else Tick(self.tick - 20)
        parties = (terms.caller_id, terms.provider_id)
        escrow = layout.escrow_id(*parties, lease_id, CONTRACT_INDEX, open_tick)
        took = Qu(paid if redeems is None else redeems)
        settled = self._close(provider, caller, escrow, took) if closes else (self.tick, bytes(32))
        if not closes:
            self.pass_ticks(1)
        self.pass_ticks(20)
        said = Receipt(
            signed_terms=signed_terms,
            escrow_id=escrow,
            open_tick=open_tick,
            outcome=outcome,
            ready_ms=10_000,
            seconds=Seconds(-(-paid * 3_600 // terms.price_qu_per_hour)),
            cumulative=Qu(paid),
            voucher=voucher(caller, escrow, paid) if paid else b"",
            ended_at=self.now,
        )
        return Deal(provider, caller, signed_terms, said, Settlement(lease_id, *settled))

    def _open(self, terms: Terms, lease_id: LeaseId, caller: Party) -> Tick:
        deadline = Tick(self.tick + 3 + terms.deadline_ticks)
        payload = layout.open_input(
            terms.provider_id, lease_id, deadline, terms.challenge_ticks, self.network
        )
        return self.send(caller, Procedure.OPEN, payload, terms.deposit)[0]

    def _close(self, provider: Party, caller: Party, escrow: EscrowId, took: Qu) -> tuple[Tick, bytes]:
        payload = layout.pay_input(escrow, took, voucher(caller, escrow, took))
        return self.send(provider, Procedure.CLOSE, payload, layout.SIGNATURE_BOND)


def voucher(caller: Party, escrow: EscrowId, cumulative: int) -> bytes:
    return caller.wallet.sign(layout.voucher_digest(escrow, Qu(cumulative)))
