"""What anybody may do to the escrow contract in a random episode: each function makes one call on both
sides, the compiled contract and the model, and returns the code of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from escrow_bridge import layout
from escrow_bridge import layout_registry as registry
from escrow_bridge.devnet.host import contract_id
from escrow_bridge.layout import LeaseOrder, Procedure
from escrow_bridge.layout_registry import Receipt
from protocol.units import EscrowId, LeaseId, Qu, Tick
from tests.support.contract_invariants import a_copy_adds_nothing, a_valid_voucher_is_paid_in_time
from tests.support.contract_model import LONGEST_LEASE
from tests.support.contract_records import Span, Wish
from tests.support.contract_world import INDEX, KEYS, WALLETS, World
from tests.support.escrow import Code

GPUS: Final = (b"\x61" * 32, b"\x62" * 32)
Codes = tuple[Code, Code]
"""What the contract said, and what the model says."""


def a_voucher(world: World) -> tuple[bytes, int, str]:
    """(escrow, cumulative, who signs it)"""
    escrow = world.an_escrow()
    channel = world.model.channels.get(escrow)
    most = channel.deposit if channel else 1_000
    low = channel.paid if channel and not world.chance(6) else -1
    cumulative = world.random.choice((low + 1, world.random.randrange(low, most + 1), most, most + 1, low))
    return escrow, cumulative, world.the_one(escrow, 0)


def a_bond(world: World) -> int:
    return world.random.choice((100, 100, 100, 100, 250, 99, 0))


def open_one(world: World) -> Codes:
    by = world.someone()
    return ask_to_open(world, by, *a_lease(world, by, world.opened))


def ask_to_open(world: World, by: str, wish: Wish, order: LeaseOrder) -> Codes:
    payload = layout.open_input(
        order.provider,
        order.terms,
        order.deadline_tick,
        order.challenge_ticks,
        world.network,
        order.burn_basis_points,
    )
    code = world.call(by, Procedure.OPEN, payload, wish.deposit)
    return code, note(world, by, [wish], wish.deposit)


def reopen(world: World) -> Codes:
    """A lease that opens, pays, ends, perhaps is disputed or rated, and opens again, all in one tick."""
    by = world.someone()
    wish, order = a_lease(world, by, world.opened)
    codes = ask_to_open(world, by, wish, order)
    if codes != (Code.OK, Code.OK):
        return codes
    escrow, paid = wish.escrow, min(wish.deposit, world.random.choice((9_999, 10_000, 20_000)))
    code = world.call(wish.provider, Procedure.CLOSE, world.sign(by, escrow, paid), 100)
    assert code == world.model.close(wish.provider, escrow, paid, by, 100) == Code.OK
    for use in (rate, dispute):
        got, expected = use(world, escrow) if world.chance(2) else codes
        assert got == expected, f"{use.__name__} before the second opening: {got!r}, not {expected!r}"
    return ask_to_open(world, by, wish, order)


def a_lease(world: World, by: str, number: int) -> tuple[Wish, LeaseOrder]:
    world.opened += 1
    provider = world.someone()
    deposit = world.random.choice((0, 1, 500, 20_000, 20_000, 123_456, 2_000_000))
    deadline = world.random.choice((31, 32, 33, 60, 200, 5_000))
    challenge = world.random.choice((15, 16, 20, 100))
    burn = world.random.choice((0, 0, 0, 1, 250, 5_000, 10_000, 10_001))
    if not world.chance(6):
        deposit, deadline = max(deposit, 1), max(deadline, 32)
        challenge, burn = max(challenge, 16), min(burn, 10_000)
    terms, tick = LeaseId(number.to_bytes(32, "little")), Tick(world.host.tick)
    escrow = layout.escrow_id(KEYS[by], KEYS[provider], terms, INDEX, tick)
    order = LeaseOrder(KEYS[provider], terms, Qu(deposit), Tick(tick + deadline), challenge, burn)
    return Wish(escrow, provider, deposit, deadline, challenge, burn), order


def note(world: World, by: str, wishes: list[Wish], attached: int) -> Code:
    code = world.model.open_all(by, wishes, attached)
    for wish in wishes if code == Code.OK else ():
        world.escrows.append(wish.escrow)
        world.parties[wish.escrow] = (by, wish.provider)
        world.promised.setdefault(wish.escrow, 0)
    return code


def open_many(world: World) -> Codes:
    by = world.someone()
    count = world.random.randrange(1, 5)
    both = [a_lease(world, by, max(0, world.opened - world.chance(10))) for _ in range(count)]
    wishes = [wish for wish, _ in both]
    attached = sum(wish.deposit for wish in wishes) + (
        world.random.choice((1, 500)) if world.chance(8) else 0
    )
    payload = layout.open_many_input([order for _, order in both], world.network)
    return world.call(by, Procedure.OPEN_MANY, payload, attached), note(world, by, wishes, attached)


def top_up(world: World) -> Codes:
    """And sometimes the same a second time, as a copy of a transaction would."""
    escrow = world.an_escrow()
    by, amount = world.the_one(escrow, 0), world.amount(5_000)
    before, deadline = more_of(world, escrow)
    payload = layout.top_up_input(EscrowId(escrow), Qu(before), Tick(deadline))
    codes = (
        world.call(by, Procedure.TOP_UP, payload, amount),
        world.model.top_up(by, escrow, amount, before, deadline),
    )
    if codes == (Code.OK, Code.OK) and world.chance(3):
        a_copy_adds_nothing(world.call(by, Procedure.TOP_UP, payload, amount))
    return codes


def more_of(world: World, escrow: bytes) -> tuple[int, int]:
    """What a caller says that the deposit is, and the deadline it wants; mostly right."""
    channel = world.model.channels.get(escrow)
    deposit, old, now = (channel.deposit, channel.deadline, world.host.tick) if channel else (500, 0, 0)
    wrong = world.random.choice((-1, 1, -deposit)) if world.chance(6) else 0
    later = max(0, old + world.random.choice((-1, -1, 0, 1, 200, 200)))
    edges = (now + LONGEST_LEASE, now + LONGEST_LEASE + 1, now + LONGEST_LEASE + 1, 0)
    return deposit + wrong, world.random.choice(edges) if world.chance(3) else later


def redeem(world: World) -> Codes:
    (escrow, cumulative, signer), by, bond = a_voucher(world), world.someone(), a_bond(world)
    code = world.call(by, Procedure.REDEEM, world.sign(signer, escrow, cumulative), bond)
    return code, world.model.redeem(by, escrow, cumulative, signer, bond)


def redeem_many(world: World) -> Codes:
    by, vouchers = world.someone(), [a_voucher(world) for _ in range(world.random.randrange(1, 10))]
    attached = 100 * len(vouchers) - (1 if world.chance(10) else 0)
    payload = layout.redeem_many_input([world.sign(who, escrow, most) for escrow, most, who in vouchers])
    code = world.call(by, Procedure.REDEEM_MANY, payload, attached)
    if attached < 100 * len(vouchers):
        return code, Code.NEEDS_BOND
    for escrow, cumulative, signer in vouchers:
        world.model.redeem(by, escrow, cumulative, signer, 100)
    return code, Code.OK


def claim(world: World) -> Codes:
    """Whoever holds a valid voucher within the window is paid what it promises, whatever came before."""
    escrow = world.an_escrow()
    channel = world.model.channels.get(escrow)
    best = min(world.promised.get(escrow, 0), channel.deposit if channel else 0)
    if channel is None or best <= channel.paid or world.host.tick >= channel.last_tick:
        return redeem(world)
    by, before = world.someone(), world.host.balance(KEYS[channel.provider])
    code = world.call(by, Procedure.REDEEM, world.sign(world.parties[escrow][0], escrow, best), 100)
    got = world.host.balance(KEYS[channel.provider]) - before
    a_valid_voucher_is_paid_in_time(channel, best, code, got)
    return code, world.model.redeem(by, escrow, best, channel.caller, 100)


def close(world: World) -> Codes:
    escrow, cumulative, signer = a_voucher(world)
    by, bond = world.the_one(escrow, 1), a_bond(world)
    code = world.call(by, Procedure.CLOSE, world.sign(signer, escrow, cumulative), bond)
    return code, world.model.close(by, escrow, cumulative, signer, bond)


def request_close(world: World) -> Codes:
    escrow = world.an_escrow()
    by = world.the_one(escrow, 0)
    code = world.call(by, Procedure.REQUEST_CLOSE, escrow, world.amount(5))
    return code, world.model.request_close(by, escrow)


def finalize(world: World) -> Codes:
    escrow = world.an_escrow()
    code = world.call(world.someone(), Procedure.FINALIZE, escrow, world.amount(5))
    return code, world.model.finalize(escrow)


def register(world: World) -> Codes:
    by, stake = world.someone(), world.random.choice((999_999, 1_000_000, 1_000_000, 7_654_321))
    payload = registry.register_input(KEYS[by], bytes(32), world.network)
    return world.call(by, Procedure.REGISTER, payload, stake), world.model.register(by, stake)


def update(world: World) -> Codes:
    by, added = world.someone(), world.amount(1_000)
    payload = registry.register_input(bytes(32), KEYS[by], world.network)
    return world.call(by, Procedure.UPDATE, payload, added), world.model.update(by, added)


def leave(world: World) -> Codes:
    by = world.someone()
    return world.call(by, Procedure.EXIT, registry.exit_input(world.network), 3), world.model.leave(by)


def rate(world: World, escrow: bytes | None = None) -> Codes:
    escrow, stars = escrow or world.a_ticket(), world.random.randrange(7)
    by, provider = world.the_one(escrow, 0), world.the_one(escrow, 1)
    payload = registry.rate_input(EscrowId(escrow), KEYS[provider], stars)
    return world.call(by, Procedure.RATE, payload, 1), world.model.rate(by, escrow, provider, stars)


def slash(world: World) -> Codes:
    accused, by, gpu = world.someone(), world.someone(), world.random.choice(GPUS)
    spans: list[Span] = []
    signatures = []
    for _ in range(2):
        start = world.host.tick - world.random.randrange(40)
        if spans and world.chance(4):
            start = spans[0].end
        end = min(start + world.random.randrange(1, 30), world.host.tick + world.chance(8))
        signer = world.someone() if world.chance(4) else accused
        spans.append(Span(world.an_escrow(), start, end, signer))
        receipt = receipt_of(spans[-1], gpu)
        signatures.append(WALLETS[signer].sign(receipt.digest(world.network)))
    first, second = (receipt_of(span, gpu) for span in spans)
    payload = registry.slash_input(KEYS[accused], first, signatures[0], second, signatures[1])
    bond = world.random.choice((200, 200, 200, 199, 0, 1_000))
    code = world.call(by, Procedure.SLASH, payload, bond)
    return code, world.model.slash(by, accused, spans[0], spans[1], bond)


def receipt_of(span: Span, gpu: bytes) -> Receipt:
    return Receipt(gpu, EscrowId(span.escrow), Tick(span.start), Tick(span.end))


def dispute(world: World, escrow: bytes | None = None) -> Codes:
    escrow = escrow or world.a_ticket()
    by, provider = world.the_one(escrow, 0), world.the_one(escrow, 1)
    bond = world.random.choice((100_000, 100_000, 100_000, 99_999, 0))
    payload = registry.open_dispute_input(EscrowId(escrow), KEYS[provider], bytes(32))
    code = world.call(by, Procedure.OPEN_DISPUTE, payload, bond)
    return code, world.model.dispute(by, escrow, provider, bond)


def decide(world: World) -> Codes:
    escrow = world.random.choice([*world.model.cases, world.an_escrow()])
    by = world.someone() if world.chance(5) else world.random.choice(world.model.arbiters)
    verdict = world.random.choice((1, 1, 2, 2, 0, 3))
    payload = escrow + verdict.to_bytes(8, "little")
    return world.call(by, Procedure.DECIDE, payload, 2), world.model.decide(by, escrow, verdict)


def rotate(world: World) -> Codes:
    by = world.someone() if world.chance(5) else world.random.choice(world.model.arbiters)
    candidate, slot = world.random.choice(["spare", "arbiter0", "arbiter1"]), world.random.randrange(4)
    payload = registry.rotate_input(KEYS[candidate], world.network, slot)
    return world.call(by, Procedure.ROTATE, payload, 1), world.model.rotate(by, candidate, slot)


def buy(world: World) -> Codes:
    by, seller, item = world.someone(), world.someone(), world.random.randrange(20).to_bytes(32, "little")
    price = world.random.choice((9_999, 10_000, 12_345, 10**7))
    payload = registry.buy_input(KEYS[seller], item, world.network)
    return world.call(by, Procedure.BUY, payload, price), world.model.buy(by, seller, item, price)


def send_for_nothing(world: World) -> Codes:
    kind = world.random.choice((0, 18, 9_999))
    world.host.apply(KEYS[world.someone()], contract_id(INDEX), world.amount(1_000), kind, b"")
    return Code.OK, Code.OK


def pass_ticks(world: World) -> Codes:
    for _ in range(world.random.choice((1, 1, 2, 17))):
        world.leap(world.host.tick + 1)
    return Code.OK, Code.OK


def pass_to_an_edge(world: World) -> Codes:
    """To the last tick of a window, or the first after it."""
    channel = world.model.channels.get(world.an_escrow())
    edge = channel.last_tick if channel else world.host.tick
    world.leap(max(world.host.tick + 1, edge + world.random.choice((-1, 0, 1))))
    return Code.OK, Code.OK


def pass_months(world: World) -> Codes:
    """Ends all disputes, and all leases but those that were given the longest time."""
    world.leap(world.host.tick + 600_000 + world.random.randrange(32))
    return Code.OK, Code.OK


def change_epoch(world: World) -> Codes:
    world.change_epoch()
    return Code.OK, Code.OK


def rest(world: World) -> Codes:
    """Nobody does anything: what Hypothesis makes of a step without which a failure remains."""
    return Code.OK, Code.OK


Action = Callable[[World], Codes]
ACTIONS: Final[dict[Action, int]] = {
    rest: 1,
    open_one: 10,
    open_many: 4,
    reopen: 2,
    top_up: 6,
    redeem: 14,
    redeem_many: 4,
    claim: 8,
    close: 6,
    request_close: 3,
    finalize: 3,
    register: 7,
    update: 2,
    leave: 1,
    rate: 6,
    slash: 4,
    dispute: 6,
    decide: 6,
    rotate: 2,
    buy: 3,
    send_for_nothing: 1,
    pass_ticks: 8,
    pass_to_an_edge: 3,
    pass_months: 1,
    change_epoch: 1,
}
"""Each with its weight. The first is what others shrink to."""
