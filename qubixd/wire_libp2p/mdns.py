"""Neighbours: nodes on the same network link find each other by multicast DNS, without any address given.

A record says no more than "somebody may answer there": the peer id in the address is checked by the Noise
handshake, and only addresses inside a network this machine is itself in are dialled, so a liar costs a few
dials next door. Everything is counted and bounded; what does not work here (no multicast, no interface) is
one line in the log.
"""

from __future__ import annotations

import ipaddress
import logging
import random
import secrets
import socket
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

import psutil
import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from protocol.errors import ConfigInvalid, MessageInvalid, PeerUnreachable
from qubixd.wire import Wire
from qubixd.wire_libp2p import mdns_format
from qubixd.wire_libp2p.addresses import is_circuit, split_address
from qubixd.wire_libp2p.identity import key_of
from qubixd.wire_libp2p.peers import Peers

log = logging.getLogger(__name__)

GROUP: Final = "224.0.0.251"
PORT: Final = 5353
ENOUGH_PEERS: Final = 8
"""With so many peers nobody is sought any more."""
FIRST_QUESTIONS_SECONDS: Final = (0.0, 1.0, 3.0)
QUESTION_SECONDS: Final = (45.0, 75.0)
ANSWER_DELAY_SECONDS: Final = (0.02, 0.12)
"""RFC 6762, section 6: so that not all answer at once."""
ANSWER_REST_SECONDS: Final = 1.0
"""An answer reaches everybody on the link, so one a second is enough for any number of questions."""
PACKETS_PER_SECOND: Final = 50
"""More are not looked at."""
MAX_NEIGHBOURS: Final = 64
AGAIN_SECONDS: Final = 60.0
"""A neighbour that was tried is left alone for so long."""
MAX_WAITING: Final = 16
MAX_DIALLED: Final = 2
"""Addresses of one neighbour."""
DIAL_REST_SECONDS: Final = 0.5
MAX_ADDRESS_CHARS: Final = 256
NAME_BYTES: Final = 16

Interface = ipaddress.IPv4Interface


