"""Where a socket can be: IP and port, in multiaddresses and out of them, and which of them may be dialled."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from protocol.errors import MessageInvalid

MAX_DIALLED: Final = 6
"""Of the addresses that a peer names."""

_NOT_PUBLIC: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3", "::/128", "::1/128", "fc00::/7"),
        *("fe80::/10", "ff00::/8"),
    )
)

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class Endpoint(NamedTuple):
    """One end of a connection. As text `192.0.2.1:4001` or `[2001:db8::1]:4001`."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"

    @property
    def multiaddress(self) -> str:
        return f"/ip{6 if ':' in self.ip else 4}/{self.ip}/tcp/{self.port}"

    @property
    def is_public(self) -> bool:
        """Whether it means the same place to everybody."""
        return is_public(self.ip)


def is_public(ip: str) -> bool:
    """False for addresses of one network or machine, and for those of none (RFC 1918, 4193, 6598, ...)."""
    address = ipaddress.ip_address(ip)
    return not any(address in network for network in _NOT_PUBLIC)


def parse(text: str) -> Endpoint:
    """What `str` of an Endpoint said. MessageInvalid of anything else."""
    host, _, port = text.rpartition(":")
    return _checked(host.removeprefix("[").removesuffix("]"), port, text)


def from_multiaddress(text: str) -> Endpoint | None:
    """The IP and port of `/ip4/.../tcp/...`, whatever peer it names; None of one that goes another way."""
    parts = text.split("/")
    if len(parts) < 5 or parts[1] not in ("ip4", "ip6") or parts[3] != "tcp" or "p2p-circuit" in parts:
        return None
    try:
        return _checked(parts[2], parts[4], text)
    except MessageInvalid:
        return None


def _checked(host: str, port: str, text: str) -> Endpoint:
    try:
        if "%" in host:
            raise ValueError("the name of an interface means nothing elsewhere, and may be anything")
        ip = ipaddress.ip_address(host)
    except ValueError as error:
        raise MessageInvalid(f"{text[:80]!r} is not IP:PORT") from error
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65_535):
        raise MessageInvalid(f"{text[:80]!r} is not IP:PORT")
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return Endpoint(str(mapped or ip), int(port))


def dialable(
    named: Iterable[str], remote_ip: str | None, networks: Sequence[IpNetwork], own_ips: Iterable[str] = ()
) -> tuple[Endpoint, ...]:
    """Which of the addresses that a peer named this node dials, the nearest first, at most MAX_DIALLED.

    Public ones; those of a network that this machine is in itself; and the one its bytes come from. Loopback
    only when they come from this machine: a peer elsewhere must not make us speak to our own services.
    """
    ends = dict.fromkeys(end for text in named if (end := from_multiaddress(text)) is not None)
    own = set(own_ips)
    here = remote_ip is not None and (remote_ip in own or is_loopback(remote_ip))

    def may(end: Endpoint) -> bool:
        if is_loopback(end.ip):
            return here
        if end.ip in own and not here:
            return False
        address = ipaddress.ip_address(end.ip)
        near = end.ip == remote_ip or any(address in network for network in networks)
        return near or (end.is_public and not address.is_multicast)

    allowed = [end for end in ends if may(end)]
    allowed.sort(key=lambda end: (not is_loopback(end.ip), end.is_public))
    return tuple(allowed[:MAX_DIALLED])


def is_loopback(ip: str) -> bool:
    return ipaddress.ip_address(ip).is_loopback
