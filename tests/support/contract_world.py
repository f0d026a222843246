"""Random callers, providers, arbiters, ticks and epochs against the compiled contract and its model.

A `World` is one chain with its model. contract_actions.py acts on both, contract_invariants.py says what must
hold after every step, contract_play.py plays. Wallets sign when asked, and everybody does whatever anybody
could do: who is right is what the model says.
"""

from __future__ import annotations

import random
from typing import Final

from escrow_bridge import layout
from escrow_bridge import layout_registry as registry
from escrow_bridge.devnet.host import QUBIX_HEADER, Host, contract_id
from escrow_bridge.layout import Function, Procedure
from escrow_bridge.qubic import Wallet
from protocol.units import EscrowId, Qu, QubicId
from tests.support.contract_model import Model
from tests.support.contract_records import Span
from tests.support.escrow import Code
from tests.support.guild import ARBITER_SEEDS

INDEX: Final = 28
FIRST_TICK: Final = 1_000
FUNDS: Final = 10**12
USERS: Final = tuple(Wallet(letter * 55) for letter in "abcd")
ARBITERS: Final = tuple(Wallet(seed) for seed in ARBITER_SEEDS)
SPARE: Final = Wallet("z" * 55)
WALLETS: Final = {
    **{f"user{place}": wallet for place, wallet in enumerate(USERS)},
    **{f"arbiter{place}": wallet for place, wallet in enumerate(ARBITERS)},
    "spare": SPARE,
}
KEYS: Final = {name: QubicId(wallet.public_key) for name, wallet in WALLETS.items()}
RECENT: Final = 10
"""Mostly the last few leases are acted on; else all actions would meet leases long gone."""


class World:
    """One chain and its model."""

    def __init__(self) -> None:
        self.random = random.Random(0)
        """Of the step that is being taken."""
        self.host = Host.build({INDEX: QUBIX_HEADER}, first_tick=FIRST_TICK, epoch=5)
        for key in KEYS.values():
            self.host.credit(key, FUNDS)
        self.host.begin_tick(FIRST_TICK)
        arbiters = [f"arbiter{place}" for place in range(3)]
        self.model = Model(dict.fromkeys(WALLETS, FUNDS), FIRST_TICK, 5, arbiters)
        self.network = self.info().network
        self.escrows: list[bytes] = [bytes(32)]
        self.parties: dict[bytes, tuple[str, str]] = {}
        self.promised: dict[bytes, int] = {}
        """The most that the caller of each lease ever signed."""
        self.receipts: list[tuple[bytes, Span]] = []
        self.opened = 0
        for name in ("user0", "user1", "user2"):
            payload = registry.register_input(KEYS[name], bytes(32), self.network)
            assert self.call(name, Procedure.REGISTER, payload, 5_000_000) == Code.OK
            assert self.model.register(name, 5_000_000) == Code.OK

    # --- choosing ---------------------------------------------------------------------------------

    def someone(self) -> str:
        return self.random.choice(list(WALLETS) if self.chance(4) else list(WALLETS)[:4])

    def chance(self, one_in: int) -> bool:
        return self.random.randrange(one_in) == 0

    def an_escrow(self) -> bytes:
        return self.random.choice(self.escrows if self.chance(20) else self.escrows[-RECENT:])

    def the_one(self, escrow: bytes, role: int) -> str:
        """Mostly the caller (0) or provider (1) of a lease, sometimes anybody."""
        known = self.parties.get(escrow)
        return known[role] if known and not self.chance(8) else self.someone()

    def a_ticket(self) -> bytes:
        """Mostly a lease that may be rated or disputed."""
        leases = [escrow for escrow, _, _ in self.model.tickets]
        return self.random.choice(leases) if leases and not self.chance(6) else self.an_escrow()

    def amount(self, most: int) -> int:
        return self.random.choice((0, 1, self.random.randrange(max(most, 1)), most, most + 1))

    # --- calling ----------------------------------------------------------------------------------

    def call(self, by: str, procedure: Procedure, payload: bytes, attached: int) -> Code:
        output = self.host.call(KEYS[by], contract_id(INDEX), attached, procedure, payload)
        assert output is not None, "a wallet ran dry"
        start = 32 if procedure == Procedure.OPEN else 0
        return Code(int.from_bytes(output[start : start + 4], "little"))

    def sign(self, by: str, escrow: bytes, cumulative: int) -> bytes:
        """A voucher's payload. What the caller signs it has promised."""
        if self.parties.get(escrow, ("",))[0] == by:
            self.promised[escrow] = max(self.promised[escrow], cumulative)
        signature = WALLETS[by].sign(layout.voucher_digest(EscrowId(escrow), Qu(cumulative)))
        return layout.pay_input(EscrowId(escrow), Qu(cumulative), signature)

    # --- time -------------------------------------------------------------------------------------

    def change_epoch(self) -> None:
        self.host.end_tick()
        self.model.next_tick(self.model.tick)
        self.host.change_epoch()
        self.model.change_epoch()
        self.host.begin_tick(self.host.tick + 1)
        self.model.tick += 1

    def leap(self, tick: int) -> None:
        self.host.end_tick()
        self.host.begin_tick(tick)
        self.model.next_tick(tick)

    # --- looking ----------------------------------------------------------------------------------

    def info(self) -> layout.ContractInfo:
        info = layout.decode_info(self.host.query(INDEX, Function.GET_INFO, b""))
        assert info is not None
        return info
