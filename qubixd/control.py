"""The daemon's side of the control API (protocol/control.py): a unix socket only its owner can open."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

import trio

from protocol import control, control_wallet, jobspec, messages
from protocol.control_market import OfferAnswer, OfferArgs
from protocol.control_mirror import MirrorArgs, MirrorView
from protocol.control_relay import RentRelayArgs
from protocol.errors import (
    ConfigInvalid,
    DiskFull,
    LeaseUnknown,
    MessageInvalid,
    QuoteDeclined,
)
from protocol.lease import max_loss_words
from protocol.lease_state import Lease, Role
from protocol.query import Filter, SortKey, parse_filter, parse_sort
from protocol.units import MAX_QU, Qu
from qubixd import (
    compare_desk,
    doctor,
    extend_desk,
    lease_desk,
    market_desk,
    meters_desk,
    network_desk,
    prices_desk,
    provider_desk,
    quality,
    relay_desk,
    schedule_desk,
    stake_desk,
    tunnel_desk,
    wallet_desk,
    watch_desk,
)
from qubixd.access import with_made
from qubixd.control_socket import Emit, Verb, listen, serve_connection
from qubixd.node import Node
from qubixd.once import one_wish
from qubixd.requests import Requests
from qubixd.shop import set_open, set_price, set_schedule
from qubixd.views import quote_view
from qubixd.wire_libp2p import peer_id_of

log = logging.getLogger("qubix.control")


@asynccontextmanager
async def open_control(node: Node) -> AsyncIterator[Path]:
    """Listen on the node's control socket until the block ends. AlreadyRunning, ConfigInvalid."""
    path = node.config.control_socket
    listener = await listen(path, node.config.control_group)
    async with trio.open_nursery() as nursery:
        await nursery.start(watch_desk.keep_notices, node)
        nursery.start_soon(trio.serve_listeners, partial(serve_connection, node, VERBS), [listener])
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)
            nursery.cancel_scope.cancel()


# --- verbs ------------------------------------------------------------------------------------


async def hello(node: Node, args: control.HelloArgs, emit: Emit) -> control.HelloView:
    return control.HelloView(control.API_VERSION, version("qubix"), sorted(control.VERBS))


async def status(node: Node, args: control.StatusArgs, emit: Emit) -> control.StatusView:
    parts, config, wire = node.parts, node.config, node.parts.wire
    counters = wire.counters
    totals = {name: value for name, value in vars(counters).items() if isinstance(value, int)}
    return control.StatusView(
        api_version=control.API_VERSION,
        peer_id=peer_id_of(parts.key.public),
        addresses=list(wire.addresses),
        peers=len(wire.peers()),
        provider=config.provider,
        runner=parts.runner.name if parts.runner else "",
        network=config.network,
        contract_index=config.contract_index,
        tick=node.watchers.tick.tick if node.watchers.tick else 0,
        identity=parts.wallet.identity,
        offers=market_desk.live_offers(node),
        data_dir=str(config.root),
        counters=totals | counters.by_reason | dict(node.discovery.counters) | node.reconciler.counters,
        differences=[
            control.DifferenceView(one.lease_id.hex(), one.code, one.sentence, one.drift)
            for found in node.reconciler.standing.values()
            for one in found
        ],
    )


async def offer(node: Node, args: OfferArgs, emit: Emit) -> OfferAnswer:
    if (args.price_qu_per_hour, args.withdraw, args.schedule) != (None, None, None):
        await _change_shop(node, args)
        await node.offers.publish()
    own = node.offers.own
    view = market_desk.own_view(node, own) if own else None
    shop = node.shop
    plan = schedule_desk.view(shop.schedule, shop.price_qu_per_hour, node.parts.now_ms())
    return OfferAnswer(view, plan)


async def _change_shop(node: Node, args: OfferArgs) -> None:
    parts, shop = node.parts, node.shop
    provider_desk.check_is_provider(node)
    if (price := args.price_qu_per_hour) is not None and price > MAX_QU:
        raise ConfigInvalid(f"a price is at most {MAX_QU} QU per hour")
    if args.schedule is not None:  # first: it may be refused, and then nothing changes
        await set_schedule(parts.store, shop, args.schedule)
    if price is not None:
        await set_price(parts.store, node.config, shop, Qu(price))
    if args.withdraw is not None:
        await set_open(parts.store, shop, not args.withdraw)


async def run(node: Node, args: control.RunArgs, emit: Emit) -> control.RunEvent:
    node.offers.want()
    job = jobspec.parse(args.job_yaml)
    where, order = parse_filter(args.where), parse_sort(args.order_by)
    secrets = with_made(job, args.secrets)
    for folder in (args.base_dir, args.output_dir):
        if not Path(folder).is_absolute() or "\0" in folder:  # it must be possible when the outputs come, too
            raise MessageInvalid("base_dir and output_dir must be absolute paths")
    if args.replaces:
        await lease_desk.check_replaced(node, args.replaces, job.name)
    others = control.RunEvent("quoting", "somebody else asks for this job just now; waiting for that", None)
    async with one_wish(node, args, job.name, partial(emit, others)) as before:
        lease = before or await _hire(node, args, job, secrets, where, order, emit)
        if before is None:
            await _keep_request(node, lease, args)
        if args.replaces:
            await lease_desk.end_replaced(node, args.replaces)
    if args.detach:
        return lease_desk.run_event(node, lease)
    return await lease_desk.follow(node, lease, emit)


