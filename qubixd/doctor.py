"""`qubix doctor`: gathers what can be known of this node's place in the world, some of it by asking others.

What it means is in doctor_rules.py. Whatever does not answer in time is missing from the facts.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

import trio

from protocol.control_doctor import DoctorArgs, DoctorView, Facts
from protocol.control_provider import HindranceView
from protocol.errors import QubixError
from protocol.paths import PathKind
from protocol.units import PeerKey
from qubixd import doctor_rules, market_desk
from qubixd.node import Node
from qubixd.observing import observe
from qubixd.paths.changes import outward, own_ips
from qubixd.paths.endpoints import from_multiaddress
from qubixd.paths.reach import Reach
from qubixd.wire_libp2p import peer_id_of

Emit = Callable[[object], Awaitable[None]]
ASKED: Final = 5
"""Peers whose clocks are compared with ours."""
LOW_PORTS_FROM: Final = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


async def doctor(node: Node, args: DoctorArgs, emit: Emit) -> DoctorView:
    """The control API's verb."""
    return await examine(node, args.patience_seconds)


async def examine(node: Node, patience_seconds: float) -> DoctorView:
    """The facts and what follows from them, within about `patience_seconds`."""
    heard = _Heard(node.connections.paths.reach)
    with trio.move_on_after(patience_seconds):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(heard.look_around, node)
            nursery.start_soon(heard.ask_chain, node)
            for peer in node.parts.wire.peers()[:ASKED]:
                nursery.start_soon(heard.ask_clock, node, peer)
    facts = _facts(node, heard)
    return DoctorView(
        at_ms=node.parts.now_ms(),
        peer_id=peer_id_of(node.parts.key.public),
        facts=facts,
        findings=doctor_rules.judge(facts),
        outlook=doctor_rules.outlook(facts),
    )


@dataclass
class _Heard:
    """What others have said so far."""

    reach: Reach
    chain_error: str = "it gave no answer in time"
    tick: int = 0
    balance: int | None = None
    ahead: list[float] = field(default_factory=list)
    """Seconds by which our clock is ahead of each peer's."""

    async def look_around(self, node: Node) -> None:
        self.reach = await node.connections.paths.look()

    async def ask_chain(self, node: Node) -> None:
        chain, wallet = node.parts.chain, node.parts.wallet
        try:
            self.tick = (await chain.tick_info()).tick
            self.chain_error = ""
            self.balance = (await chain.balance(wallet.public_key)).amount
        except QubixError as error:
            self.chain_error = str(error)

    async def ask_clock(self, node: Node, peer: PeerKey) -> None:
        asked_at = node.parts.now_ms()
        try:
            answer = await observe(node.parts.wire, peer)
        except QubixError:
            return
        if answer.at_ms:
            halfway = (asked_at + node.parts.now_ms()) / 2
            self.ahead.append((halfway - answer.at_ms) / 1_000)


def _facts(node: Node, heard: _Heard) -> Facts:
    config, wire, parts = node.config, node.parts.wire, node.parts
    outside, own = wire.observed(), sorted(outward())
    ends = [from_multiaddress(address) for address in wire.addresses]
    here = own_ips()
    peers = wire.peers()
    hindrances = node.provider.hindrances() if config.provider else []
    return Facts(
        provider=config.provider,
        relay=config.relay,
        listening=[str(end) for end in ends if end is not None and end.ip in here],
        announced=list(config.announce),
        own_ips=own,
        outside_ips=list(outside.ips),
        reachable=outside.reachable,
        reached_at=list(outside.reached_at),
        nat=heard.reach.nat,
        only_ports=list(heard.reach.only_ports),
        low_ports=_low_ports(),
        ipv6=any(ipaddress.ip_address(ip).version == 6 for ip in own),
        peers=len(peers),
        relayed_peers=sum(wire.path_of(peer) is PathKind.RELAYED for peer in peers),
        relays=_relays(wire.addresses),
        directories=[peer_id_of(peer) for peer in sorted(node.offers.book.sources())],
        offers=market_desk.live_offers(node),
        chain=config.chain,
        chain_error=heard.chain_error,
        waiting=node.waiting.why,
        tick=heard.tick,
        balance=heard.balance,
        runner=parts.runner.name if parts.runner else "",
        hindrances=[HindranceView(one.code, one.sentence, one.closes) for one in hindrances],
        clock_ahead_seconds=median(heard.ahead) if heard.ahead else None,
    )


def _relays(addresses: Sequence[str]) -> list[str]:
    """Peer ids of those that stand in ".../p2p/RELAY/p2p-circuit/p2p/ME"."""
    ways = (address.partition("/p2p-circuit/") for address in addresses)
    return list(dict.fromkeys(before.rpartition("/")[2] for before, circuit, _ in ways if circuit))


def _low_ports() -> bool:
    """Whether this program may listen on port 443."""
    try:
        first = int(LOW_PORTS_FROM.read_text())
    except (OSError, ValueError):
        first = 1_024
    return os.name != "posix" or os.geteuid() == 0 or first <= doctor_rules.OPEN_PORT
