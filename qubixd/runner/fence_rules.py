"""The packet filter of a job with Internet, as a batch of nf_tables messages for fence.c. Pure.

The job may begin conversations over TCP, UDP and ping with public IPv4 addresses; nobody begins one with it.
It is its own table in the job's network namespace, so nothing of the host's filter is touched. On the way out
each packet is looked at by itself, also those of old conversations.

Layout: netlink messages (linux/netlink.h) of subsystem NFTABLES (linux/netfilter/nf_tables.h) between a begin
and an end (linux/netfilter/nfnetlink.h); each holds attributes of length, type and value, padded to 4 bytes.
Attribute numbers are in network byte order; registers hold what the kernel has: addresses and ports as in
the packet, its own numbers in the machine's order.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

TABLE: Final = "qubix"
FORBIDDEN: Final = (
    "0.0.0.0/8",  # "this network", which Linux takes for itself
    "10.0.0.0/8",
    "100.64.0.0/10",  # shared by carriers; VPNs and a cloud's metadata live there, too
    "127.0.0.0/8",
    "168.63.129.16/32",  # a public address that answers for one cloud's host to every guest
    "169.254.0.0/16",  # link-local: the metadata of the other clouds
    "172.16.0.0/12",
    "192.0.0.0/24",  # protocol assignments; metadata of one cloud
    "192.168.0.0/16",
    "198.18.0.0/15",  # benchmarks of networks
    "224.0.0.0/3",  # multicast, reserved, broadcast
)
"""Never reached by a job; beside the addresses and networks of the engine's host."""
MAIL_PORT: Final = 25
NEW_PER_SECOND: Final = 100
NEW_AT_ONCE: Final = 1_000
"""Packets that begin a conversation, or go on without ever being answered. More would fill the host's own
table of connections, and is what scans and floods are made of."""
LOOPBACK_INDEX: Final = 1
"""Of the loopback device, in every network namespace."""

# Messages and flags
_SUBSYSTEM, _BEGIN, _END = 10, 0x10, 0x11
_NEW_TABLE, _DELETE_TABLE, _NEW_CHAIN, _NEW_RULE = 0, 2, 3, 6
_REQUEST, _ACK, _CREATE, _APPEND = 0x1, 0x4, 0x400, 0x800
_FAMILY_INET: Final = 1
_NESTED: Final = 0x8000
# Hooks of family inet, and verdicts
_INPUT, _FORWARD, _OUTPUT = 1, 2, 3
_DROP, _ACCEPT = 0, 1
# Keys of `meta` and `ct`, bases of `payload`
_IN_INDEX, _OUT_INDEX, _FAMILY, _PROTOCOL = 4, 5, 15, 16
_STATE, _ESTABLISHED_RELATED, _NEW = 0, 0x2 | 0x4, 0x8
_NETWORK, _TRANSPORT = 1, 2
_EQUAL, _DIFFERENT = 0, 1
_PACKETS, _BYTES = 0, 1
_IPV4, _ICMP, _TCP, _UDP = 2, 1, 6, 17
_LOCAL: Final = 2
"""RTN_LOCAL: an address of this very namespace."""


def batch(host: Iterable[str], bytes_per_second: int = 0) -> bytes:
    """Messages that put the filter in place, or replace it at once. ValueError for what is no IPv4 address.

    `host`: addresses ("192.0.2.1") and networks ("192.0.2.0/24") beside FORBIDDEN that no job may reach.
    `bytes_per_second`: the most that goes each way, 0 for no limit.
    """
    messages = [
        _message(_NEW_TABLE, _CREATE, _name(1, TABLE)),  # so that the next cannot fail
        _message(_DELETE_TABLE, 0, _name(1, TABLE)),
        _message(_NEW_TABLE, _CREATE, _name(1, TABLE)),
        *_chain("in", _INPUT, _rules_in(bytes_per_second)),
        *_chain("through", _FORWARD, ()),
        *_chain("out", _OUTPUT, _rules_out(forbidden(host), bytes_per_second)),
    ]
    return (
        _header(_BEGIN, _REQUEST, 0, _SUBSYSTEM) + b"".join(messages) + _header(_END, _REQUEST, 0, _SUBSYSTEM)
    )


def forbidden(host: Iterable[str]) -> tuple[ipaddress.IPv4Network, ...]:
    """FORBIDDEN and `host`, sorted, nothing twice. ValueError for what is no IPv4 address or network."""
    networks = [ipaddress.IPv4Network(each, strict=False) for each in (*FORBIDDEN, *host)]
    return tuple(sorted(ipaddress.collapse_addresses(networks)))


def _rules_in(bytes_per_second: int) -> Iterator[bytes]:
    yield _meta(_IN_INDEX) + _compare(_EQUAL, struct.pack("=I", LOOPBACK_INDEX)) + _verdict(_ACCEPT)
    if bytes_per_second:
        yield _wider_than(bytes_per_second) + _verdict(_DROP)
    yield _conversation(_ESTABLISHED_RELATED) + _verdict(_ACCEPT)


