"""A chain in this process with the compiled contract, two funded wallets and their bridges."""

from __future__ import annotations

import string
from dataclasses import dataclass, field

import trio

from escrow_bridge import layout
from escrow_bridge.bridge import Bridge, CloseOrder, OpenOrder, RedeemOrder, TopUpOrder
from escrow_bridge.devnet.__main__ import CONTRACT_INDEX, build_engine
from escrow_bridge.devnet.engine import Rules
from escrow_bridge.devnet.local import LocalChain
from escrow_bridge.layout import EscrowView
from escrow_bridge.qubic import Wallet, contract_id
from protocol.units import EscrowId, LeaseId, Qu, Tick

TICK_SECONDS = 1.0
FUNDS = Qu(1_000_000)
TERMS = LeaseId(bytes(range(32)))


def wallet_of(number: int) -> Wallet:
    """A fixed wallet per number, 0 to 25."""
    return Wallet(string.ascii_lowercase[number] * 55)


class Crash(Exception):
    """The process died here."""


@dataclass
class Store:
    """Keeps an order's scratch as a disk does; dies before or after the n-th save if told to."""

    scratch: bytes = b""
    saves: int = 0
    dies_at: int = 0
    dies_before: bool = False

    async def save(self, scratch: bytes) -> None:
        self.saves += 1
        if self.saves == self.dies_at and self.dies_before:
            raise Crash
        self.scratch = scratch
        if self.saves == self.dies_at:
            raise Crash


@dataclass
class World:
    """Caller and provider on one chain; `tick_for_ever` goes into the test's nursery."""

    chain: LocalChain
    caller: Wallet = field(default_factory=lambda: wallet_of(0))
    provider: Wallet = field(default_factory=lambda: wallet_of(1))

    def bridge(self, wallet: Wallet) -> Bridge:
        return Bridge(self.chain, wallet, CONTRACT_INDEX, tick_offset=4, poll_seconds=TICK_SECONDS / 4)

    def order(self, deposit: int = 1_000, deadline_ticks: int = 200) -> OpenOrder:
        return OpenOrder(self.provider.public_key, TERMS, Qu(deposit), deadline_ticks, challenge_ticks=16)

    async def open(self, deposit: int = 1_000, deadline_ticks: int = 200) -> EscrowView:
        order = self.order(deposit, deadline_ticks)
        return await self.bridge(self.caller).open_escrow(order, b"", Store().save)

    def voucher(self, escrow_id: EscrowId, cumulative: int) -> RedeemOrder:
        digest = layout.voucher_digest(escrow_id, Qu(cumulative))
        return RedeemOrder(escrow_id, Qu(cumulative), self.caller.sign(digest))

    def closing(self, escrow_id: EscrowId, cumulative: int) -> CloseOrder:
        voucher = self.voucher(escrow_id, cumulative)
        return CloseOrder(escrow_id, voucher.cumulative, voucher.signature)

    def balance(self, wallet: Wallet) -> int:
        return self.chain.engine.balance(wallet.public_key)

    @property
    def locked(self) -> int:
        """All money the contract holds."""
        return self.chain.engine.balance(contract_id(CONTRACT_INDEX))

    async def tick_for_ever(self) -> None:
        while True:
            await trio.sleep(TICK_SECONDS)
            await self.chain.advance()


def adding(escrow: EscrowView, amount: int, ticks: int = 100) -> TopUpOrder:
    """So much more for a channel as it was seen, until so many ticks later."""
    deposit, deadline = Qu(escrow.deposit + amount), Tick(escrow.deadline_tick + ticks)
    return TopUpOrder(escrow.escrow_id, escrow.as_of or escrow.open_tick, escrow.deposit, deposit, deadline)


def make_world(rules: Rules | None = None, provider_funds: Qu = FUNDS) -> World:
    funds = [(wallet_of(0).public_key, FUNDS)]
    if provider_funds:
        funds.append((wallet_of(1).public_key, provider_funds))
    return World(LocalChain(build_engine(rules or Rules(), funds)))
