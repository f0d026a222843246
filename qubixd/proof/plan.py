"""What is asked of a machine: sizes that fill what was rented, and how long it may take. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from protocol.all_in import sold_mib
from protocol.errors import QubixError
from protocol.messages import Gpu, Terms
from qubixd.proof.band import (
    CORES_SHARE,
    MIB,
    OPERATIONS_PER_CORE,
    Band,
    band_of,
    provable,
)
from qubixd.proof.field import PRIME
from qubixd.proof.frames import CHUNK, DIGEST, SEGMENT, Shape

OPENINGS: Final = 64
"""Rows opened of each device, and rows of B checked: 0.75 ** 64 is 1e-8."""
GPU_N: Final = 8_192
"""Large enough that to compute a part of the memory again takes much longer than to read all of it."""
GPU_STRIPE: Final = 4_096
GPU_PASSES: Final = 16
FILLED: Final = 0.9
"""Of the card's memory as it is sold."""
DRIVER_BYTES: Final = 512 * MIB
"""What the driver takes of it for itself."""
LEAST_MEMORY: Final = 0.85
"""Of the memory that is sold, what a card must report: error correction takes a sixteenth."""
LEAST_ROWS: Final = 2
"""Times n: with fewer rows than n, wrong places in z could be fitted to every row (docs/proof.md)."""
CPU_SIZES: Final = (1_024, 512, 256)
CPU_STRIPE: Final = 128
CPU_PASSES: Final = 2
CPU_OPERATIONS: Final = 6e9
"""For each core: about a quarter of a second."""
CPU_MEMORY_SHARE: Final = 4
"""A quarter of the rented memory at most: the container holds more than the proof."""
CPU_BANDWIDTH: Final = 1e8
LIGHT_N: Final = 512
PREPARE_S: Final = 120.0
"""The driver compiles the kernels; the first time on a card that takes a while."""
LINE_S: Final = 2.0
"""What the line may add to a phase of seconds."""
JITTER_S: Final = 0.5
"""What it may add to a shorter one beyond its usual round trip."""
OPEN_S: Final = 120.0
LIGHT_S: Final = 60.0


class NotProvable(QubixError):
    """The program has no part for such a machine."""

    code = "proof.not_possible"


@dataclass(frozen=True)
class Solo:
    """One thread alone before all threads: how many stripes, and what share of the sum all must reach."""

    stripes: int
    cores: float
    share: float = CORES_SHARE


@dataclass(frozen=True)
class Plan:
    """Everything the verifier needs to know. Limits are in seconds of the verifier's own clock."""

    cuda: bool
    devices: int
    shape: Shape
    digests: frozenset[bytes]
    """SHA-256 of the rented GPUs' UUIDs; empty for a processor."""
    least_memory: int
    """Bytes that each device must say it has."""
    work_s: float
    passes_s: float
    prepare_s: float = PREPARE_S
    open_s: float = OPEN_S
    openings: int = OPENINGS
    solo: Solo | None = None

    @property
    def operations(self) -> float:
        """Of one device: multiplications and additions."""
        return 2.0 * self.shape.rows * self.shape.n**2

    @property
    def kept_bytes(self) -> int:
        """Of one device: what each pass reads."""
        return self.shape.rows * self.shape.n

    @property
    def false_accept(self) -> float:
        """The most likely that a device passes which left out a quarter of the work; docs/proof.md."""
        return float(0.75**self.openings) + self.openings / PRIME


def plan_of(terms: Terms, cards: Sequence[Gpu]) -> Plan:
    """The full proof of a lease: of its GPUs, or of its processor if it has none.

    `cards`: the rented GPUs as the provider's offer had them when its quote was taken. NotProvable for what
    cannot be proved.
    """
    if terms.wish.gpu_count:
        return gpu_plan(_known(terms, cards))
    return cpu_plan(terms.wish.cpu_millis, terms.wish.memory_mib)


def light_plan(terms: Terms, cards: Sequence[Gpu]) -> Plan:
    """While the job runs: the same devices must still be there and compute rightly; time hardly counts."""
    full = plan_of(terms, cards)
    n = min(LIGHT_N, full.shape.n)
    shape = Shape(n=n, stripe_rows=CPU_STRIPE, stripes=_least(n), passes=1, threads=1)
    return replace(full, shape=shape, work_s=LIGHT_S, passes_s=LIGHT_S, open_s=LIGHT_S, solo=None)


# GPUs ------------------------------------------------------------------------------------------


