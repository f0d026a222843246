"""What must hold of the escrow contract whatever anybody does, each by a name of its own.

The first five are the promises of the contract. The last two say that it also does what its model does.
"""

from __future__ import annotations

from escrow_bridge import layout
from escrow_bridge import layout_registry as registry
from escrow_bridge.devnet.host import contract_id
from escrow_bridge.layout import Function, Procedure
from protocol.units import EscrowId
from tests.support.contract_model import BURNED, CONTRACT, LONGEST_LEASE
from tests.support.contract_records import Channel
from tests.support.contract_world import FUNDS, INDEX, KEYS, RECENT, WALLETS, World
from tests.support.escrow import Code, net


def every_qu_is_conserved(world: World) -> None:
    """All money is in a wallet, in the contract or burned; what the contract holds it owes to somebody."""
    held, info = world.host.balance(contract_id(INDEX)), world.info()
    owned = sum(world.host.balance(key) for key in KEYS.values())
    assert owned + held + world.host.destroyed == FUNDS * len(WALLETS), "a QU appeared or vanished"
    owed = (info.open_balance, info.stakes, info.bonds, info.fees_undistributed)
    assert held == sum(owed), "the contract holds another sum than it owes"
    assert min(owed) >= 0, f"the contract owes less than nothing: {owed}"


def nobody_is_paid_more_than_vouchers_allow(world: World) -> None:
    paid = {escrow: channel.paid for escrow, channel in world.model.channels.items()} | world.model.ended
    for escrow, amount in paid.items():
        assert amount <= world.promised[escrow], "more was paid than was signed for"
    assert world.info().volume == world.model.volume, "the contract counts another volume"


def a_valid_voucher_is_paid_in_time(channel: Channel, cumulative: int, code: Code, got: int) -> None:
    """A provider loses nothing that a voucher promised if it acts within the window, whatever came before.
    `channel` as it was before the voucher was redeemed; `got`: QU that arrived."""
    assert code == Code.OK, f"a valid voucher was not paid: {code!r}"
    due = net(cumulative, channel.burn) - net(channel.paid, channel.burn)
    assert got == due, f"a valid voucher paid {got} QU, not {due}"


def a_copy_adds_nothing(code: Code) -> None:
    """A top-up whose transaction comes a second time; that its money came back is seen by the balances."""
    assert code == Code.CHANGED, f"a copy of a top-up was taken: {code!r}"


def refunds_are_reachable(world: World) -> None:
    """From here on nobody but leaving providers acts, half of the time the reserve is empty too: deposits
    and bonds come back by themselves, stakes to those who leave, and but for a rest of fees nothing stays."""
    for name in sorted(world.model.providers):
        code = world.call(name, Procedure.EXIT, registry.exit_input(world.network), 0)
        assert code == world.model.leave(name)
    if world.chance(2):
        world.host.set_reserve(INDEX, 0)
    world.leap(world.host.tick + LONGEST_LEASE)
    world.leap((world.host.tick + 2 * LONGEST_LEASE) // 16 * 16)
    for _ in range(3):
        world.change_epoch()
    info = world.info()
    kept = (info.open_balance, info.stakes, info.bonds)
    assert kept == (0, 0, 0), f"deposits, stakes and bonds that did not come back: {kept}"
    assert info.opened == info.closed, "a lease never ended"
    rest = world.host.balance(contract_id(INDEX))
    assert rest == info.fees_undistributed < 676, f"the contract keeps {rest} QU"


def totals_are_the_models(world: World) -> None:
    model, info = world.model, world.info()
    for name, key in KEYS.items():
        agree(f"the balance of {name}", world.host.balance(key), model.balances[name])
    held = world.host.balance(contract_id(INDEX))
    agree("the contract's balance", held, model.balances[CONTRACT])
    agree("what was destroyed", world.host.destroyed, model.balances[BURNED])
    agree("what the contract owes", held, model.obligations())
    agree("stakes", info.stakes, model.stakes())
    agree("fees", info.fees_undistributed, model.fees)
    agree("the number of open leases", info.opened - info.closed, len(model.channels))


def records_are_the_models(world: World) -> None:
    """Of the leases of late, and of every provider."""
    for escrow in world.escrows[-3 * RECENT :]:
        reading = layout.decode_reading(
            EscrowId(escrow), world.host.query(INDEX, Function.GET_ESCROW, escrow)
        )
        assert reading is not None, "the contract answers nothing about a lease"
        view, channel = reading.view, world.model.channels.get(escrow)
        seen = view and (view.deposit, view.paid, view.last_tick, view.burn_basis_points)
        known = channel and (channel.deposit, channel.paid, channel.last_tick, channel.burn)
        agree(f"lease {escrow.hex()[:12]}", seen, known)
    for name, key in KEYS.items():
        found = registry.decode_provider(world.host.query(INDEX, Function.GET_PROVIDER, key))
        model = world.model.providers.get(name)
        record = found and (
            *(found.stake, found.volume, found.completed, found.disputed),
            *(found.failed, found.stars, found.ratings),
        )
        expected = model and (
            *(model.stake, model.volume, model.completed, model.disputed),
            *(model.failed, sum(model.stars), len(model.stars)),
        )
        agree(f"the record of {name}", record, expected)


def agree(what: str, contract: object, model: object) -> None:
    assert contract == model, f"{what}: {contract} in the contract, {model} in the model"
