"""The wallet's verbs of the control API: balance, transfers, history."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from escrow_bridge.qubic import identity_of, parse_identity
from ledger import arrivals, payments, transactions
from ledger.arrivals import Arrival
from ledger.payments import PaymentRow
from ledger.store import Store
from ledger.transactions import SignedTransaction
from protocol import control_wallet
from protocol.errors import BalanceTooLow, UsageError
from protocol.lease_state import Lease, Role
from protocol.units import MAX_QU, Qu, Tick, UnixMs, net_of
from qubixd.node import Node
from qubixd.payments import SENT, action_of
from qubixd.views import wallet_view


async def wallet(node: Node) -> control_wallet.WalletView:
    balance = await node.parts.chain.balance(node.parts.wallet.public_key)
    tick = node.watchers.tick.tick if node.watchers.tick else Tick(0)
    return wallet_view(node.parts.wallet.identity, balance.amount, tick, await node.all_leases())


async def send(
    node: Node, args: control_wallet.SendArgs, emit: Callable[[object], Awaitable[None]]
) -> control_wallet.PaymentView:
    if not (args.payment_id.isascii() and args.payment_id.isprintable()):
        raise UsageError("the id of a payment consists of letters, digits and signs")
    to = parse_identity(args.identity)
    if to == node.parts.wallet.public_key:
        raise UsageError("this is the identity of this very wallet")
    if args.amount > MAX_QU:
        raise UsageError(f"a payment is at most {MAX_QU} QU")
    if args.check:
        return await _checked(node, args)

    async def report(why: str) -> None:
        await emit(control_wallet.WaitingEvent(why))

    row = await node.payments.send(args.payment_id, to, Qu(args.amount), report)
    return await _payment_view(node.parts.store, row)


async def _checked(node: Node, args: control_wallet.SendArgs) -> control_wallet.PaymentView:
    """Whether the wallet has it now; deposits under way may take it yet, which sending itself looks at."""
    has = (await node.parts.chain.balance(node.parts.wallet.public_key)).amount
    if has < args.amount:
        raise BalanceTooLow(f"this needs {args.amount} QU and the wallet has {has} QU")
    now = node.parts.now_ms()
    return control_wallet.PaymentView(args.payment_id, args.identity, args.amount, "checked", "", now, [])


async def history(node: Node, args: control_wallet.HistoryArgs) -> control_wallet.HistoryView:
    store, entries = node.parts.store, []
    for lease in (await node.all_leases())[-args.limit :]:
        signed = _views(await transactions.about(store, lease.lease_id))
        entry = (lease.role, lease.lease_id.hex(), lease.phase, _effect_on_wallet(lease), lease.opened_at)
        entries.append(control_wallet.HistoryEntry(*entry, signed, name=lease.name, sentence=lease.sentence))
    for row in await payments.newest(store, args.limit):
        signed = _views(await transactions.about(store, row.payment_id.encode()))
        qu = -row.amount if row.state == SENT else 0
        kind = action_of(row) if row.procedure else "send"
        entries.append(
            control_wallet.HistoryEntry(
                kind,
                row.payment_id,
                row.state,
                qu,
                row.created_ms,
                signed,
                to=identity_of(row.destination),
                amount=row.amount,
                sentence=row.sentence,
            )
        )
    entries += [_arrived(one) for one in await arrivals.newest(store, args.limit)]
    entries.sort(key=lambda entry: -entry.at_ms)
    return control_wallet.HistoryView(entries[: args.limit])


def _arrived(one: Arrival) -> control_wallet.HistoryEntry:
    """A transaction's id as the network shows it, or the ticks."""
    name = identity_of(one.arrival_id).lower() if one.source else f"ticks-{one.first_tick}-{one.tick}"
    qu = 0 if one.kind == "unchecked" else one.amount
    return control_wallet.HistoryEntry(
        "received",
        name,
        one.kind,
        qu,
        UnixMs(one.at_ms),
        [],
        amount=abs(one.amount),
        sentence=_how_it_came(one),
        sender=identity_of(one.source) if one.source else "",
    )


def _how_it_came(one: Arrival) -> str:
    if one.kind == "received":
        return f"transferred in tick {one.tick}"
    if one.kind == "unchecked":
        return (
            f"a transfer in tick {one.tick}; whether its sender had the money cannot be told, as own jobs "
            "or payments moved the balance at the same time"
        )
    if one.kind == "opening":
        return f"was there when this wallet was first looked at, in tick {one.tick}"
    ticks = f"between the ticks {one.first_tick} and {one.tick}"
    if one.amount < 0:
        return f"went {ticks}, and not by this node: does another program use the same seed?"
    return f"came {ticks} from a contract, or in ticks that can no longer be read"


def _effect_on_wallet(lease: Lease) -> int:
    if not lease.settled:
        return 0
    return -lease.paid if lease.role is Role.CALLER else net_of(lease.paid)


async def _payment_view(store: Store, row: PaymentRow) -> control_wallet.PaymentView:
    return control_wallet.PaymentView(
        payment_id=row.payment_id,
        identity=identity_of(row.destination),
        amount=row.amount,
        state=row.state,
        sentence=row.sentence,
        at_ms=row.created_ms,
        transactions=_views(await transactions.about(store, row.payment_id.encode())),
    )


def _views(signed: Sequence[SignedTransaction]) -> list[control_wallet.TransactionView]:
    """The network shows a transaction's digest as an identity in lower case."""
    return [
        control_wallet.TransactionView(identity_of(one.digest).lower(), one.action, one.tick, one.amount)
        for one in signed
    ]
