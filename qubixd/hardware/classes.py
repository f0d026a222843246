"""The GPU class: one short name for the market that a card belongs to."""

from __future__ import annotations

import re
from typing import Final

from protocol.catalogue import CPU_CLASS
from qubixd.hardware.facts import GIB, Hardware

_NOISE: Final = frozenset(
    {
        "NVIDIA",
        "GEFORCE",
        "TESLA",
        "QUADRO",
        "GPU",
        "GRAPHICS",
        "GENERATION",
        "PCIE",
        "AMD",
        "INSTINCT",
        "RADEON",
    }
)
_FORM_OR_MEMORY: Final = re.compile(r"SXM\d*|HBM\d\w*|\d+GB|\d+G")
_SOLD_IN_SIZES: Final = frozenset({"V100", "A100", "H100"})
"""Models whose memory makes two products of one name, so that the class must say it."""
_PCIE_IS_SLOWER: Final = "H100"
"""The one whose PCIe card is much slower than the other form: its class says so."""


def gpu_class(hardware: Hardware) -> str:
    """The market this machine belongs to: its first GPU's class, or "CPU"."""
    return class_of(hardware.gpus[0].model, hardware.gpus[0].vram_bytes) if hardware.gpus else CPU_CLASS


def class_of(model: str, vram_bytes: int) -> str:
    """Short name of a GPU model as its library gives it: "NVIDIA GeForce RTX 4090" -> "RTX_4090",
    "NVIDIA A100-SXM4-40GB" -> "A100_40GB", "NVIDIA H100 PCIe" -> "H100_PCIE_80GB", and of a slice
    "NVIDIA A100-SXM4-40GB MIG 1g.5gb" -> "A100_MIG_1G_5GB". Only letters, digits and underscores."""
    card, _, profile = model.upper().partition(" MIG ")
    words = re.findall(r"[A-Z0-9]+", card)
    kept = [word for word in words if word not in _NOISE and not _FORM_OR_MEMORY.fullmatch(word)]
    if profile:
        return "_".join((*kept, "MIG", *re.findall(r"[A-Z0-9]+", profile)))
    if _PCIE_IS_SLOWER in kept and "PCIE" in words:
        kept.append("PCIE")
    if _SOLD_IN_SIZES.intersection(kept):
        kept.append(f"{round(vram_bytes / GIB)}GB")
    return "_".join(kept) or "GPU"
