"""Runs inside a job: tries every way to each ADDRESS:PORT among its arguments, all at once.

A line for each that worked: "WAY ADDRESS PORT". Nothing but the few modules of a minimal Python.
"""

import errno
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable

Prepare = Callable[[socket.socket], None]

PATIENCE = 2.0
STATION = os.environ.get("STATION", "198.51.100.7")
SO_DONTROUTE, SO_BINDTODEVICE = 5, 25
IP_OPTIONS, IP_FREEBIND = 4, 15
IPPROTO_UDPLITE = 136
MSG_FASTOPEN = 0x20000000
LOCK = threading.Lock()


def tcp(address: str, port: int, prepare: Prepare = lambda sock: None, kind: int = 0) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, kind) as sock:
        sock.settimeout(PATIENCE)
        prepare(sock)
        sock.connect((address, port))


def udp(address: str, port: int, prepare: Prepare = lambda sock: None, size: int = 4, kind: int = 0) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, kind) as sock:
        sock.settimeout(PATIENCE)
        prepare(sock)
        sock.sendto(bytes(size), (address, port))
        sock.recv(16)


def bound(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, b"eth0\0")


def bound_unrouted(sock: socket.socket) -> None:
    bound(sock)
    sock.setsockopt(socket.SOL_SOCKET, SO_DONTROUTE, 1)


def by_loopback(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, b"lo\0")


def by_station(station: str) -> Prepare:
    """Loose source routing: the packet goes to `station`, which should pass it on."""

    def prepare(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_IP, IP_OPTIONS, b"\x01\x83\x07\x04" + socket.inet_aton(station))

    return prepare


def with_options(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_IP, IP_OPTIONS, b"\x44\x0c\x05\x00" + bytes(8))  # timestamps


def as_other(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
    sock.bind(("172.17.0.1", 0))


def fast_open(address: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE)
        try:
            sock.sendto(b"x", MSG_FASTOPEN, (address, port))
        except BlockingIOError:
            sock.connect((address, port))


def raw(address: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.sendto(b"\x45" + bytes(19) + struct.pack(">HHI", port, port, 0), (address, 0))


def packet(address: str, port: int) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as sock:
        sock.getsockname()


def ping(address: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as sock:
        sock.settimeout(PATIENCE)
        sock.sendto(b"\x08\x00" + bytes(14), (address, 0))
        sock.recv(64)


def six(address: str, port: int) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE)
        sock.connect((address, port))


def six_mapped(address: str, port: int) -> None:
    six(f"::ffff:{address}", port)


def six_near(address: str, port: int) -> None:
    """To every machine on the link: nothing answers, and nothing should leave."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", ("ff02::1", port, 0, socket.if_nametoindex("eth0")))


WAYS: dict[str, Callable[[str, int], None]] = {
    "tcp": tcp,
    "udp": udp,
    "large udp": lambda a, p: udp(a, p, size=9_000),
    "bound tcp": lambda a, p: tcp(a, p, bound),
    "bound udp": lambda a, p: udp(a, p, bound),
    "unrouted tcp": lambda a, p: tcp(a, p, bound_unrouted),
    "unrouted udp": lambda a, p: udp(a, p, bound_unrouted),
    "loopback udp": lambda a, p: udp(a, p, by_loopback),
    "station tcp": lambda a, p: tcp(a, p, by_station(STATION)),
    "station udp": lambda a, p: udp(a, p, by_station(STATION)),
    "options udp": lambda a, p: udp(a, p, with_options),
    "other's udp": lambda a, p: udp(a, p, as_other),
    "udplite": lambda a, p: udp(a, p, kind=IPPROTO_UDPLITE),
    "fast open": fast_open,
    "ping": ping,
    "raw": raw,
    "packet": packet,
    "six mapped": six_mapped,
    "six near": six_near,
}


def attempt(way: str, address: str, port: int) -> None:
    try:
        WAYS[way](address, port)
    except OSError as error:
        if os.environ.get("SHOW"):
            say("not", way, address, port, errno.errorcode.get(error.errno or 0, error))
    else:
        say(way, address, port)


def say(*words: object) -> None:
    with LOCK:
        print(*words, sep="|", flush=True)


def main() -> None:
    tries: list[threading.Thread] = []
    for target in sys.argv[1:]:
        address, _, port = target.rpartition(":")
        tries += [threading.Thread(target=attempt, args=(way, address, int(port))) for way in WAYS]
    for each in tries:
        each.start()
    for each in tries:
        each.join()


main()
