"""What stands in for the program of a job: gives, takes or echoes bytes on a TCP port. And who asks it.

A question is 9 bytes: what (1) and how many bytes (8, big-endian). G: that many are sent. T: that many are
taken, then one byte answers. E: what comes is sent back, until the end. Plain sockets and threads, so that
the programs at both ends cost as little as they can.
"""

from __future__ import annotations

import socket
import statistics
import struct
import sys
import threading
import time
from typing import Final

_BLOCK: Final = memoryview(bytes(1 << 20))
_QUESTION: Final = struct.Struct(">cQ")


def serve() -> None:
    """Print the port, then answer until killed."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    print(listener.getsockname()[1], flush=True)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=_answer, args=(sock,), daemon=True).start()


def _answer(sock: socket.socket) -> None:
    with sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            what, size = _QUESTION.unpack(sock.recv(_QUESTION.size, socket.MSG_WAITALL))
            if what == b"G":
                _give(sock, size)
            elif what == b"T":
                _take(sock, size)
                sock.sendall(b"!")
            else:
                while data := sock.recv(65_536):
                    sock.sendall(data)
        except (OSError, struct.error):
            return


def _give(sock: socket.socket, size: int) -> None:
    while size:
        size -= sock.send(_BLOCK[: min(size, len(_BLOCK))])


def _take(sock: socket.socket, size: int) -> None:
    buffer = bytearray(1 << 20)
    while size:
        count = sock.recv_into(buffer, min(size, len(buffer)))
        if not count:
            raise ConnectionError("the connection ended early")
        size -= count


def connect(port: int, what: bytes, size: int = 0) -> socket.socket:
    """A connection with a question asked."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(_QUESTION.pack(what, size))
    return sock


def fetch(port: int, size: int) -> None:
    """Ask for bytes and take them."""
    with connect(port, b"G", size) as sock:
        _take(sock, size)


def put(port: int, size: int) -> None:
    """Send bytes, and wait until they have been taken."""
    with connect(port, b"T", size) as sock:
        _give(sock, size)
        if sock.recv(1) != b"!":
            raise ConnectionError("the bytes were not confirmed")


def seconds(port: int, what: bytes, size: int, streams: int) -> float:
    """To bring `size` bytes across over so many connections at once."""
    work = {b"G": fetch, b"T": put}[what]
    failed: list[BaseException] = []

    def one() -> None:
        try:
            work(port, size // streams)
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=one) for _ in range(streams)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return time.perf_counter() - begun


def round_trips(port: int, count: int) -> list[float]:
    """Milliseconds of so many single bytes there and back, over one connection."""
    times = []
    with connect(port, b"E") as sock:
        for _ in range(count):
            begun = time.perf_counter()
            sock.sendall(b"x")
            if not sock.recv(1):
                raise ConnectionError("the echo ended")
            times.append((time.perf_counter() - begun) * 1_000)
    return times[count // 10 :]


def percentile(samples: list[float], share: float) -> float:
    return statistics.quantiles(samples, n=1_000, method="inclusive")[round(share * 1_000) - 1]


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve()
    else:  # what, port, size, streams: a client of its own, so that its work is not ours
        _, asked, to_port, amount, at_once = sys.argv
        print(seconds(int(to_port), asked.encode(), int(amount), int(at_once)))
