"""The fence's rules as messages: their form, and which networks they name. What the kernel makes of them is
tried in tests/integration/test_isolation_network.py."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubixd.runner.fence_networks import TABLES, near, networks_in, own_networks
from qubixd.runner.fence_rules import FORBIDDEN, batch, forbidden
from qubixd.runner.own_image import image_name

HEADER_BYTES = 20


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, flags, attributes) of each netlink message."""
    while data:
        length, kind, flags = struct.unpack_from("=IHH", data)
        yield kind, flags, data[HEADER_BYTES:length]
        data = data[length:]


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, value) of each attribute; AssertionError where one does not fit."""
    while data:
        length, kind = struct.unpack_from("=HH", data)
        assert 4 <= length <= len(data)
        yield kind, data[4:length]
        data = data[length + -length % 4 :]


@given(st.lists(st.ip_addresses(v=4).map(str), max_size=8), st.sampled_from((0, 1, 10**6, 2**40)))
def test_a_batch_is_a_transaction_of_acknowledged_messages(host: list[str], width: int) -> None:
    first, *between, last = messages(batch(host, width))
    assert (first[0], last[0]) == (0x10, 0x11) and not (first[1] | last[1]) & 0x4
    assert all(flags & 0x5 == 0x5 for _, flags, _ in between)  # a request that wants an answer
    assert [kind & 0xFF for kind, _, _ in between[:3]] == [0, 2, 0]  # make, delete, make: an old one is gone
    for _, _, body in between:
        assert next(attributes(body)) == (1, b"qubix\0")
        assert len(body) % 4 == 0


@given(st.lists(st.ip_addresses(v=4), max_size=8))
def test_each_address_of_the_host_is_named_once(host: list[ipaddress.IPv4Address]) -> None:
    networks = forbidden(map(str, host))
    for address in host:
        assert sum(address in network for network in networks) == 1
    assert all(any(ipaddress.IPv4Network(each).subnet_of(n) for n in networks) for each in FORBIDDEN)


@pytest.mark.parametrize(
    "public", ["1.1.1.1", "8.8.8.8", "172.15.255.255", "172.32.0.0", "192.169.0.0", "223.255.255.255"]
)
def test_public_addresses_are_not_forbidden(public: str) -> None:
    assert not any(ipaddress.IPv4Address(public) in network for network in forbidden(()))


@pytest.mark.parametrize("odd", ["", "fe80::1", "1.2.3", "host.example", "1.2.3.4/33"])
def test_what_is_no_address_is_refused(odd: str) -> None:
    with pytest.raises(ValueError):
        batch([odd])


def test_neighbours_of_the_host_count_as_the_host() -> None:
    said = ["127.0.0.1/255.0.0.0", "203.0.113.9/255.255.255.0", "10.8.0.1/0.0.0.0"]
    assert near(said) == {"127.0.0.1", "127.0.0.0/8", "203.0.113.9", "203.0.113.0/24", "10.8.0.1"}


def test_fences_of_two_kinds_of_processor_are_two_images() -> None:
    assert image_name("x86_64") != image_name("aarch64")


TITLES = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT   \n"
TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 172.17.0.0/16 2 0 2
        |-- 172.17.0.0
           /16 link UNICAST
        |-- 172.17.0.1
           /32 host LOCAL
        |-- 172.17.255.255
           /32 link BROADCAST
     |-- 203.0.113.77
        /32 host LOCAL
"""


def test_networks_as_the_kernel_tells_them() -> None:
    words = (("00000000", "00000000"), ("000011AC", "0000FFFF"), ("000A8283", "00FFFFFF"))
    lines = [f"eth0\t{network}\t010200C0\t0003\t0\t0\t0\t{mask}\t0\t0\t0   \n" for network, mask in words]
    found = networks_in(TITLES + "".join(lines) + TRIE)
    assert found == {
        *("0.0.0.0", "172.17.0.0", "172.17.0.0/16", "131.130.10.0", "131.130.10.0/24"),
        *("172.17.0.1", "172.17.0.1/32", "203.0.113.77", "203.0.113.77/32"),
    }
    assert networks_in("") == frozenset()


def test_this_machine_s_own_tables_are_read() -> None:
    addresses = [
        each.address for device in psutil.net_if_addrs().values() for each in device if each.family == 2
    ]
    assert own_networks() >= set(addresses) and "0.0.0.0/0" not in own_networks()
    told = networks_in("".join(Path(table).read_text() for table in TABLES))
    assert told >= set(addresses)
