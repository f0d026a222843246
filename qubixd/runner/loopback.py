"""Connections to a port of a loopback: of a job's network, or of this machine's for the process runner."""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from protocol.errors import PortClosed
from qubixd.runner import Dialed

CONNECT_SECONDS: Final = 10.0
"""A port that listens and has no room for one more takes this long to be given up."""
NOWHERE: Final = (errno.ECONNREFUSED, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EAFNOSUPPORT)
"""What the kernel says where nobody listens, or where there is no such loopback."""
LOOPBACKS: Final = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


class PortBusy(PortClosed):
    """Somebody listens there and takes nothing."""


Fresh = Callable[[int], Awaitable[socket.socket]]


async def connect(fresh: Fresh, port: int, *, udp: bool) -> Dialed:
    """Connect one of the sockets (by family) that `fresh` makes. PortClosed if nobody listens."""
    for family, host in LOOPBACKS:
        sock = trio.socket.from_stdlib_socket(await fresh(family))
        try:
            if not await _is_connected(sock, host, port):
                sock.close()
                continue
            return sock if udp else trio.SocketStream(sock)  # sets TCP_NODELAY
        except BaseException:
            sock.close()
            raise
    raise port_closed(port, udp=udp)


async def _is_connected(sock: trio.socket.SocketType, host: str, port: int) -> bool:
    """False if nobody listens there."""
    try:
        with trio.fail_after(CONNECT_SECONDS):
            await sock.connect((host, port))
    except trio.TooSlowError as error:
        sentence = f"what listens at port {port} inside the job takes no connection: it is busy or hangs"
        raise PortBusy(sentence) from error
    except OSError as error:
        if error.errno not in NOWHERE:
            raise PortClosed(f"port {port} inside the job cannot be reached: {error.strerror}") from error
        return False
    return True


def port_closed(port: int, *, udp: bool) -> PortClosed:
    kind = "UDP" if udp else "TCP"
    return PortClosed(
        f"nothing listens at {kind} port {port} inside the job (on 127.0.0.1, ::1 or all addresses)"
    )


async def fresh_socket(family: int, *, udp: bool) -> socket.socket:
    """One of this machine's own network."""
    return socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
