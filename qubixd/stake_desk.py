"""The verb `stake`: this provider's record in the contract's registry.

The record is what makes others believe its receipts (docs/score.md). Calls of the contract go out as payments
do: written down first, followed after a crash, never sent a second time beside themselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from escrow_bridge import layout_registry
from escrow_bridge.escrow import TICK_AT, read_info
from escrow_bridge.layout import Function, Procedure
from escrow_bridge.layout_registry import MIN_STAKE, ProviderView
from escrow_bridge.qubic import contract_id
from ledger import payments, transactions
from protocol.control_market import StakeArgs, StakeView
from protocol.control_wallet import WaitingEvent
from protocol.errors import ChainDisagrees, NotFound, PaymentFailed, Refused, UsageError
from protocol.units import MAX_QU, Qu, Tick
from qubixd.config import Config
from qubixd.node import Node
from qubixd.payments import SENT, Report

POLL_S: Final = 0.25


async def silent(event: object) -> None:
    """For who wants the answer only."""


async def stake(node: Node, args: StakeArgs, emit: Callable[[object], Awaitable[None]] = silent) -> StakeView:
    """Show the record; before that enter it, add to its stake, or leave, if that was asked for.

    UsageError, Refused, NotFound before anything is sent; PaymentFailed if the contract did not take it.
    """
    if args.leave and args.add is not None:
        raise UsageError("either add to the stake or leave, not both")

    async def report(why: str) -> None:
        await emit(WaitingEvent(why))

    _, record = await _read(node)
    if args.leave:
        record = await _leave(node, args.payment_id, record, report)
    elif args.add is not None:
        record = await _add(node, args.payment_id, Qu(args.add), record, report)
    return _view(node, record)


async def _leave(
    node: Node, payment_id: str, record: ProviderView | None, report: Report
) -> ProviderView | None:
    if record is None:
        raise NotFound("this wallet is not in the contract's registry; there is nothing to leave")
    if record.exit_epoch:
        return record
    payload = layout_registry.exit_input(await _network(node))
    record = await _call(node, payment_id, Procedure.EXIT, Qu(0), payload, report)
    if record is not None and not record.exit_epoch:
        raise PaymentFailed("the contract did not take it, it may be out of fuel; try again later")
    return record


async def _add(
    node: Node, payment_id: str, amount: Qu, record: ProviderView | None, report: Report
) -> ProviderView:
    _check(node, amount, record)
    peer, metadata = node.parts.key.public, metadata_of(node.config)
    if record and not amount and (record.peer_key, record.metadata) == (peer, metadata):
        return record
    procedure: int = Procedure.UPDATE if record else Procedure.REGISTER
    payload = layout_registry.register_input(peer, metadata, await _network(node))
    if before := await payments.get(node.parts.store, payment_id):
        # Asked for again: the same call, although the record is there by now.
        procedure, payload = before.procedure, before.payload
    after = await _call(node, payment_id, procedure, amount, payload, report)
    if after is None or (after.peer_key, after.metadata) != (peer, metadata):
        raise PaymentFailed(
            "the contract gave the stake back: its registry is full, or it is out of fuel; try again later"
        )
    return after


def _check(node: Node, amount: Qu, record: ProviderView | None) -> None:
    if not node.config.provider:
        raise UsageError("the registry is for providers: start this node with --provider")
    if record and record.exit_epoch:
        raise Refused(
            f"this record is leaving: its stake of {record.stake:,} QU comes back at the end of epoch "
            f"{record.exit_epoch}; a new one can be entered after that"
        )
    if record is None and amount < MIN_STAKE:
        raise UsageError(f"the registry takes a stake of at least {MIN_STAKE:,} QU; you can have it back")
    if amount + (record.stake if record else 0) > MAX_QU:
        raise UsageError(f"a stake is at most {MAX_QU:,} QU")


async def _call(
    node: Node, payment_id: str, procedure: int, amount: Qu, payload: bytes, report: Report
) -> ProviderView | None:
    """Call the contract once for that id; the record as it is after the call has run."""
    if not (payment_id.isascii() and payment_id.isprintable() and payment_id):
        raise UsageError("the id of a payment consists of letters, digits and signs")
    to = contract_id(node.config.contract_index)
    row = await node.payments.send(payment_id, to, amount, report, procedure, payload)
    if row.state != SENT:
        raise PaymentFailed(row.sentence)
    signed = await transactions.about(node.parts.store, payment_id.encode())
    ran_in = max(one.tick for one in signed)
    while True:
        tick, record = await _read(node)
        if tick > ran_in:
            return record
        await trio.sleep(POLL_S)


async def _read(node: Node) -> tuple[Tick, ProviderView | None]:
    """This wallet's record, and the tick it was read in."""
    parts, index = node.parts, node.config.contract_index
    output = await parts.chain.query(index, Function.GET_PROVIDER, parts.wallet.public_key, tick_at=TICK_AT)
    tick = layout_registry.provider_tick(output)
    if tick is None:
        raise ChainDisagrees(f"contract {index} of this network does not answer as the qubix escrow does")
    return tick, layout_registry.decode_provider(output)


async def _network(node: Node) -> int:
    return (await read_info(node.parts.chain, node.config.contract_index)).network


def metadata_of(config: Config) -> bytes:
    """What the record says of the provider beside its key: SHA-256 of its name and region."""
    return hashlib.sha256(f"{config.name}\0{config.region}".encode()).digest()


def _view(node: Node, record: ProviderView | None) -> StakeView:
    if record is None:
        sentence = f"not in the registry; `qubix stake {MIN_STAKE}` enters it"
        return StakeView(registered=False, sentence=sentence)
    return StakeView(
        registered=True,
        sentence=_sentence(node, record),
        stake=record.stake,
        volume=record.volume,
        completed=record.completed,
        disputed=record.disputed,
        failed=record.failed,
        ratings=record.ratings,
        stars=record.stars,
        since_tick=record.since_tick,
        exit_epoch=record.exit_epoch,
    )


def _sentence(node: Node, record: ProviderView) -> str:
    if record.exit_epoch:
        return f"leaving: the stake comes back at the end of epoch {record.exit_epoch}"
    if record.peer_key != node.parts.key.public:
        return "registered for another node of this wallet; `qubix stake 0` makes it this one"
    return "in the registry"
