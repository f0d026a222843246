"""The verifier: bytes and a clock in, bytes and in the end a verdict out. No I/O; docs/proof.md has the why.

It holds one frame and some digests at a time, whatever the other side sends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Final

from qubixd.proof import field, frames
from qubixd.proof.frames import DIGEST, Fault, Identity, Malformed, Reader
from qubixd.proof.plan import JITTER_S, Plan

TOO_SLOW: Final = "proof.too_slow"
WRONG: Final = "proof.wrong"
TOO_FEW: Final = "proof.too_few_gpus"
WRONG_GPU: Final = "proof.wrong_gpu"
NO_ANSWER: Final = "proof.no_answer"
MALFORMED: Final = "proof.malformed"
PINGS: Final = 3
MAX_ROUND_TRIP_S: Final = 0.5
"""Beyond that a slow line is no excuse any more."""
MAX_ENTRY: Final = 1 << 28
"""No sum of n <= 16,384 products of two bytes is larger."""


@dataclass(frozen=True)
class Proof:
    """How a proof went. Times are the verifier's own, the line included."""

    ok: bool
    code: str = ""
    sentence: str = ""
    compute_ms: int = 0
    memory_ms: int = 0
    rate: float = 0.0
    """Operations a second, of all devices together."""
    devices: tuple[Identity, ...] = ()


class _Failed(Exception):
    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True)
class _Want:
    """The next frame that is due, what to send first, and how long it may take from then on."""

    kind: int
    size: int | None
    """None: whatever its header says, as long as it describes whole devices."""
    send: bytes = b""
    limit_s: float | None = None


Script = Generator[_Want, tuple[bytes, float], None]


