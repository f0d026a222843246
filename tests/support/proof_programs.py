"""The proof's programs for tests: the honest ones, a cheater's, and a driver library without a GPU.

`play` lets a real program answer a verifier, under a clock that the test writes.
"""

from __future__ import annotations

import hashlib
import os
import platform
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from qubixd.proof import frames
from qubixd.proof.build import SOURCES, STRICT_FLAGS, Programs, zig
from qubixd.proof.frames import Shape
from qubixd.proof.plan import Plan
from qubixd.proof.verify import Proof, Verifier, uuid_digests

OWN: Final = Path(__file__).parent / "proof"
CHEAT: Final = (OWN / "cheat.c", SOURCES / "prover.c")
PLAIN: Final = (OWN / "plain.c",)
STUB: Final = (OWN / "cuda_stub.cpp",)
LIBRARY_FLAGS: Final = ("-std=c++17", "-shared", "-fPIC", "-fvisibility=hidden", "-fno-sanitize=all", "-O2")
ARCH: Final = "arm64" if platform.machine() in ("aarch64", "arm64") else "amd64"
"""Of this machine."""
TARGET: Final = {"amd64": "x86_64-linux-musl", "arm64": "aarch64-linux-musl"}[ARCH]
PROGRAM_FLAGS: Final = ("-target", TARGET, "-static", "-std=gnu11", "-O2", "-fno-sanitize=all", "-lpthread")
COMPILE_SECONDS: Final = 300


def cache() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "qubix-test" / "proof"


def honest(cuda: bool = False) -> Path:
    """The program as it is sent, for this machine, compiled with every warning an error."""
    return Programs(cache()).path(ARCH, cuda, STRICT_FLAGS)


def cheater() -> Path:
    """tests/support/proof/cheat.c: takes its orders from QUBIX_CHEAT."""
    return _made("cheat", "cc", PROGRAM_FLAGS, CHEAT)


def plain() -> Path:
    """tests/support/proof/plain.c: the product alone."""
    return _made("plain", "cc", PROGRAM_FLAGS, PLAIN)


def driver(tensor_cores: bool) -> Path:
    """A folder with a libcuda.so.1 that has no GPU; for LD_LIBRARY_PATH."""
    flags = (*LIBRARY_FLAGS, *(("-DQUBIX_MMA",) if tensor_cores else ()))
    return _made("libcuda.so.1", "c++", flags, STUB).parent


def _made(name: str, language: str, flags: tuple[str, ...], sources: tuple[Path, ...]) -> Path:
    digest = hashlib.sha256(" ".join(flags).encode())
    for path in sorted((*SOURCES.glob("*.[ch]*"), *OWN.iterdir())):
        digest.update(path.read_bytes())
    made = cache() / digest.hexdigest()[:32] / name
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=made.parent) as folder:
            out = Path(folder) / name
            command = (*zig()[:-1], language, *flags, f"-I{SOURCES}", "-o", str(out), *map(str, sources))
            subprocess.run(command, check=True, timeout=COMPILE_SECONDS)
            out.rename(made)
    return made


def small(
    devices: int = 0,
    n: int = 256,
    stripe_rows: int = 128,
    stripes: int = 4,
    passes: int = 2,
    openings: int = 64,
) -> Plan:
    """A plan that takes no time worth speaking of: a processor, or so many cards of the stub."""
    digests = frozenset(uuid_digests(bytes([index + 1]) * 16)[0] for index in range(devices))
    shape = Shape(n, stripe_rows, stripes, passes, threads=2)
    return Plan(devices > 0, max(1, devices), shape, digests, 0, 10.0, 1.0, openings=openings)


def split(tape: bytes) -> Iterator[tuple[int, bytes]]:
    """The frames of a stream: (kind, the whole frame)."""
    while tape:
        length, kind = struct.unpack_from("<II", tape)
        yield kind, tape[: 8 + length]
        tape = tape[8 + length :]


class Clock(Protocol):
    """By which a verifier judges: it is told what is sent, and asked for the time in seconds."""

    def asked(self, out: bytes) -> None: ...

    def now(self) -> float: ...


@dataclass
class Script:
    """A clock: it stands still, except that the answer to a request of a kind takes so long."""

    spends: Mapping[int, float] = field(default_factory=dict)
    at: float = 0.0

    def asked(self, out: bytes) -> None:
        for kind, _ in split(out):
            self.at += self.spends.get(kind, 0.0)

    def now(self) -> float:
        return self.at


@dataclass
class StubClock:
    """The time that the stub's cards have counted, in the file QUBIX_STUB_CLOCK."""

    path: Path

    def asked(self, out: bytes) -> None:
        """The cards count by themselves."""

    def now(self) -> float:
        seconds: float = struct.unpack("<d", self.path.read_bytes())[0]
        return seconds


Random = Callable[[int], bytes]


def play(
    program: Path,
    plan: Plan,
    environment: Mapping[str, str] | None = None,
    clock: Clock | None = None,
    random_bytes: Random = os.urandom,
    tape: bytearray | None = None,
) -> Proof:
    """Let a program answer; `tape` gets what it said."""
    clock = clock or Script()
    verifier = Verifier(plan, random_bytes)
    out = verifier.begin(clock.now())
    with subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **(environment or {})}
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        while verifier.proof is None:
            if out:
                process.stdin.write(out)
                process.stdin.flush()
                clock.asked(out)
            data = os.read(process.stdout.fileno(), 65_536)
            if tape is not None:
                tape += data
            out = verifier.receive(data, clock.now()) if data else b""
            if not data:
                verifier.closed()
        process.kill()
    return verifier.proof


def answered(verifier: Verifier, answer: Callable[[int, bytes], bytes]) -> Proof:
    """Let a function answer: (kind, body of a request) -> frames."""
    out = verifier.begin(0.0)
    while verifier.proof is None and out:
        said = b"".join(answer(kind, one[8:]) for kind, one in split(out))
        out = verifier.receive(said, 0.0)
    if verifier.proof is None:
        verifier.expired()
    assert verifier.proof is not None
    return verifier.proof


def replaying(tape: bytes) -> Callable[[int, bytes], bytes]:
    """Whoever kept the answers of an earlier proof and gives them again, pings apart."""
    said: dict[int, bytes] = {}
    for kind, one in split(tape):
        said[kind] = said.get(kind, b"") + one
    openings = b"".join(one for kind, one in split(tape) if kind in (frames.INNER, frames.LIST, frames.ROW))

    def answer(kind: int, body: bytes) -> bytes:
        if kind == frames.PING:
            return frames.frame(frames.PONG, body)
        answers = {frames.PLAN: frames.READY, frames.BEGIN: frames.ROOTS, frames.PASSES: frames.SUMS}
        return openings if kind == frames.OPEN else said[answers[kind]]

    return answer
