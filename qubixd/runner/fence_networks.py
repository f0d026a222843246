"""Which networks are the host's own, from the kernel's tables /proc/net/route and /proc/net/fib_trie."""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

TABLES: Final = ("/proc/net/route", "/proc/net/fib_trie")
LEAST_PREFIX: Final = 8
"""A device or route to a wider network says nothing of who is near."""
ONE: Final = "255.255.255.255"
_OWN: Final = re.compile(r"\|-- ([0-9.]+)\s+/32 host LOCAL")
_ROUTE: Final = re.compile(r"^\S+\t([0-9A-F]{8})\t[0-9A-F]{8}\t(?:\w+\t){4}([0-9A-F]{8})\t", re.MULTILINE)


def own_networks() -> frozenset[str]:
    """Of this very machine, as it is now; where it has no such tables, by its devices alone."""
    said = ""
    for table in TABLES:
        with suppress(OSError):
            said += Path(table).read_text()
    devices = (each for device in psutil.net_if_addrs().values() for each in device)
    addresses = [f"{each.address}/{each.netmask or ONE}" for each in devices if each.family is socket.AF_INET]
    return near(addresses) | networks_in(said)


def networks_in(tables: str) -> frozenset[str]:
    """Addresses and networks that both tables name, one after the other: a VPN's need not be private ones.

    A line of routes is: device, network, gateway, flags, three counts, mask, ...; hexadecimal, in the order
    of the machine's bytes.
    """
    routes = [f"{_dotted(network)}/{_dotted(mask)}" for network, mask in _ROUTE.findall(tables)]
    return near([*routes, *(f"{address}/{ONE}" for address in _OWN.findall(tables))])


def near(said: Iterable[str]) -> frozenset[str]:
    """Each ADDRESS/MASK, and the network it is in: a neighbour may trust this machine. Not what leads
    everywhere, as the route to the Internet does."""
    found = [ipaddress.IPv4Interface(each) for each in said]
    networks = {str(each.network) for each in found if each.network.prefixlen >= LEAST_PREFIX}
    return frozenset({str(each.ip) for each in found} | networks)


def _dotted(word: str) -> str:
    return str(ipaddress.IPv4Address(struct.pack("=I", int(word, 16))))
