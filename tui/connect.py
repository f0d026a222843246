"""`qubix connect`: one port of a job as standard input and output, or as a socket handed to ssh."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import sys

from protocol.control_tunnels import ConnectArgs
from protocol.errors import UsageError
from tui.places import control_socket, data_dir
from tui.tunnel import CHUNK_BYTES, Tunnel, open_tunnel, read_fd, write_fd


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lease", metavar="LEASE", help="a lease, or the start of its id")
    parser.add_argument("port", metavar="PORT", type=port_number, help="the TCP port inside the job")
    text = "hand the connection itself to whoever reads standard output (ssh's ProxyUseFdpass)"
    parser.add_argument("--fdpass", action="store_true", help=text)


def port_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port; give a number from 1 to 65535")
    return int(text)


async def connect(options: argparse.Namespace) -> int:
    args = ConnectArgs(options.lease, "tcp", options.port)
    async with open_tunnel(control_socket(data_dir(options.data_dir)), args) as tunnel:
        if options.fdpass:
            hand_over(tunnel.socket)
        else:
            await _carry(tunnel)
    return 0


def hand_over(sock: socket.socket) -> None:
    """Send the socket over the one that standard output is. From here on it is somebody else's."""
    try:
        with socket.socket(fileno=sys.stdout.fileno()) as out:
            sock.setblocking(True)
            socket.send_fds(out, [b"\0"], [sock.fileno()])
            out.detach()
    except OSError as error:
        raise UsageError("--fdpass is for ssh, which reads standard output as a socket") from error


async def _carry(tunnel: Tunnel) -> None:
    """Until the other side has said all. What it was told is less important than what it says."""
    inward = asyncio.create_task(_inward(tunnel.socket))
    try:
        await _outward(tunnel.socket)
    finally:
        inward.cancel()
        await asyncio.gather(inward, return_exceptions=True)
    if error := await tunnel.error():
        raise error


async def _inward(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):  # that it is broken is told by the other direction
        while data := await read_fd(sys.stdin.fileno()):
            await loop.sock_sendall(sock, data)
        sock.shutdown(socket.SHUT_WR)


async def _outward(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while data := await loop.sock_recv(sock, CHUNK_BYTES):
            await write_fd(sys.stdout.fileno(), data)