class Verifier:
    """One challenge. `begin` once, then `receive` and `closed`; until `proof` is there, `deadline` is when
    to call `expired`."""

    def __init__(self, plan: Plan, random_bytes: Callable[[int], bytes]) -> None:
        self.plan, self._random = plan, random_bytes
        self.proof: Proof | None = None
        self.deadline = float("inf")
        self._reader, self._script = Reader(), self._challenge()
        self._want = next(self._script)
        self._devices: tuple[Identity, ...] = ()
        self._round_trip = MAX_ROUND_TRIP_S
        self._work_s = self._passes_s = 0.0
        self._sent_at = 0.0

    def begin(self, now: float) -> bytes:
        """The first bytes to send. `now` in seconds of a clock that never goes back."""
        return self._ask(now)

    def receive(self, data: bytes, now: float) -> bytes:
        """Take what came; returns what to send, often nothing."""
        self._reader.feed(data if self.proof is None else b"")
        out = b""
        try:
            while (
                self.proof is None and (body := self._reader.next(self._want.kind, self._size())) is not None
            ):
                out += self._take(body, now)
        except Malformed as fault:
            self._fail(MALFORMED, f"the machine did not answer as the program does: {fault}")
        except Fault as fault:
            said = "".join(char for char in str(fault) if char.isprintable())
            self._fail(NO_ANSWER, f"the proof could not be made there: {said}")
        except _Failed as failed:
            self._fail(failed.code, str(failed))
        return out

    def closed(self) -> None:
        """The other side has ended."""
        self._fail(NO_ANSWER, "the machine ended the proof before it was done")

    def expired(self) -> None:
        """The deadline has passed."""
        self._fail(
            TOO_SLOW if self._want.limit_s and self._want.kind in (frames.ROOTS, frames.SUMS) else NO_ANSWER,
            "the machine did not answer in time",
        )

    # --- the machinery ------------------------------------------------------------------------

    def _size(self) -> int:
        """Length that the next body must have."""
        if self._want.size is not None:
            return self._want.size
        length = self._reader.peek_length() or 0
        return min(length, self.plan.devices * frames.IDENTITY_BYTES)

    def _take(self, body: bytes, now: float) -> bytes:
        try:
            self._want = self._script.send((body, now))
        except StopIteration:
            self._end(Proof(True))
            return b""
        return self._ask(now)

    def _ask(self, now: float) -> bytes:
        if self._want.send:
            self._sent_at = now
        if self._want.limit_s is not None:
            self.deadline = now + self._want.limit_s
        return self._want.send

    def _fail(self, code: str, sentence: str) -> None:
        self._end(Proof(False, code, sentence))

    def _end(self, proof: Proof) -> None:
        if self.proof is None:
            plan = self.plan
            rate = plan.operations * len(self._devices) / self._work_s if self._work_s else 0.0
            spent = (round(1_000 * self._work_s), round(1_000 * self._passes_s))
            self.proof = Proof(proof.ok, proof.code, proof.sentence, *spent, rate, self._devices)
            self.deadline = float("inf")

    # --- the challenge ------------------------------------------------------------------------

    def _challenge(self) -> Script:
        plan, shape = self.plan, self.plan.shape
        body, _ = yield _Want(frames.READY, None, frames.plan(shape, plan.cuda, plan.devices), plan.prepare_s)
        self._devices = frames.identities(body)
        check_devices(plan, self._devices)
        yield from self._ping()
        solo_s = yield from self._solo()
        seed = self._random(DIGEST)
        roots, self._work_s = yield from self._timed(
            frames.begin(seed, shape.stripes, shape.threads), frames.ROOTS, shape.stripes, plan.work_s
        )
        self._check_cores(solo_s)
        secret = self._random(DIGEST)
        limit = plan.passes_s + self._round_trip
        sums, self._passes_s = yield from self._timed(
            frames.frame(frames.PASSES, secret), frames.SUMS, shape.passes + 1, limit
        )
        samples = [self._sample() for _ in range(plan.devices * plan.openings)]
        send = frames.openings(samples)
        for index in range(plan.devices):
            mine = samples[index * plan.openings : (index + 1) * plan.openings]
            device = _Device(
                plan,
                field.key_of(seed, index),
                field.key_of(secret, index),
                roots[index * shape.stripes : (index + 1) * shape.stripes],
                sums[index * (shape.passes + 1) : (index + 1) * (shape.passes + 1)],
            )
            yield from device.check(send, mine, self._below)
            send = b""

    def _timed(
        self, send: bytes, kind: int, each: int, limit_s: float
    ) -> Generator[_Want, tuple[bytes, float], tuple[tuple[bytes, ...], float]]:
        """Digests, as many of every device, and the seconds from question to answer."""
        size = self.plan.devices * each * DIGEST
        body, now = yield _Want(kind, size, send, limit_s)
        spent = now - self._sent_at
        if spent > limit_s:
            raise _Failed(TOO_SLOW, f"the answer took {spent:.2f} s, the limit is {limit_s:.2f} s")
        return frames.digests(body), spent

    def _ping(self) -> Script:
        """The line's usual round trip, believed up to MAX_ROUND_TRIP_S."""
        for _ in range(PINGS):
            said = self._random(8)
            body, now = yield _Want(frames.PONG, 8, frames.frame(frames.PING, said), self.plan.prepare_s)
            if body != said:
                raise Malformed("it sent back another number than it was sent")
            self._round_trip = min(self._round_trip, now - self._sent_at)

    def _solo(self) -> Generator[_Want, tuple[bytes, float], float]:
        """Seconds of one thread for its stripes; nothing of it is opened: to be fast there is no gain."""
        solo = self.plan.solo
        if solo is None:
            return 0.0
        limit = self.plan.work_s * self.plan.shape.threads
        send = frames.begin(self._random(DIGEST), solo.stripes, 1)
        _, spent = yield from self._timed(send, frames.ROOTS, solo.stripes, limit)
        return max(spent - self._round_trip, 1e-6)

    def _check_cores(self, solo_s: float) -> None:
        solo, shape = self.plan.solo, self.plan.shape
        if solo is None:
            return
        expected = solo_s / solo.stripes * shape.stripes / solo.cores
        limit = expected / solo.share + JITTER_S + self._round_trip
        if self._work_s > limit:
            raise _Failed(
                TOO_SLOW,
                f"{solo.cores:g} cores were rented; all threads took {self._work_s:.2f} s for what should "
                f"take {expected:.2f} s at one thread's speed, and at most {limit:.2f} s",
            )

    def _sample(self) -> tuple[int, int]:
        return self._below(self.plan.shape.rows), self._below(self.plan.shape.passes)

    def _below(self, bound: int) -> int:
        return int.from_bytes(self._random(16), "big") % bound


def check_devices(plan: Plan, devices: Sequence[Identity]) -> None:
    """The rented devices, each once and with its memory. What a device says of itself it may forge."""
    if len(devices) < plan.devices:
        raise _Failed(TOO_FEW, f"{plan.devices} GPUs were rented, {len(devices)} are in the container")
    if not plan.cuda:
        return
    if len({device.uuid for device in devices}) < plan.devices:
        raise _Failed(TOO_FEW, "one GPU is in the container under several numbers")
    for device in devices:
        if not plan.digests & set(uuid_digests(device.uuid)):
            raise _Failed(WRONG_GPU, f"the GPU {device.name!r} in the container is not one that was rented")
        if device.memory < plan.least_memory:
            raise _Failed(
                WRONG_GPU,
                f"the GPU {device.name!r} has {device.memory >> 20} MiB, less than the model that was rented",
            )


