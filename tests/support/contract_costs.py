"""Every procedure of the escrow contract, accepted and refused, each ready to be called and measured.

A `Case` prepares one call on a fresh place (a channel, a ticket, a dispute of its own) and says how it must
end. The refusals are, for each procedure, the one that comes after the most work, once without and once
with a signature that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from escrow_bridge import layout
from escrow_bridge import layout_registry as registry
from escrow_bridge.devnet.host import Cost
from escrow_bridge.layout import LeaseOrder, Procedure
from escrow_bridge.qubic import Wallet
from protocol.units import EscrowId, LeaseId, Qu, QubicId, Tick
from tests.support.escrow import BOND, NO_SIGNATURE, Code
from tests.support.guild import BOND_OF_DISPUTE, ENOUGH, METADATA, PEER, STAKE, Guild

DEPOSIT: Final = 2 * ENOUGH
DEADLINE: Final = 33
Call = tuple[Wallet, bytes, int]
"""Who calls, with which input and how much attached."""


@dataclass(frozen=True)
class Case:
    procedure: Procedure
    code: Code
    prepare: Callable[[Guild, int], Call]
    signatures_wrong: bool = False

    @property
    def name(self) -> str:
        wrong = ", wrong signatures" if self.signatures_wrong else ""
        return f"{self.procedure.name.lower()} {self.code.name.lower()}{wrong}"

    def run(self, guild: Guild, number: int) -> Cost:
        """Makes the call and gives what it used. On one guild numbers count up from 0."""
        by, payload, attached = self.prepare(guild, number)
        output = guild.call(by, self.procedure, payload, attached)
        cost = guild.host.cost()
        start = 32 if self.procedure is Procedure.OPEN else 0
        assert Code(output[start]) == self.code, f"{self.name}: {Code(output[start])!r}"
        return cost


def a_guild() -> Guild:
    guild = Guild()
    assert guild.register() == Code.OK
    return guild


def terms(number: int) -> bytes:
    return number.to_bytes(32, "little")


def a_channel(guild: Guild, number: int) -> bytes:
    code, escrow = guild.open(DEPOSIT, deadline=DEADLINE, terms=terms(number))
    assert code == Code.OK
    return escrow


def ended(guild: Guild, number: int) -> bytes:
    return guild.ended_lease(terms=terms(number))


def wallet(guild: Guild, number: int) -> Wallet:
    """One that can pay a stake."""
    made = Wallet("".join(chr(97 + number // 26**place % 26) for place in range(55)))
    guild.host.credit(made.public_key, 2 * STAKE)
    return made


# --- channels -------------------------------------------------------------------------------------


def opening(guild: Guild, number: int) -> Call:
    key, until = QubicId(guild.provider.public_key), Tick(guild.host.tick + 100)
    return (
        guild.caller,
        layout.open_input(key, LeaseId(terms(number)), until, 20, guild.network, 0),
        DEPOSIT,
    )


def opening_again(guild: Guild, number: int) -> Call:
    a_channel(guild, number)
    return opening(guild, number)


def orders(guild: Guild, numbers: list[int]) -> Call:
    key, until = QubicId(guild.provider.public_key), Tick(guild.host.tick + 100)
    leases = [LeaseOrder(key, LeaseId(terms(each)), Qu(DEPOSIT), until, 20) for each in numbers]
    return guild.caller, layout.open_many_input(leases, guild.network), DEPOSIT * len(leases)


def eight(guild: Guild, number: int) -> Call:
    return orders(guild, [8 * number + place for place in range(8)])


def eight_with_a_twin(guild: Guild, number: int) -> Call:
    return orders(guild, [*range(8 * number, 8 * number + 7), 8 * number])


def topping_up(guild: Guild, number: int) -> Call:
    until = Tick(guild.host.tick + 2 * DEADLINE)
    return guild.caller, layout.top_up_input(EscrowId(a_channel(guild, number)), Qu(DEPOSIT), until), 1


def topping_up_too_long(guild: Guild, number: int) -> Call:
    until = Tick(guild.host.tick + layout.MAX_DEADLINE_TICKS + 1)
    return guild.caller, layout.top_up_input(EscrowId(a_channel(guild, number)), Qu(DEPOSIT), until), 1


def voucher(guild: Guild, number: int) -> Call:
    return guild.provider, guild.voucher(a_channel(guild, number), ENOUGH), BOND


def voucher_without_bond(guild: Guild, number: int) -> Call:
    by, payload, _ = voucher(guild, number)
    return by, payload, 0


def voucher_of_another(guild: Guild, number: int) -> Call:
    return guild.provider, guild.voucher(a_channel(guild, number), ENOUGH, by=guild.stranger), BOND


def nine(guild: Guild, number: int) -> Call:
    payloads = [voucher(guild, 9 * number + place)[1] for place in range(9)]
    return guild.provider, layout.redeem_many_input(payloads), 9 * BOND


def nine_wrong(guild: Guild, number: int) -> Call:
    payloads = [voucher_of_another(guild, 9 * number + place)[1] for place in range(9)]
    return guild.provider, layout.redeem_many_input(payloads), 9 * BOND


def nine_unpaid(guild: Guild, number: int) -> Call:
    return guild.provider, layout.redeem_many_input([terms(number) + bytes(8) + NO_SIGNATURE] * 9), 0


def closing(guild: Guild, number: int) -> Call:
    return guild.caller, a_channel(guild, number), 0


def closing_twice(guild: Guild, number: int) -> Call:
    by, escrow, _ = closing(guild, number)
    assert guild.code(by, Procedure.REQUEST_CLOSE, escrow) == Code.OK
    return by, escrow, 0


def finalizing(guild: Guild, number: int) -> Call:
    escrow = a_channel(guild, number)
    assert guild.redeem(escrow, ENOUGH) == Code.OK
    guild.tick_to(guild.host.tick + DEADLINE)
    return guild.stranger, escrow, 0


def finalizing_early(guild: Guild, number: int) -> Call:
    return guild.stranger, a_channel(guild, number), 0


# --- registry -------------------------------------------------------------------------------------


def record(guild: Guild) -> bytes:
    return registry.register_input(PEER, METADATA, guild.network)


def registering(guild: Guild, number: int) -> Call:
    return wallet(guild, number), record(guild), STAKE


def registering_twice(guild: Guild, number: int) -> Call:
    return guild.provider, record(guild), STAKE


def updating(guild: Guild, number: int) -> Call:
    return guild.provider, record(guild), 0


def updating_nothing(guild: Guild, number: int) -> Call:
    return guild.stranger, record(guild), 0


def leaving(guild: Guild, number: int) -> Call:
    by = wallet(guild, number)
    assert guild.register(by=by) == Code.OK
    return by, registry.exit_input(guild.network), 0


def leaving_twice(guild: Guild, number: int) -> Call:
    by, payload, _ = leaving(guild, number)
    assert guild.exit(by=by) == Code.OK
    return by, payload, 0


def rating(guild: Guild, number: int) -> Call:
    key = QubicId(guild.provider.public_key)
    return guild.caller, registry.rate_input(EscrowId(ended(guild, number)), key, 5), 0


def rating_twice(guild: Guild, number: int) -> Call:
    by, payload, _ = rating(guild, number)
    assert guild.code(by, Procedure.RATE, payload) == Code.OK
    return by, payload, 0


def reporting(guild: Guild, number: int, signer: Wallet | None = None) -> Call:
    if guild.view() is None:
        assert guild.register() == Code.OK
    now = guild.host.tick
    guild.tick_to(now + 3)
    first, second = (guild.receipt(terms(each), (now, now + 2)) for each in (1, 2))
    signatures = [
        by.sign(receipt.digest(guild.network))
        for by, receipt in ((guild.provider, first), (signer or guild.provider, second))
    ]
    key = QubicId(guild.provider.public_key)
    payload = registry.slash_input(key, first, signatures[0], second, signatures[1])
    return guild.stranger, payload, 2 * BOND


def reporting_without_bond(guild: Guild, number: int) -> Call:
    by, payload, _ = reporting(guild, number)
    return by, payload, 0


def reporting_wrongly(guild: Guild, number: int) -> Call:
    return reporting(guild, number, guild.stranger)


def disputing(guild: Guild, number: int) -> Call:
    key, escrow = QubicId(guild.provider.public_key), EscrowId(ended(guild, number))
    return guild.caller, registry.open_dispute_input(escrow, key, METADATA), BOND_OF_DISPUTE


def disputing_twice(guild: Guild, number: int) -> Call:
    by, payload, bond = disputing(guild, number)
    assert guild.code(by, Procedure.OPEN_DISPUTE, payload, bond) == Code.OK
    decide_all(guild, payload[:32])
    return by, payload, bond


def decide_all(guild: Guild, escrow: bytes) -> None:
    for arbiter in guild.arbiters[:2]:
        assert guild.decide(escrow, 1, arbiter) == Code.OK


def deciding(guild: Guild, number: int) -> Call:
    """The second verdict, which ends the dispute."""
    escrow = EscrowId(ended(guild, number))
    assert guild.dispute(escrow) == guild.decide(escrow, 1, guild.arbiters[0]) == Code.OK
    return guild.arbiters[1], registry.decide_input(escrow, registry.Verdict.FOR_CALLER), 0


def deciding_twice(guild: Guild, number: int) -> Call:
    _, payload, _ = deciding(guild, number)
    return guild.arbiters[0], payload, 0


def rotating(guild: Guild, number: int) -> Call:
    """The second wish, which is granted: the third place goes to and fro."""
    third = guild.arbiters[2] if number % 2 else guild.stranger
    key = QubicId(third.public_key)
    assert guild.rotate(key, 2, guild.arbiters[0]) == Code.OK
    return guild.arbiters[1], registry.rotate_input(key, guild.network, 2), 0


def rotating_in_vain(guild: Guild, number: int) -> Call:
    key = QubicId(guild.arbiters[0].public_key)
    return guild.arbiters[1], registry.rotate_input(key, guild.network, 2), 0


def buying(guild: Guild, number: int) -> Call:
    key = QubicId(guild.provider.public_key)
    return guild.caller, registry.buy_input(key, terms(number), guild.network), ENOUGH


def buying_twice(guild: Guild, number: int) -> Call:
    by, payload, price = buying(guild, number)
    assert guild.code(by, Procedure.BUY, payload, price) == Code.OK
    return by, payload, price


CASES: Final = (
    Case(Procedure.OPEN, Code.OK, opening),
    Case(Procedure.OPEN, Code.ALREADY_OPEN, opening_again),
    Case(Procedure.TOP_UP, Code.OK, topping_up),
    Case(Procedure.TOP_UP, Code.BAD_DEADLINE, topping_up_too_long),
    Case(Procedure.REDEEM, Code.OK, voucher),
    Case(Procedure.REDEEM, Code.NEEDS_BOND, voucher_without_bond),
    Case(Procedure.REDEEM, Code.BAD_SIGNATURE, voucher_of_another, True),
    Case(Procedure.CLOSE, Code.OK, voucher),
    Case(Procedure.CLOSE, Code.NEEDS_BOND, voucher_without_bond),
    Case(Procedure.CLOSE, Code.BAD_SIGNATURE, voucher_of_another, True),
    Case(Procedure.REQUEST_CLOSE, Code.OK, closing),
    Case(Procedure.REQUEST_CLOSE, Code.CLOSING, closing_twice),
    Case(Procedure.FINALIZE, Code.OK, finalizing),
    Case(Procedure.FINALIZE, Code.TOO_EARLY, finalizing_early),
    Case(Procedure.OPEN_MANY, Code.OK, eight),
    Case(Procedure.OPEN_MANY, Code.ALREADY_OPEN, eight_with_a_twin),
    Case(Procedure.REDEEM_MANY, Code.OK, nine),
    Case(Procedure.REDEEM_MANY, Code.NEEDS_BOND, nine_unpaid),
    Case(Procedure.REDEEM_MANY, Code.OK, nine_wrong, True),
    Case(Procedure.REGISTER, Code.OK, registering),
    Case(Procedure.REGISTER, Code.ALREADY_REGISTERED, registering_twice),
    Case(Procedure.UPDATE, Code.OK, updating),
    Case(Procedure.UPDATE, Code.UNKNOWN_PROVIDER, updating_nothing),
    Case(Procedure.EXIT, Code.OK, leaving),
    Case(Procedure.EXIT, Code.EXITING, leaving_twice),
    Case(Procedure.RATE, Code.OK, rating),
    Case(Procedure.RATE, Code.ALREADY_DONE, rating_twice),
    Case(Procedure.SLASH, Code.OK, reporting),
    Case(Procedure.SLASH, Code.NEEDS_BOND, reporting_without_bond),
    Case(Procedure.SLASH, Code.BAD_SIGNATURE, reporting_wrongly, True),
    Case(Procedure.OPEN_DISPUTE, Code.OK, disputing),
    Case(Procedure.OPEN_DISPUTE, Code.ALREADY_DONE, disputing_twice),
    Case(Procedure.DECIDE, Code.OK, deciding),
    Case(Procedure.DECIDE, Code.ALREADY_DONE, deciding_twice),
    Case(Procedure.ROTATE, Code.OK, rotating),
    Case(Procedure.ROTATE, Code.BAD_PARTY, rotating_in_vain),
    Case(Procedure.BUY, Code.OK, buying),
    Case(Procedure.BUY, Code.ALREADY_DONE, buying_twice),
)