def _rules_out(networks: Sequence[ipaddress.IPv4Network], bytes_per_second: int) -> Iterator[bytes]:
    yield _meta(_OUT_INDEX) + _compare(_EQUAL, struct.pack("=I", LOOPBACK_INDEX)) + _verdict(_ACCEPT)
    yield _meta(_FAMILY) + _compare(_DIFFERENT, bytes([_IPV4])) + _verdict(_DROP)
    # A header longer than 20 bytes has options, and with them a packet names other stations on its way.
    yield _payload(_NETWORK, 0, 1) + _masked(b"\x0f") + _compare(_DIFFERENT, b"\x05") + _verdict(_DROP)
    # In no other's name: any program may bind to an address that is not its own (IP_FREEBIND).
    yield _source_kind() + _compare(_DIFFERENT, struct.pack("=I", _LOCAL)) + _verdict(_DROP)
    for network in networks:
        mask, first = network.netmask.packed, network.network_address.packed
        yield _payload(_NETWORK, 16, 4) + _masked(mask) + _compare(_EQUAL, first) + _verdict(_DROP)
    port = struct.pack(">H", MAIL_PORT)
    yield _over(_TCP) + _payload(_TRANSPORT, 2, 2) + _compare(_EQUAL, port) + _verdict(_DROP)
    yield _conversation(_NEW) + _above(NEW_PER_SECOND, NEW_AT_ONCE, _PACKETS) + _verdict(_DROP)
    if bytes_per_second:
        yield _wider_than(bytes_per_second) + _verdict(_DROP)
    for protocol in (_TCP, _UDP, _ICMP):
        yield _over(protocol) + _verdict(_ACCEPT)


# Expressions of a rule: each loads into register 1, changes it or looks at it ---------------------


def _meta(key: int) -> bytes:
    return _expression("meta", _number(1, 1) + _number(2, key))


def _over(protocol: int) -> bytes:
    return _meta(_PROTOCOL) + _compare(_EQUAL, bytes([protocol]))


def _payload(base: int, offset: int, size: int) -> bytes:
    return _expression("payload", _number(1, 1) + _number(2, base) + _number(3, offset) + _number(4, size))


def _masked(mask: bytes) -> bytes:
    zero = _nested(5, _attribute(1, bytes(len(mask))))
    return _expression(
        "bitwise",
        _number(1, 1) + _number(2, 1) + _number(3, len(mask)) + _nested(4, _attribute(1, mask)) + zero,
    )


def _compare(operation: int, value: bytes) -> bytes:
    return _expression("cmp", _number(1, 1) + _number(2, operation) + _nested(3, _attribute(1, value)))


def _conversation(states: int) -> bytes:
    """True for packets of a connection in one of these states."""
    loaded = _expression("ct", _number(1, 1) + _number(2, _STATE))
    return loaded + _masked(struct.pack("=I", states)) + _compare(_DIFFERENT, bytes(4))


def _source_kind() -> bytes:
    """What kind of address the packet's source is, for the device it leaves by."""
    by_source, address_kind = 1 | 16, 3
    return _expression("fib", _number(1, 1) + _number(2, address_kind) + _number(3, by_source))


def _wider_than(bytes_per_second: int) -> bytes:
    """True for what is more than that, once a quarter of a second's worth came at one time."""
    return _above(bytes_per_second, min(max(bytes_per_second // 4, 1 << 16), (1 << 32) - 1), _BYTES)


def _above(per_second: int, at_once: int, unit: int) -> bytes:
    rate, second, inverted = struct.pack(">Q", per_second), struct.pack(">Q", 1), 1
    limits = _attribute(1, rate) + _attribute(2, second) + _number(3, at_once)
    return _expression("limit", limits + _number(4, unit) + _number(5, inverted))


def _verdict(code: int) -> bytes:
    return _expression("immediate", _number(1, 0) + _nested(2, _nested(2, _number(1, code))))


def _expression(kind: str, data: bytes) -> bytes:
    return _nested(1, _name(1, kind) + _nested(2, data))


# Messages and attributes --------------------------------------------------------------------------


def _chain(name: str, hook: int, rules: Iterable[bytes]) -> Iterator[bytes]:
    """A chain that drops whatever none of its rules accepts."""
    place = _nested(4, _number(1, hook) + _number(2, 0))
    head = _name(1, TABLE) + _name(3, name) + place + _number(5, _DROP) + _name(7, "filter")
    yield _message(_NEW_CHAIN, _CREATE, head)
    for expressions in rules:
        rule = _name(1, TABLE) + _name(2, name) + _nested(4, expressions)
        yield _message(_NEW_RULE, _CREATE | _APPEND, rule)


def _message(kind: int, flags: int, attributes: bytes) -> bytes:
    return _header(_SUBSYSTEM << 8 | kind, _REQUEST | _ACK | flags, _FAMILY_INET, 0, attributes)


def _header(kind: int, flags: int, family: int, resource: int, attributes: bytes = b"") -> bytes:
    head = struct.pack("=IHHII", 20 + len(attributes), kind, flags, 0, 0)
    return head + struct.pack(">BBH", family, 0, resource) + attributes


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _nested(kind: int, attributes: bytes) -> bytes:
    return _attribute(_NESTED | kind, attributes)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack(">I", value))


def _name(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")