def uuid_digests(uuid: bytes) -> tuple[bytes, ...]:
    """As leases name a card or a slice of one: SHA-256 of its UUID in letters."""
    text = uuid.hex()
    parts = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
    return tuple(hashlib.sha256(f"{kind}-{parts}".encode()).digest() for kind in ("GPU", "MIG"))


@dataclass(frozen=True)
class _Device:
    """What one device has committed to, held against what it opens."""

    plan: Plan
    key: bytes
    secret: bytes
    roots: Sequence[bytes]
    sums: Sequence[bytes]

    def check(self, send: bytes, samples: Sequence[tuple[int, int]], below: Callable[[int], int]) -> Script:
        plan, shape = self.plan, self.plan.shape
        body, _ = yield _Want(frames.INNER, 4 * shape.n, send, plan.open_s)
        if hashlib.sha256(body).digest() != self.sums[0]:
            raise _Failed(WRONG, "the machine opened other sums than it had committed to")
        z = field.numbers(body, signed=False)
        lists, draws, secret = [], [], self.secret
        for committed in self.sums[1:]:
            body, _ = yield _Want(frames.LIST, shape.stripes * DIGEST)
            if hashlib.sha256(body).digest() != committed:
                raise _Failed(WRONG, "the machine opened other sums than it had committed to")
            lists.append(frames.digests(body))
            draws.append(field.draw(secret, shape.n))
            secret = field.next_key(secret, committed)
        for row, number in samples:  # a little of each check at a time: others wait for this thread
            body, _ = yield _Want(frames.ROW, shape.opening_bytes)
            self._check_inner(below(shape.n), z, draws[0])
            self._check_row(row, body, z, draws[0])
            self._check_sum(row, body, lists[number], draws[number])

    def _check_inner(self, k: int, z: Sequence[int], r: Sequence[int]) -> None:
        """z[k] is a row of B times r."""
        if field.dot(field.small_row(self.key, field.TAG_B, k, self.plan.shape.n), r) != z[k] % field.PRIME:
            raise _Failed(WRONG, "the machine multiplied another matrix than the one it was given")

    def _check_row(self, row: int, body: bytes, z: Sequence[int], r: Sequence[int]) -> None:
        """Committed before r was known, and a row of A times B by Freivalds' method."""
        shape = self.plan.shape
        raw, path = (
            body[: 4 * shape.n],
            frames.digests(body[4 * shape.n : 4 * shape.n + DIGEST * shape.depth]),
        )
        root = field.root_of(field.row_digest(raw), row % shape.stripe_rows, path)
        if root != self.roots[row // shape.stripe_rows]:
            raise _Failed(WRONG, "the machine opened a row that is not the one it had committed to")
        c = field.numbers(raw, signed=True)
        if max(c) > MAX_ENTRY or min(c) < -MAX_ENTRY:
            raise _Failed(WRONG, "a row has numbers larger than any product")
        if field.dot(c, r) != field.dot(field.small_row(self.key, field.TAG_A, row, shape.n), z):
            raise _Failed(WRONG, "a row of the product is wrong: the machine did not compute it")

    def _check_sum(self, row: int, body: bytes, roots: Sequence[bytes], r: Sequence[int]) -> None:
        """The pass had what is kept of this row."""
        shape = self.plan.shape
        at = 4 * shape.n + DIGEST * shape.depth
        chunk, path = body[at : at + 4 * frames.CHUNK], frames.digests(body[at + 4 * frames.CHUNK :])
        inside = row % shape.stripe_rows
        root = field.root_of(field.chunk_digest(chunk), inside // frames.CHUNK, path)
        if root != roots[row // shape.stripe_rows]:
            raise _Failed(WRONG, "the machine opened other sums than it had committed to")
        said = field.numbers(chunk, signed=False)[inside % frames.CHUNK]
        kept = field.kept(field.numbers(body[: 4 * shape.n], signed=True))
        if field.dot(kept, r) != said % field.PRIME:
            raise _Failed(WRONG, "a sum over the memory is wrong: the machine did not hold what it computed")