class Neighbours:
    """Finds and lets itself be found while its wire runs."""

    def __init__(self, wire: Wire, book: Peers, listen_host: str) -> None:
        self._wire, self._book, self._listen_host = wire, book, listen_host
        self._name = secrets.token_hex(NAME_BYTES)
        self._interfaces: tuple[Interface, ...] = ()
        self._joined: set[Interface] = set()
        self._tried: OrderedDict[ID, float] = OrderedDict()
        self._budget, self._budget_at = float(PACKETS_PER_SECOND), 0.0
        self._asked = trio.Event()
        self._sending = trio.Lock()
        self._found_send, self._found = trio.open_memory_channel[tuple[ID, list[Multiaddr]]](MAX_WAITING)

    async def run(self) -> None:
        try:
            sock = await _open_socket()
        except OSError as error:
            log.info("nodes nearby are not looked for: %s", error.strerror)
            return
        with sock:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, sock)
                nursery.start_soon(self._ask, sock)
                nursery.start_soon(self._answer, sock)
                nursery.start_soon(self._dial)

    # --- what is heard ------------------------------------------------------------------------

    def heard(self, packet: bytes, source: str) -> None:
        """Take one packet in. Never raises: it comes from anybody."""
        if not self._may_look():
            self._count("mdns.flood")
        elif not self._is_near(source):
            self._count("mdns.from_afar")
        else:
            self._take(packet)

    def _take(self, packet: bytes) -> None:
        try:
            said = mdns_format.read(packet)
        except MessageInvalid:
            self._count("mdns.malformed")
            return
        if said.asks:
            self._asked.set()
        self._consider(said.addresses)

    def _consider(self, texts: Iterable[str]) -> None:
        """Put the first peer that is worth a dial in the queue: a packet is of one node."""
        by_peer: dict[ID, list[Multiaddr]] = {}
        for text in texts:
            if (near := self._near_address(text)) is not None:
                by_peer.setdefault(near[0], []).append(near[1])
        for peer, addresses in list(by_peer.items())[:1]:
            if self._is_wanted(peer):
                try:
                    self._found_send.send_nowait((peer, addresses[:MAX_DIALLED]))
                except trio.WouldBlock:
                    self._count("mdns.too_many")

    def _near_address(self, text: str) -> tuple[ID, Multiaddr] | None:
        """An address on a link this machine is on; None for any other, well-formed or not."""
        if len(text) > MAX_ADDRESS_CHARS:
            return None
        try:
            peer, plain = split_address(text)
            ip = plain.value_for_protocol("ip4")
        except (ConfigInvalid, MultiaddrError, ValueError, LookupError):
            return None
        return (peer, plain) if ip and self._is_near(ip) and not is_circuit(plain) else None

    def _is_wanted(self, peer: ID) -> bool:
        """Whether to try a peer now; notes that it is tried."""
        now, last = trio.current_time(), self._tried.get(peer)
        if key_of(peer) == self._wire.peer_key or self._book.connected(peer) or self._has_enough():
            return False
        if last is not None and now < last + AGAIN_SECONDS:
            return False
        self._tried[peer] = now
        self._tried.move_to_end(peer)
        if len(self._tried) > MAX_NEIGHBOURS:
            self._tried.popitem(last=False)
        return True

    def _may_look(self) -> bool:
        now = trio.current_time()
        earned = (now - self._budget_at) * PACKETS_PER_SECOND
        self._budget = min(PACKETS_PER_SECOND, self._budget + earned)
        self._budget_at = now
        if self._budget < 1:
            return False
        self._budget -= 1
        return True

    def _is_near(self, ip: str) -> bool:
        try:
            address = ipaddress.IPv4Address(ip)
        except ValueError:
            return False
        return any(address in interface.network for interface in self._interfaces)

    def _has_enough(self) -> bool:
        return len(self._wire.peers()) >= ENOUGH_PEERS

    def _count(self, reason: str) -> None:
        counters = self._wire.counters.by_reason
        counters[reason] = counters.get(reason, 0) + 1

    # --- tasks --------------------------------------------------------------------------------

    async def _listen(self, sock: trio.socket.SocketType) -> None:
        while True:
            try:
                packet, (source, *_) = await sock.recvfrom(mdns_format.MAX_PACKET_BYTES + 1)
            except OSError as error:  # an interface went away
                log.debug("multicast: %s", error)
                await trio.sleep(ANSWER_REST_SECONDS)
                continue
            if len(packet) <= mdns_format.MAX_PACKET_BYTES:
                self.heard(packet, source)

    async def _ask(self, sock: trio.socket.SocketType) -> None:
        """Ask on every link, and tell of ourselves at first: the others may not ask for a while."""
        for delay in FIRST_QUESTIONS_SECONDS:
            await trio.sleep(delay)
            self._look_at_interfaces(sock)
            self._asked.set()
            await self._send(sock, {each: mdns_format.question() for each in self._interfaces})
        while True:
            await trio.sleep(random.uniform(*QUESTION_SECONDS))
            self._look_at_interfaces(sock)
            if not self._has_enough():
                await self._send(sock, {each: mdns_format.question() for each in self._interfaces})

    async def _answer(self, sock: trio.socket.SocketType) -> None:
        while True:
            await self._asked.wait()
            await trio.sleep(random.uniform(*ANSWER_DELAY_SECONDS))
            self._asked = trio.Event()
            await self._send(sock, self._records())
            await trio.sleep(ANSWER_REST_SECONDS)

    async def _dial(self) -> None:
        async for peer, addresses in self._found:
            if self._book.connected(peer) or self._has_enough():
                continue
            try:
                await self._book.dial(peer, addresses)
            except PeerUnreachable as error:
                log.debug("neighbours: %s", error)
            await trio.sleep(DIAL_REST_SECONDS)

    # --- links --------------------------------------------------------------------------------

    def _records(self) -> dict[Interface, bytes]:
        """On each link the addresses that are on it: what else we have is nobody's business there."""
        records = {}
        for interface in self._interfaces:
            plain = [text for text in self._wire.addresses if not is_circuit(text)]
            near = [text for text in plain if _ip_of(text) in interface.network]
            if near:
                records[interface] = mdns_format.answer(self._name, tuple(near))
        return records

    async def _send(self, sock: trio.socket.SocketType, packets: dict[Interface, bytes]) -> None:
        for interface, packet in packets.items():
            async with self._sending:
                try:
                    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface.ip.packed)
                    await sock.sendto(packet, (GROUP, PORT))
                except OSError as error:
                    log.debug("multicast over %s: %s", interface, error)

    def _look_at_interfaces(self, sock: trio.socket.SocketType) -> None:
        """Links come and go: join those that are new."""
        self._interfaces = local_interfaces(self._listen_host)
        self._joined &= set(self._interfaces)
        for interface in set(self._interfaces) - self._joined:
            try:
                member = socket.inet_aton(GROUP) + interface.ip.packed
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
            except OSError as error:  # joined already under another address, or no multicast there
                log.debug("multicast over %s: %s", interface, error)
            self._joined.add(interface)


def local_interfaces(listen_host: str) -> tuple[Interface, ...]:
    """The IPv4 links on which a node that listens at `listen_host` can be reached, without loopback."""
    stats = psutil.net_if_stats()
    found = (
        Interface(f"{each.address}/{each.netmask}")
        for name, addresses in psutil.net_if_addrs().items()
        for each in addresses
        if each.family == socket.AF_INET and each.netmask and name in stats and stats[name].isup
    )
    anywhere = listen_host == "0.0.0.0"
    return tuple(one for one in found if not one.is_loopback and (anywhere or str(one.ip) == listen_host))


def _ip_of(text: str) -> ipaddress.IPv4Address:
    """Of an address of our own; 0.0.0.0, which no link has, where it is of another kind."""
    try:
        return ipaddress.IPv4Address(Multiaddr(text).value_for_protocol("ip4") or "0.0.0.0")
    except (MultiaddrError, ValueError, LookupError):
        return ipaddress.IPv4Address(0)


async def _open_socket() -> trio.socket.SocketType:
    """Beside other programs that speak multicast DNS on this machine."""
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        await sock.bind(("", PORT))
    except OSError:
        sock.close()
        raise
    return sock