async def _keep_request(node: Node, lease: Lease, args: control.RunArgs) -> None:
    """So that the same can be rented again. What has been rented is rented, also where the disk is full."""
    try:
        with trio.CancelScope(shield=True):
            await Requests(node.config.root, node.files.in_thread).keep(lease.lease_id, lease.name, args)
    except (DiskFull, OSError) as error:
        log.warning("the job file of lease %s is not kept: %s", lease.lease_id.hex()[:12], error)


async def _hire(
    node: Node,
    args: control.RunArgs,
    job: jobspec.Job,
    secrets: dict[str, str],
    where: Filter,
    order: Sequence[SortKey],
    emit: Emit,
) -> Lease:
    async def tell(phase: str, detail: str) -> None:
        await emit(control.RunEvent(phase, detail, None))

    await tell("packing", "packing the input files")
    submission = await node.files.submit(job, Path(args.base_dir), secrets)
    max_price = None if args.max_price_qu_per_hour is None else Qu(min(args.max_price_qu_per_hour, MAX_QU))
    try:
        return await node.hiring.hire(
            job,
            submission,
            max_price=max_price,
            provider=args.provider,
            output_dir=args.output_dir,
            report=tell,
            consent=partial(_consent, node, args.ask, emit, game=is_game(job)),
            where=where,
            order=order,
        )
    except BaseException:
        with trio.CancelScope(shield=True):
            await node.files.discard(submission)
        raise


def is_game(job: jobspec.Job) -> bool:
    return any(port.kind == "game" for port in job.ports)


async def _way(node: Node, terms: messages.Terms) -> control.WayView | None:
    found = await quality.measure(node.parts.wire, terms.provider)
    if found is None:
        return None
    return control.WayView(found.kind, found.rtt_ms, found.jitter_ms, quality.words(found))


async def _consent(
    node: Node, ask: bool, emit: Emit, name: str, terms: messages.Terms, *, game: bool = False
) -> None:
    """Show what is about to be signed and, if the front end wants to be asked, wait for its answer."""
    token = os.urandom(8).hex()
    quote = quote_view(token, name, terms)
    if game:
        quote = replace(quote, way=await _way(node, terms))
    words = f"you can lose {max_loss_words(Role.CALLER, terms)}"
    answered, answer = trio.open_memory_channel[bool](1)
    node.consents[token] = answered
    try:
        await emit(control.RunEvent("quoted", words, None, quote))
        if ask and not await answer.receive():
            raise QuoteDeclined("you declined the quote; nothing was signed and nothing is owed")
    finally:
        del node.consents[token]


async def rent_relay(node: Node, args: RentRelayArgs, emit: Emit) -> control.RunEvent:
    return await relay_desk.rent_relay(node, args, emit, partial(_consent, node, args.ask, emit))


async def confirm(node: Node, args: control.ConfirmArgs, emit: Emit) -> control.Done:
    answered = node.consents.get(args.token)
    if answered is None:
        raise LeaseUnknown("no quote waits for this answer any more")
    with contextlib.suppress(trio.WouldBlock):  # a second answer changes nothing
        answered.send_nowait(args.accept)
    return control.Done()


async def wallet(node: Node, args: control_wallet.WalletArgs, emit: Emit) -> control_wallet.WalletView:
    return await wallet_desk.wallet(node)


async def send(node: Node, args: control_wallet.SendArgs, emit: Emit) -> control_wallet.PaymentView:
    return await wallet_desk.send(node, args, emit)


async def history(node: Node, args: control_wallet.HistoryArgs, emit: Emit) -> control_wallet.HistoryView:
    return await wallet_desk.history(node, args)


async def mirror(node: Node, args: MirrorArgs, emit: Emit) -> MirrorView:
    if args.on is not None:
        await node.mirror.switch(on=args.on)
    return await node.mirror.view()


async def shutdown(node: Node, args: control.ShutdownArgs, emit: Emit) -> control.Done:
    node.stop_soon()
    return control.Done()


VERBS: Final[dict[str, Verb]] = {
    "hello": hello,
    "status": status,
    "doctor": doctor.doctor,
    "offer": offer,
    "provider": provider_desk.provider,
    "preview": schedule_desk.preview,
    "network": network_desk.network,
    "market": market_desk.market,
    "prices": prices_desk.prices,
    "mirror": mirror,
    "why": market_desk.why,
    "score": market_desk.score,
    "deny": market_desk.deny,
    "stake": stake_desk.stake,
    "directories": market_desk.directories,
    "run": run,
    "confirm": confirm,
    "ps": lease_desk.ps,
    "logs": lease_desk.logs,
    "metrics": meters_desk.metrics,
    "access": lease_desk.access,
    "compare": compare_desk.compare,
    "job_file": lease_desk.job_file,
    "tunnel": tunnel_desk.tunnel,
    "forward": tunnel_desk.forward,
    "stop": lease_desk.stop,
    "pause": lease_desk.pause,
    "resume": lease_desk.resume,
    "restart": lease_desk.restart,
    "extend": extend_desk.extend,
    "wait": lease_desk.wait,
    "watch": watch_desk.watch,
    "notices": watch_desk.notices,
    "relay": relay_desk.relays,
    "rent_relay": rent_relay,
    "wallet": wallet,
    "send": send,
    "history": history,
    "shutdown": shutdown,
}
assert VERBS.keys() | {"connect", "leave"} == control.VERBS.keys()
