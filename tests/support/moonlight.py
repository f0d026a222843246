"""A Moonlight as far as the network goes: what it asks and sends, and what becomes of a game's packets.

Pairing over TLS, RTSP, pings that keep picture and sound coming, keys and mouse on the control port. It
plays against images/moonlight/qubix-moonlight-stand-in.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

RTP: Final = struct.Struct(">BBHIIQ")
PING_SECONDS: Final = 0.5
INPUT_SECONDS: Final = 1 / 60
INPUT_BYTES: Final = 60
HEARING_SECONDS: Final = 0.2
HOST: Final = "127.0.0.1"


@dataclass
class Heard:
    """Of one stream of RTP packets."""

    numbers: list[int] = field(default_factory=list)
    frames: set[int] = field(default_factory=set)
    sizes: set[int] = field(default_factory=set)
    delays_ms: list[float] = field(default_factory=list)
    """From one machine to itself: both read the same clock."""

    def take(self, packet: bytes) -> None:
        _, _, number, frame, _, sent_ns = RTP.unpack_from(packet)
        self.numbers.append(number)
        self.frames.add(frame)
        self.sizes.add(len(packet))
        self.delays_ms.append((time.time_ns() - sent_ns) / 1e6)

    @property
    def lost(self) -> float:
        """The share of packets that are missing between the first and the last."""
        unrolled, turns = [self.numbers[0]], 0
        for before, number in zip(self.numbers, self.numbers[1:], strict=False):
            turns += (number < before - 0x8000) - (number > before + 0x8000)
            unrolled.append(number + turns * 0x10000)
        return 1 - len(set(unrolled)) / (max(unrolled) - min(unrolled) + 1)

    def delay_ms(self, share: float) -> float:
        return sorted(self.delays_ms)[int(share * (len(self.delays_ms) - 1))]


@dataclass
class Played:
    video: Heard
    audio: Heard
    inputs: int
    echoes: int
    input_ms: list[float]
    """There and back."""

    @property
    def lost(self) -> float:
        """Of video, sound or keys, whichever lost most."""
        return max(self.video.lost, self.audio.lost, 1 - self.echoes / self.inputs)

    def __str__(self) -> str:
        typed = sorted(self.input_ms)
        return (
            f"{len(self.video.numbers)} packets of video, {self.video.lost:.2%} lost, "
            f"{self.video.delay_ms(0.5):.2f} ms under way (p99 {self.video.delay_ms(0.99):.2f}); "
            f"{len(self.audio.numbers)} of sound, {self.audio.lost:.2%} lost; {self.inputs} keys, "
            f"{self.echoes} came back, after {typed[len(typed) // 2]:.2f} ms (the slowest {typed[-1]:.2f})"
        )


def web(port: int, path: str, *, tls: bool) -> str:
    """A GET as Moonlight sends it, without looking at the certificate, which it pins at pairing."""
    plain = socket.create_connection((HOST, port), 30)
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with trusting.wrap_socket(plain) if tls else plain as door:
        door.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        return _all(door).decode()


def _all(door: socket.socket) -> bytes:
    heard = b""
    while chunk := door.recv(65_536):
        heard += chunk
    return heard


def rtsp(port: int, number: int) -> str:
    with socket.create_connection((HOST, port), 30) as door:
        door.sendall(f"OPTIONS rtsp://{HOST}:{port} RTSP/1.0\r\nCSeq: {number}\r\n\r\n".encode())
        return door.recv(4_096).decode()


def play(ports: Mapping[int, int], seconds: float) -> Played:
    """Play for so long. `ports`: of this machine, by those of Sunshine."""
    until = time.monotonic() + seconds
    video, audio = Heard(), Heard()
    played = Played(video, audio, 0, 0, [])
    threads = [
        threading.Thread(target=_watch, args=(ports[47_998], video, until)),
        threading.Thread(target=_watch, args=(ports[48_000], audio, until)),
        threading.Thread(target=_press, args=(ports[47_999], played, until)),
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return played


def _watch(port: int, heard: Heard, until: float) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        door.connect((HOST, port))
        door.settimeout(HEARING_SECONDS)
        ping_at = 0.0
        while (now := time.monotonic()) < until:
            if now >= ping_at:
                door.send(b"PING")
                ping_at = now + PING_SECONDS
            try:
                heard.take(door.recv(2_048))
            except TimeoutError:
                continue


def _press(port: int, played: Played, until: float) -> None:
    """Keys and mouse at 60 a second; the stand-in gives each back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        door.connect((HOST, port))
        due = time.monotonic()
        while due < until:
            due += INPUT_SECONDS
            door.send(struct.pack(">Q", time.monotonic_ns()) + bytes(INPUT_BYTES))
            played.inputs += 1
            _hear_echoes(door, played, due)
        _hear_echoes(door, played, due + 1)


def _hear_echoes(door: socket.socket, played: Played, until: float) -> None:
    while (left := until - time.monotonic()) > 0 and played.echoes < played.inputs:
        door.settimeout(left)
        try:
            (sent,) = struct.unpack_from(">Q", door.recv(2_048))
        except TimeoutError:
            return
        played.echoes += 1
        played.input_ms.append((time.monotonic_ns() - sent) / 1e6)
    time.sleep(max(0.0, until - time.monotonic()) if until - time.monotonic() < INPUT_SECONDS else 0)
