"""How fast what was rented must be at least: from the catalogue's figures, computed from datasheets.

The shares below say how much of a datasheet's peak our own kernels must reach. They have not been measured
on cards yet, so they are low; docs/proof.md says what that lets through.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from protocol.all_in import sold_mib
from protocol.catalogue import GpuModel, gpu_of
from qubixd.hardware.classes import class_of

MIB: Final = 1 << 20
DOT4_CLASSES: Final = ("T4", "V100")
"""Without the tensor instruction that the kernels use (compute capability below 8.0): dp4a."""
GEFORCE: Final = re.compile(r"RTX_\d{4}(?!_ADA)")
FOREIGN: Final = ("MI",)
"""Beginnings of the classes that NVIDIA's driver does not drive."""
SHARES: Final = {"H100": 0.15, "H200": 0.15, "B200": 0.02}
"""By the beginning of a class. Hopper's and Blackwell's peak is that of instructions of their own."""
USUAL_SHARE: Final = 0.25
BANDWIDTH_SHARE: Final = 0.25
OPERATIONS_PER_CORE: Final = 1e9
"""A core of a processor of the last ten years multiplies and adds at least half a thousand million times a
second, hashing included."""
CORES_SHARE: Final = 0.3
"""What all threads together must reach of their number times one thread alone. Two threads of one core
reach 0.5 and clocks fall under load; below 0.3 somebody else is using the cores."""


@dataclass(frozen=True)
class Band:
    """Of one GPU: operations a second (a multiplication and an addition are two), bytes a second."""

    operations: float
    bandwidth: float
    known: bool
    """The catalogue has the model; otherwise these are what any card reaches."""


ANY_CARD: Final = Band(operations=1e12, bandwidth=2e10, known=False)


def catalogued(model: str, vram_mib: int) -> GpuModel | None:
    """The catalogue's entry for a card as its driver calls it."""
    return gpu_of(class_of(model, sold_mib(vram_mib) * MIB)) or gpu_of(model)


def provable(model: str, vram_mib: int) -> bool:
    """Whether the program has a part for such a card: not for AMD's."""
    found = catalogued(model, vram_mib)
    return found is None or not found.name.startswith(FOREIGN)


def band_of(model: str, vram_mib: int) -> Band:
    """The least that a card of that name must reach."""
    found = catalogued(model, vram_mib)
    if found is None:
        return ANY_CARD
    share = next((value for name, value in SHARES.items() if found.name.startswith(name)), USUAL_SHARE)
    return Band(peak(found) * share, found.bandwidth_gb_s * 1e9 * BANDWIDTH_SHARE, known=True)


def peak(model: GpuModel) -> float:
    """8-bit operations a second by the datasheet, of the instructions that the kernels use.

    Where it has no int8 figure: it is twice FP16's, and four times on GeForce cards, whose FP16 with sums in
    FP32 is halved. So it is for every card of the catalogue that has both.
    """
    tflops = model.tflops
    if model.name.startswith(DOT4_CLASSES):
        return 4e12 * tflops["fp32"]
    times = 4 if GEFORCE.match(model.name) else 2
    return 1e12 * (tflops.get("int8") or times * tflops["fp16"])
