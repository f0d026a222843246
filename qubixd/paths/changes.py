"""Notices that this machine has other addresses than before, or that it slept."""

from __future__ import annotations

import ipaddress
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import psutil
import trio

from qubixd.paths.endpoints import IpNetwork

log = logging.getLogger("qubix.paths")

POLL_SECONDS: Final = 10.0
JUMP_SECONDS: Final = 5.0
"""So much later than it was due, a timer has slept with its machine."""
SETTLE_SECONDS: Final = 0.3
"""An interface that comes up says a dozen things at once."""
_NETLINK_ROUTE: Final = 0
_RTMGRP_LINK: Final = 0x1
_RTMGRP_IPV4_IFADDR: Final = 0x10
_RTMGRP_IPV4_ROUTE: Final = 0x40
_RTMGRP_IPV6_IFADDR: Final = 0x100
_OUTSIDE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def own_networks() -> tuple[IpNetwork, ...]:
    """The networks that this machine has an address in, without loopback and link-local ones."""
    found: dict[IpNetwork, None] = {}
    for entries in psutil.net_if_addrs().values():
        for entry in entries:
            if entry.family in (socket.AF_INET, socket.AF_INET6) and entry.netmask:
                with suppress(ValueError):
                    ip = entry.address.partition("%")[0]
                    found[ipaddress.ip_network(f"{ip}/{_prefix(entry.netmask)}", strict=False)] = None
    return tuple(network for network in found if not network.is_loopback and not network.is_link_local)


def _prefix(mask: str) -> int:
    return int(ipaddress.ip_address(mask)).bit_count()


def own_ips() -> frozenset[str]:
    """All addresses of this machine, loopback too."""
    return frozenset(
        entry.address.partition("%")[0]
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in (socket.AF_INET, socket.AF_INET6)
    )


def outward() -> frozenset[str]:
    """The addresses that packets to the Internet leave with, or, where there is no way out, all but those of
    loopback: what a new bridge for a job does not change. Nothing is sent to find out."""
    found = set()
    for family, target in _OUTSIDE:
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((target, 9))
            found.add(str(sock.getsockname()[0]))
    return frozenset(found) or frozenset(
        ip for ip in own_ips() if not ip.startswith(("127.", "::1", "fe80:"))
    )


class Changes:
    """Calls everybody in `on_change` when the outward addresses are others, or the machine has woken up."""

    def __init__(self, look: Callable[[], frozenset[str]] = outward) -> None:
        self._look = look
        self.on_change: list[Callable[[], None]] = []

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        known = self._look()
        with _netlink() as news:
            task_status.started()
            while True:
                slept = await _wait(news)
                now = self._look()
                if now != known or slept:
                    log.info(
                        "%s; looking for ways again", "this machine slept" if slept else _told(known, now)
                    )
                    for callback in self.on_change:
                        callback()
                known = now


def _told(before: frozenset[str], now: frozenset[str]) -> str:
    return f"this machine's address is {_listed(now)} now (it was {_listed(before)})"


def _listed(ips: frozenset[str]) -> str:
    return ", ".join(sorted(ips)) or "none"


async def _wait(news: trio.socket.SocketType | None) -> bool:
    """Until something was said of the interfaces, or it is time to look; whether the machine slept."""
    began = time.time()
    with trio.move_on_after(POLL_SECONDS):
        if news is None:
            await trio.sleep_forever()
        else:
            await _said(news)
            await trio.sleep(SETTLE_SECONDS)
    return time.time() - began > POLL_SECONDS + JUMP_SECONDS


async def _said(news: trio.socket.SocketType) -> None:
    with suppress(OSError):  # ENOBUFS: more was said than there was room for
        await news.recv(65_536)


@contextmanager
def _netlink() -> Iterator[trio.socket.SocketType | None]:
    """The kernel's own news of interfaces and addresses; None where there is no such socket."""
    family = getattr(socket, "AF_NETLINK", None)
    if family is None:
        yield None
        return
    groups = _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV4_ROUTE | _RTMGRP_IPV6_IFADDR
    with socket.socket(family, socket.SOCK_RAW, _NETLINK_ROUTE) as raw:
        raw.bind((0, groups))
        yield trio.socket.from_stdlib_socket(raw)
