"""What the escrow contract must do, told a second time: plain Python, no bytes, no hashing, no C++.

Who calls is a name, a signature is the name of its signer. Every call returns the code that the contract
must give; balances and records are then what they must be. Written from contracts/README.md.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from tests.support.contract_records import Case, Channel, Provider, Span, Ticket, Wish
from tests.support.escrow import Code, burned, fee, net

CONTRACT: Final = "contract"
BURNED: Final = "burned"
BOND, STAKE, ENOUGH, DISPUTE_BOND = 100, 1_000_000, 10_000, 100_000
DISPUTE_TICKS, SWEEP, TICKETS, PURCHASES, DISPUTES = 600_000, 16, 1_024, 1_024, 64
PLACES, CROWD, SHARES = 4_096, 256, 676
LONGEST_LEASE: Final = 8_000_000


class Model:
    """All that is known of the chain. `balances` has the wallets, CONTRACT and BURNED."""

    def __init__(self, balances: dict[str, int], tick: int, epoch: int, arbiters: list[str]) -> None:
        self.balances = Counter(balances)
        self.tick, self.epoch, self.arbiters = tick, epoch, list(arbiters)
        self.channels: dict[bytes, Channel] = {}
        self.providers: dict[str, Provider] = {}
        self.tickets: dict[tuple[bytes, str, str], Ticket] = {}
        """Of leases: (escrow, caller, provider)."""
        self.purchases: dict[tuple[bytes, str, str], int] = {}
        """(item, buyer, seller) -> epoch"""
        self.ended: dict[bytes, int] = {}
        """What each lease that is over paid."""
        self.volume = 0
        self.cases: dict[bytes, Case] = {}
        self.wishes: dict[int, tuple[str, int]] = {}
        self.fees = 0

    def _move(self, source: str, to: str, amount: int) -> None:
        self.balances[source] -= amount
        self.balances[to] += amount

    def obligations(self) -> int:
        """What the contract owes and holds."""
        open_balance = sum(channel.deposit - channel.paid for channel in self.channels.values())
        return open_balance + self.stakes() + DISPUTE_BOND * len(self.cases) + self.fees

    def stakes(self) -> int:
        return sum(provider.stake for provider in self.providers.values())

    # --- channels ---------------------------------------------------------------------------------

    @staticmethod
    def _objection(caller: str, wish: Wish, taken: int) -> Code:
        if wish.provider == caller:
            return Code.BAD_PARTY
        if wish.deposit < 1:
            return Code.BAD_DEPOSIT
        if wish.deadline < 32:
            return Code.BAD_DEADLINE
        if wish.challenge < 16:
            return Code.BAD_CHALLENGE
        if wish.burn > 10_000:
            return Code.BAD_BURN
        return Code.FULL if taken >= PLACES or wish.deposit < 2 ** (taken // CROWD) else Code.OK

    def open_all(self, caller: str, wishes: list[Wish], attached: int) -> Code:
        for place, wish in enumerate(wishes):
            code = self._objection(caller, wish, len(self.channels) + place)
            if code != Code.OK:
                return code
        if sum(wish.deposit for wish in wishes) != attached:
            return Code.BAD_DEPOSIT
        used = {*self.channels, *(escrow for escrow, _, _ in self.tickets)}
        if len({wish.escrow for wish in wishes} - used) < len(wishes):
            return Code.ALREADY_OPEN
        for wish in wishes:
            deadline = self.tick + wish.deadline
            self.channels[wish.escrow] = Channel(
                caller, wish.provider, wish.deposit, deadline, wish.challenge, wish.burn
            )
            self._move(caller, CONTRACT, wish.deposit)
        return Code.OK

    def _objection_to(self, by: str, escrow: bytes) -> Code:
        """Against what only the caller of a lease may do, and only while it runs."""
        channel = self.channels.get(escrow)
        if channel is None:
            return Code.UNKNOWN_ESCROW
        if by != channel.caller:
            return Code.NOT_CALLER
        if channel.close_tick:
            return Code.CLOSING
        return Code.TOO_LATE if self.tick >= channel.deadline else Code.OK

    def top_up(self, by: str, escrow: bytes, amount: int, before: int, deadline: int) -> Code:
        """`before`: what the deposit is said to be; `deadline`: the tick it is to move to."""
        code = self._objection_to(by, escrow)
        if code != Code.OK:
            return code
        channel = self.channels[escrow]
        if channel.deposit != before:
            return Code.CHANGED
        if amount < 1:
            return Code.BAD_DEPOSIT
        if not channel.deadline <= deadline <= self.tick + LONGEST_LEASE:
            return Code.BAD_DEADLINE
        channel.deposit, channel.deadline = before + amount, deadline
        self._move(by, CONTRACT, amount)
        return Code.OK

    def redeem(self, by: str, escrow: bytes, cumulative: int, signer: str, bond: int) -> Code:
        channel = self.channels.get(escrow)
        if channel is None:
            return Code.UNKNOWN_ESCROW
        if self.tick >= channel.last_tick:
            return Code.TOO_LATE
        if cumulative <= channel.paid:
            return Code.NOT_RISING
        if cumulative > channel.deposit:
            return Code.ABOVE_DEPOSIT
        if bond < BOND:
            return Code.NEEDS_BOND
        if signer != channel.caller:
            self._move(by, BURNED, BOND)
            return Code.BAD_SIGNATURE
        before = channel.paid
        self._move(CONTRACT, channel.provider, net(cumulative, channel.burn) - net(before, channel.burn))
        self._move(CONTRACT, BURNED, burned(cumulative, channel.burn) - burned(before, channel.burn))
        self.fees += fee(cumulative) - fee(before)
        channel.paid = cumulative
        self.volume += cumulative - before
        return Code.OK

    def close(self, by: str, escrow: bytes, cumulative: int, signer: str, bond: int) -> Code:
        channel = self.channels.get(escrow)
        if channel is None:
            return Code.UNKNOWN_ESCROW
        if by != channel.provider:
            return Code.NOT_PROVIDER
        if cumulative != channel.paid:
            code = self.redeem(by, escrow, cumulative, signer, bond)
            if code != Code.OK:
                return code
        self._refund(escrow)
        return Code.OK

    def request_close(self, by: str, escrow: bytes) -> Code:
        code = self._objection_to(by, escrow)
        if code == Code.OK:
            channel = self.channels[escrow]
            channel.close_tick = min(self.tick + channel.challenge, channel.deadline)
        return code

    def finalize(self, escrow: bytes) -> Code:
        channel = self.channels.get(escrow)
        if channel is None:
            return Code.UNKNOWN_ESCROW
        if self.tick < channel.last_tick:
            return Code.TOO_EARLY
        self._refund(escrow)
        return Code.OK

    def _refund(self, escrow: bytes) -> None:
        channel = self.channels.pop(escrow)
        self.ended[escrow] = channel.paid
        self._move(CONTRACT, channel.caller, channel.deposit - channel.paid)
        provider = self.providers.get(channel.provider)
        if provider is None or channel.paid < ENOUGH:
            return
        provider.completed += 1
        provider.volume += channel.paid
        if len(self.tickets) < TICKETS:
            key = (escrow, channel.caller, channel.provider)
            self.tickets[key] = Ticket(channel.paid, self.epoch)

    # --- registry ---------------------------------------------------------------------------------

    def register(self, by: str, stake: int) -> Code:
        if stake < STAKE:
            return Code.BAD_DEPOSIT
        if by in self.providers:
            return Code.ALREADY_REGISTERED
        self.providers[by] = Provider(stake, self.tick)
        self._move(by, CONTRACT, stake)
        return Code.OK

    def update(self, by: str, added: int) -> Code:
        provider = self.providers.get(by)
        if provider is None:
            return Code.UNKNOWN_PROVIDER
        if provider.exit_epoch:
            return Code.EXITING
        provider.stake += added
        self._move(by, CONTRACT, added)
        return Code.OK

    def leave(self, by: str) -> Code:
        provider = self.providers.get(by)
        if provider is None:
            return Code.UNKNOWN_PROVIDER
        if provider.exit_epoch:
            return Code.EXITING
        provider.exit_epoch = self.epoch + 1
        return Code.OK

    def rate(self, by: str, escrow: bytes, provider: str, stars: int) -> Code:
        if not 1 <= stars <= 5:
            return Code.BAD_STARS
        ticket = self.tickets.get((escrow, by, provider))
        if ticket is None:
            return Code.NO_TICKET
        if ticket.rated:
            return Code.ALREADY_DONE
        if provider not in self.providers:
            return Code.UNKNOWN_PROVIDER
        ticket.rated = True
        self.providers[provider].stars.append(stars)
        return Code.OK

    def slash(self, by: str, provider: str, first: Span, second: Span, bond: int) -> Code:
        accused = self.providers.get(provider)
        if accused is None:
            return Code.UNKNOWN_PROVIDER
        told = all(accused.since <= span.start < span.end <= self.tick for span in (first, second))
        overlap = min(first.end, second.end) - max(first.start, second.start)
        if first.escrow == second.escrow or not told or overlap < 1:
            return Code.BAD_RECEIPTS
        if bond < 2 * BOND:
            return Code.NEEDS_BOND
        if {first.signer, second.signer} != {provider}:
            self._move(by, BURNED, 2 * BOND)
            return Code.BAD_SIGNATURE
        del self.providers[provider]
        reward = accused.stake // 100 * 25
        self._move(CONTRACT, by, reward)
        self._move(CONTRACT, BURNED, accused.stake - reward)
        return Code.OK

    # --- disputes and purchases -------------------------------------------------------------------

    def dispute(self, by: str, escrow: bytes, provider: str, bond: int) -> Code:
        if bond != DISPUTE_BOND:
            return Code.BAD_DEPOSIT
        ticket = self.tickets.get((escrow, by, provider))
        if ticket is None:
            return Code.NO_TICKET
        if ticket.disputed or escrow in self.cases:
            return Code.ALREADY_DONE
        if provider not in self.providers:
            return Code.UNKNOWN_PROVIDER
        if len(self.cases) >= DISPUTES:
            return Code.FULL
        ticket.disputed = True
        self.providers[provider].disputed += 1
        self.cases[escrow] = Case(by, provider, self.tick + DISPUTE_TICKS)
        self._move(by, CONTRACT, bond)
        return Code.OK

    def decide(self, by: str, escrow: bytes, verdict: int) -> Code:
        case = self.cases.get(escrow)
        if case is None:
            return Code.UNKNOWN_DISPUTE
        if by not in self.arbiters or by in (case.caller, case.provider):
            return Code.NOT_ARBITER
        if self.tick >= case.until:
            return Code.TOO_LATE
        if verdict not in (1, 2):
            return Code.BAD_VERDICT
        slot = self.arbiters.index(by)
        if slot in case.verdicts:
            return Code.ALREADY_DONE
        case.verdicts[slot] = verdict
        if Counter(case.verdicts.values())[verdict] == 2:
            self._end_case(escrow, case.caller if verdict == 1 else case.provider)
            if verdict == 1 and case.provider in self.providers:
                self.providers[case.provider].failed += 1
        return Code.OK

    def _end_case(self, escrow: bytes, winner: str) -> None:
        del self.cases[escrow]
        self._move(CONTRACT, winner, DISPUTE_BOND)

    def rotate(self, by: str, candidate: str, slot: int) -> Code:
        if by not in self.arbiters:
            return Code.NOT_ARBITER
        if slot > 2:
            return Code.BAD_COUNT
        if candidate in self.arbiters:
            return Code.BAD_PARTY
        own = self.arbiters.index(by)
        if any(wish == (candidate, slot) for place, wish in self.wishes.items() if place != own):
            self.arbiters[slot] = candidate
            self.wishes.clear()
        else:
            self.wishes[own] = (candidate, slot)
        return Code.OK

    def buy(self, by: str, seller: str, item: bytes, price: int) -> Code:
        key = (item, by, seller)
        if seller == by:
            return Code.BAD_PARTY
        if price < ENOUGH:
            return Code.BAD_DEPOSIT
        if key in self.purchases:
            return Code.ALREADY_DONE
        if len(self.purchases) >= PURCHASES:
            return Code.FULL
        royalty = price * 2 // 100
        self._move(by, seller, price - royalty)
        self._move(by, CONTRACT, royalty)
        self.fees += royalty
        self.purchases[key] = self.epoch
        return Code.OK

    # --- time -------------------------------------------------------------------------------------

    def next_tick(self, tick: int) -> None:
        """Ends this tick, whose sweep may refund, and begins another."""
        if self.tick % SWEEP == 0:
            self._sweep()
        self.tick = tick

    def _sweep(self) -> None:
        for escrow in [key for key, one in self.channels.items() if one.last_tick <= self.tick]:
            self._refund(escrow)
        for escrow in [key for key, one in self.cases.items() if one.until <= self.tick]:
            self._end_case(escrow, self.cases[escrow].caller)

    def change_epoch(self) -> None:
        self._sweep()
        for name in [name for name, one in self.providers.items() if 0 < one.exit_epoch <= self.epoch]:
            self._move(CONTRACT, name, self.providers.pop(name).stake)
        self.tickets = {key: one for key, one in self.tickets.items() if one.epoch == self.epoch}
        self.purchases = {key: epoch for key, epoch in self.purchases.items() if epoch == self.epoch}
        fifth = self.fees * 20 // 100
        shared = (self.fees - fifth) // SHARES * SHARES
        self._move(CONTRACT, BURNED, fifth + shared)
        self.fees -= fifth + shared
        self.epoch += 1
