"""A piece of "Internet" behind this host, and what a job tries against it and against the host.

The far end is a network namespace of its own that answers at a public address and at some that no job may
reach; the host has routes to all of them, so that only a filter can stand between a container and them. The
routes are in a table of their own: what the main one leads to, the default route apart, is no public place.
`python -m tests.support.beyond` is the program that answers there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Final, NoReturn

PUBLIC: Final = "198.51.100.7"
"""Kept for documentation (RFC 5737): nobody's, and to the fence as good as any public address."""
PRIVATE: Final = ("10.77.77.7", "172.29.77.7", "192.168.177.7", "100.64.77.7", "169.254.77.7")
ROUTED: Final = "198.51.100.9"
"""Looks public, and is behind a route of the host's own, as a company's network is behind a VPN."""
HOST_SIDE: Final = "198.51.100.1"
DNS_PORT: Final = 53
MAIL_PORT: Final = 25
PORT: Final = 7_777
PORTS: Final = (MAIL_PORT, DNS_PORT, PORT)
SAID: Final = "beyond"
TABLE: Final = "7777"


def missing() -> str:
    """Why there can be no far end here; "" if there can."""
    if os.geteuid() != 0:
        return "making a network namespace needs root"
    if shutil.which("ip") is None:
        return "the command `ip` is missing (Debian package iproute2)"
    if not os.environ.get("DOCKER_HOST", "unix://").startswith("unix://"):
        return "the Docker engine is on another machine"
    return ""


@contextlib.contextmanager
def far_end() -> Iterator[None]:
    """Answers at PUBLIC, PRIVATE and ROUTED, on PORTS over TCP and UDP, with SAID, while it is entered."""
    name, here, there = f"qbx-{os.getpid()}", f"qh{os.getpid()}", f"qt{os.getpid()}"
    _ip("netns", "add", name)
    try:
        _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        _ip("address", "add", f"{HOST_SIDE}/32", "dev", here)
        _ip("link", "set", here, "up")
        for device in ("lo", there):
            _ip("-n", name, "link", "set", device, "up")
        for address in (PUBLIC, *PRIVATE):
            _ip("-n", name, "address", "add", f"{address}/32", "dev", "lo")
            _ip("route", "add", f"{address}/32", "dev", here, "table", TABLE)
            _ip("rule", "add", "to", f"{address}/32", "lookup", TABLE)
        _ip("-n", name, "address", "add", f"{ROUTED}/32", "dev", "lo")
        _ip("route", "add", f"{ROUTED}/32", "dev", here)
        _ip("-n", name, "route", "add", "default", "dev", there)
        with _answering("ip", "netns", "exec", name):
            yield
    finally:
        for address in (PUBLIC, *PRIVATE):
            with contextlib.suppress(subprocess.CalledProcessError):  # it may not have come to that
                _ip("rule", "delete", "to", f"{address}/32", "lookup", TABLE)
        _ip("netns", "delete", name)  # the devices and routes go with it


@contextlib.contextmanager
def host_listener(network_of: int = 0) -> Iterator[int]:
    """A port that answers at every address of this host, or of the network that a process has."""
    prefix = ("nsenter", f"--net=/proc/{network_of}/ns/net") if network_of else ()
    with _answering(*prefix, ports=(0,)) as (port,):
        yield port


@contextlib.contextmanager
def _answering(*prefix: str, ports: tuple[int, ...] = PORTS) -> Iterator[list[int]]:
    command = [*prefix, sys.executable, "-m", "tests.support.beyond", *map(str, ports)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield [int(port) for port in process.stdout.readline().split()]
        finally:
            process.kill()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


def _answer_tcp(listener: socket.socket) -> NoReturn:
    while True:
        connection, _ = listener.accept()
        with contextlib.suppress(OSError), connection:
            connection.sendall(SAID.encode())


def _answer_udp(door: socket.socket) -> NoReturn:
    while True:
        _, source = door.recvfrom(65_536)
        with contextlib.suppress(OSError):
            door.sendto(SAID.encode(), source)


def _serve(ports: list[int]) -> None:
    opened = []
    for port in ports:
        listener = socket.create_server(("0.0.0.0", port))
        opened.append(listener.getsockname()[1])
        door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        door.bind(("0.0.0.0", opened[-1]))
        threading.Thread(target=_answer_tcp, args=(listener,), daemon=True).start()
        threading.Thread(target=_answer_udp, args=(door,), daemon=True).start()
    print(*opened, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _serve([int(port) for port in sys.argv[1:]])
