"""Every sequence of calls of the escrow contract, by anyone: no QU appears, vanishes or goes astray.

Real signatures on the native contract. What each wallet must own follows from the calls that were
accepted: deposits less refunds, and 95 % of what the caller signed for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, invariant, multiple, rule

from escrow_bridge.qubic import Wallet
from tests.support.escrow import (
    BOND,
    CLOSE,
    CONTRACT,
    FINALIZE,
    MIN_CHALLENGE,
    MIN_DEADLINE,
    PURSE,
    REDEEM,
    REQUEST_CLOSE,
    TOP_UP,
    Code,
    Desk,
    net,
)

SEND = 0
LONGEST_DEADLINE = 200
SWEEP = 16

who = st.integers(0, 2)
amounts = st.one_of(st.integers(1, 100), st.integers(0, 10_000), st.integers(1, PURSE // 8))
mostly = st.sampled_from([True, True, True, True, False])
"""Whether a call is made by the one who may: else sequences of refusals would be all one gets."""
off_by = st.sampled_from([0, 0, 0, 0, -1, 1])
"""By how much a caller who tops up is wrong about the deposit."""
tolls = st.sampled_from([0, 99, 100, 100, 100, 150])
"""Attached to a redeem: the bond for its signature, a little too little, or too much."""


@dataclass
class Expected:
    """What a channel must be, from the calls that were accepted."""

    escrow: bytes
    caller: Wallet
    provider: Wallet
    deposit: int
    deadline: int
    close_tick: int = 0
    paid: int = 0
    open: bool = True

    @property
    def last_tick(self) -> int:
        return self.close_tick or self.deadline

    def share(self, of_20: int) -> int:
        """A cumulative amount from a little too low (-1) to a little too high (21)."""
        return self.paid + (self.deposit - self.paid) * of_20 // 20


class Escrow(RuleBasedStateMachine):
    channels = Bundle("channels")

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk()
        self.wallets = (self.desk.caller, self.desk.provider, self.desk.stranger)
        self.all: list[Expected] = []
        self.lost = {wallet.public_key: 0 for wallet in self.wallets}
        """Burned for bad signatures."""

    def purse(self, wallet: Wallet) -> int:
        """What a wallet can spend and still send: one without balance can send nothing."""
        return self.desk.host.balance(wallet.public_key) - 1

    def advance_to(self, tick: int) -> None:
        """Passes ticks; at the end of every sixteenth, all channels that are over are refunded."""
        self.desk.tick_to(tick)
        swept = (self.desk.host.tick - 1) // SWEEP * SWEEP
        for channel in self.all:
            channel.open = channel.open and channel.last_tick > swept

    def rises(self, channel: Expected, cumulative: int) -> bool:
        """Whether a voucher, well signed, is worth something now."""
        in_time = channel.open and self.desk.host.tick < channel.last_tick
        return in_time and channel.paid < cumulative <= channel.deposit

    def takes(self, channel: Expected, cumulative: int, signer: Wallet, source: Wallet, toll: int) -> bool:
        """Whether the contract takes this voucher; a bad signature costs the source its bond."""
        if not self.rises(channel, cumulative) or toll < BOND:
            return False
        if signer is not channel.caller:
            self.lost[source.public_key] += BOND
        return signer is channel.caller

    @rule(
        target=channels,
        caller=who,
        provider=who,
        deposit=amounts,
        deadline=st.integers(MIN_DEADLINE - 1, LONGEST_DEADLINE),
        challenge=st.integers(MIN_CHALLENGE - 1, 60),
    )
    def open(
        self, caller: int, provider: int, deposit: int, deadline: int, challenge: int
    ) -> Expected | MultipleResults[Expected]:
        by, to = self.wallets[caller], self.wallets[provider]
        deposit = min(deposit, self.purse(by))
        code, escrow = self.desk.open(
            deposit,
            deadline=deadline,
            challenge=challenge,
            provider=to.public_key,
            by=by,
            terms=len(self.all).to_bytes(32, "little"),
        )
        fits = caller != provider and deposit > 0 and deadline >= MIN_DEADLINE and challenge >= MIN_CHALLENGE
        assert (code == Code.OK) == fits
        if not fits:
            return multiple()
        channel = Expected(escrow, by, to, deposit, self.desk.host.tick + deadline)
        self.all.append(channel)
        return channel

    @rule(channel=channels, right=mostly, by=who, amount=amounts, off=off_by, later=st.integers(-1, 100))
    def top_up(self, channel: Expected, right: bool, by: int, amount: int, off: int, later: int) -> None:
        source, deadline = channel.caller if right else self.wallets[by], channel.deadline + later
        amount = min(amount, self.purse(source))
        payload = channel.escrow + struct.pack("<qI4x", channel.deposit + off, deadline)
        code = self.desk.code(source, TOP_UP, payload, amount)
        in_time = not channel.close_tick and self.desk.host.tick < channel.deadline
        fits = amount > 0 and off == 0 and later >= 0
        allowed = channel.open and source is channel.caller and in_time and fits
        assert (code == Code.OK) == allowed
        if allowed:
            channel.deposit, channel.deadline = channel.deposit + amount, deadline

    @rule(channel=channels, right=mostly, signer=who, by=who, share=st.integers(-1, 21), toll=tolls)
    def redeem(self, channel: Expected, right: bool, signer: int, by: int, share: int, toll: int) -> None:
        source, cumulative = self.wallets[by], channel.share(share)
        by_caller = channel.caller if right else self.wallets[signer]
        payload = self.desk.voucher(channel.escrow, cumulative, by=by_caller)
        toll = min(toll, self.purse(source))
        code = self.desk.code(source, REDEEM, payload, toll)
        allowed = self.takes(channel, cumulative, by_caller, source, toll)
        assert (code == Code.OK) == allowed
        channel.paid = cumulative if allowed else channel.paid

    @rule(channel=channels, right=mostly, signer=who, by=who, share=st.integers(-1, 21), toll=tolls)
    def close(self, channel: Expected, right: bool, signer: int, by: int, share: int, toll: int) -> None:
        source = channel.provider if right else self.wallets[by]
        by_caller = channel.caller if right else self.wallets[signer]
        cumulative = channel.share(share)
        toll = min(toll, self.purse(source))
        code = self.desk.code(
            source, CLOSE, self.desk.voucher(channel.escrow, cumulative, by=by_caller), toll
        )
        allowed = channel.open and source is channel.provider
        if allowed and cumulative != channel.paid:
            allowed = self.takes(channel, cumulative, by_caller, source, toll)
        assert (code == Code.OK) == allowed
        if allowed:
            channel.paid, channel.open = cumulative, False

    @rule(channel=channels, right=mostly, by=who)
    def request_close(self, channel: Expected, right: bool, by: int) -> None:
        source = channel.caller if right else self.wallets[by]
        code = self.desk.code(source, REQUEST_CLOSE, channel.escrow)
        in_time = not channel.close_tick and self.desk.host.tick < channel.deadline
        assert (code == Code.OK) == (channel.open and source is channel.caller and in_time)
        seen = self.desk.channel(channel.escrow)
        if code == Code.OK and seen:
            assert self.desk.host.tick < seen.close_tick <= channel.deadline
            channel.close_tick = seen.close_tick

    @rule(channel=channels, by=who)
    def finalize(self, channel: Expected, by: int) -> None:
        code = self.desk.code(self.wallets[by], FINALIZE, channel.escrow)
        assert (code == Code.OK) == (channel.open and self.desk.host.tick >= channel.last_tick)
        channel.open = channel.open and code != Code.OK

    @rule(by=who, amount=st.integers(1, 1_000), input_type=st.sampled_from([SEND, 99, 9_999]))
    def send_money_without_a_call(self, by: int, amount: int, input_type: int) -> None:
        source = self.wallets[by]
        self.desk.host.apply(source.public_key, CONTRACT, min(amount, self.purse(source)), input_type, b"")

    @rule(ticks=st.one_of(st.integers(1, 5), st.integers(1, 40)))
    def pass_ticks(self, ticks: int) -> None:
        self.advance_to(self.desk.host.tick + ticks)

    @rule(channel=channels, offset=st.sampled_from([-1, 0, 0, 1]))
    def pass_to_the_edge(self, channel: Expected, offset: int) -> None:
        self.advance_to(channel.last_tick + offset)

    @rule()
    def change_epoch(self) -> None:
        """The end of an epoch refunds what is over, like the end of every sixteenth tick."""
        self.desk.host.change_epoch()
        for channel in self.all:
            channel.open = channel.open and channel.last_tick > self.desk.host.tick

    @invariant()
    def no_qu_appears_or_vanishes(self) -> None:
        wallets = sum(self.desk.host.balance(wallet.public_key) for wallet in self.wallets)
        total = wallets + self.desk.host.balance(CONTRACT) + self.desk.host.destroyed
        assert total == len(self.wallets) * PURSE

    @invariant()
    def the_contract_owns_open_deposits_and_fees(self) -> None:
        self.desk.check()
        info, living = self.desk.info(), [channel for channel in self.all if channel.open]
        assert info.open_balance == sum(channel.deposit - channel.paid for channel in living)
        assert (info.opened, info.opened - info.closed) == (len(self.all), len(living))
        assert info.volume == sum(channel.paid for channel in self.all)
        assert info.fees_collected == sum(channel.paid - net(channel.paid) for channel in self.all)

    @invariant()
    def everybody_owns_what_was_signed_for(self) -> None:
        for wallet in self.wallets:
            out = sum(
                channel.deposit if channel.open else channel.paid
                for channel in self.all
                if channel.caller is wallet
            )
            earned = sum(net(channel.paid) for channel in self.all if channel.provider is wallet)
            lost = self.lost[wallet.public_key]
            assert self.desk.host.balance(wallet.public_key) == PURSE - out + earned - lost

    def teardown(self) -> None:
        """Whatever happened, all deposits come back by themselves."""
        last = max((channel.deadline for channel in self.all), default=self.desk.host.tick)
        self.advance_to(max(last, self.desk.host.tick) + 2 * SWEEP)
        assert not any(channel.open for channel in self.all)
        info = self.desk.info()
        assert (info.open_balance, info.opened) == (0, info.closed)
        assert self.desk.host.balance(CONTRACT) == info.fees_undistributed
        self.everybody_owns_what_was_signed_for()


TestEscrow = Escrow.TestCase
TestEscrow.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