def gpu_plan(cards: Sequence[Gpu], n: int = GPU_N, stripe_rows: int = GPU_STRIPE) -> Plan:
    """All cards at once, each with the sizes of the smallest and the time of the slowest."""
    if not all(provable(card.model, card.vram_mib) for card in cards):
        raise NotProvable("GPUs of this maker cannot be proved yet; ask without a proof")
    sold = min(sold_mib(card.vram_mib) for card in cards) * MIB
    stripes = gpu_stripes(sold, n, stripe_rows, GPU_PASSES)
    shape = Shape(n=n, stripe_rows=stripe_rows, stripes=stripes, passes=GPU_PASSES, threads=1)
    slowest = _slowest([band_of(card.model, card.vram_mib) for card in cards])
    plan = Plan(
        cuda=True,
        devices=len(cards),
        shape=shape,
        digests=frozenset(card.digest for card in cards),
        least_memory=int(sold * LEAST_MEMORY),
        work_s=0.0,
        passes_s=0.0,
    )
    return replace(
        plan,
        work_s=plan.operations / slowest.operations + LINE_S,
        passes_s=shape.passes * plan.kept_bytes / slowest.bandwidth + JITTER_S,
    )


def gpu_stripes(sold: int, n: int, stripe_rows: int, passes: int) -> int:
    """How many stripes fit beside what the computation needs in any case."""
    fixed = n * n + stripe_rows * n * 5 + stripe_rows * n // SEGMENT * DIGEST
    each = stripe_rows * (n + 2 * DIGEST + 4 * passes + 2 * DIGEST // CHUNK) + DIGEST
    return max(1, int(sold * FILLED - DRIVER_BYTES - fixed) // each)


def _slowest(bands: Sequence[Band]) -> Band:
    return Band(
        min(band.operations for band in bands),
        min(band.bandwidth for band in bands),
        all(band.known for band in bands),
    )


def _known(terms: Terms, cards: Sequence[Gpu]) -> Sequence[Gpu]:
    """The rented cards; those the offer no longer shows are taken for the least that was asked for."""
    found = {card.digest: card for card in cards}
    least = max(terms.wish.gpu_vram_mib, 2_048)
    return [
        found.get(digest) or Gpu(model=terms.wish.gpu_model, vram_mib=least, digest=digest)
        for digest in terms.gpu_digests
    ]


# Processors ------------------------------------------------------------------------------------


def cpu_plan(cpu_millis: int, memory_mib: int) -> Plan:
    """About a quarter of a second of all rented cores, in at most a quarter of the rented memory."""
    cores = cpu_millis / 1_000
    room = memory_mib * MIB // CPU_MEMORY_SHARE
    threads = max(1, min(-(-cpu_millis // 1_000), 1_024))
    n = next((size for size in CPU_SIZES if _cpu_bytes(size, threads, _least(size)) <= room), CPU_SIZES[-1])
    while threads > 1 and _cpu_bytes(n, threads, _least(n)) > room:
        threads -= 1
    wanted = max(threads, round(CPU_OPERATIONS * cores / (2 * CPU_STRIPE * n * n)))
    cores = min(cores, float(threads))
    most = (room - _cpu_bytes(n, threads, 0)) // (_cpu_bytes(n, 0, 1) - _cpu_bytes(n, 0, 0))
    stripes = max(_least(n), min(wanted, most))
    shape = Shape(n=n, stripe_rows=CPU_STRIPE, stripes=stripes, passes=CPU_PASSES, threads=threads)
    plan = Plan(
        cuda=False,
        devices=1,
        shape=shape,
        digests=frozenset(),
        least_memory=0,
        work_s=0.0,
        passes_s=0.0,
        prepare_s=30.0,
        solo=Solo(max(1, stripes // threads // 3), cores) if cores >= 2 and threads >= 2 else None,
    )
    return replace(
        plan,
        work_s=plan.operations / (OPERATIONS_PER_CORE * cores) + LINE_S,
        passes_s=shape.passes * plan.kept_bytes / (CPU_BANDWIDTH * cores) + LINE_S,
    )


def _least(n: int) -> int:
    """Stripes of CPU_STRIPE rows that make enough rows for the bound to hold."""
    return LEAST_ROWS * n // CPU_STRIPE


def _cpu_bytes(n: int, threads: int, stripes: int) -> int:
    """Memory of the program on a processor: W as 16-bit numbers, each thread's A and C, what is kept."""
    kept = CPU_STRIPE * (n + 2 * DIGEST + 4 * CPU_PASSES)
    return n * n * 2 + threads * CPU_STRIPE * n * 6 + stripes * kept
