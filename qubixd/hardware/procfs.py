"""NVIDIA's cards as the kernel's driver lists them in /proc, held against what NVML said.

Both come from the same driver by different ways, so that a library that was put before NVML, a driver that is
half replaced, or a mistake of ours shows. Where the folder is missing (not Linux, WSL) nothing is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from qubixd.hardware.facts import Gpu

DRIVER: Final = Path("/proc/driver/nvidia")


def disagreements(gpus: Iterable[Gpu], driver: Path = DRIVER) -> dict[str, str]:
    """UUID of each of NVIDIA's GPUs on which the two disagree -> in what, as half a sentence."""
    folder = driver / "gpus"
    if not folder.is_dir():
        return {}
    listed = {entry["Bus Location"].lower(): entry for entry in _entries(folder) if "Bus Location" in entry}
    found = {gpu.uuid: _difference(gpu, listed) for gpu in gpus if gpu.vendor == "nvidia"}
    return {uuid: words for uuid, words in found.items() if words}


def _entries(folder: Path) -> Iterator[dict[str, str]]:
    """Of each card: lines such as "GPU UUID: \t GPU-5f0c..."."""
    for path in sorted(folder.glob("*/information")):
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:  # gone since it was listed
            continue
        pairs = (line.partition(":") for line in lines)
        yield {name.strip(): value.strip() for name, _, value in pairs}


def _difference(gpu: Gpu, listed: dict[str, dict[str, str]]) -> str:
    entry = listed.get(gpu.pci_bus_id)
    if entry is None:
        return f"the kernel knows no card at {gpu.pci_bus_id or 'its place'}"
    uuid, whole = entry.get("GPU UUID", ""), gpu.mig_parent or gpu.uuid
    # A card that nobody has used yet says "GPU-????????-...".
    if uuid and "?" not in uuid and uuid != whole:
        return f"the kernel says that the card at {gpu.pci_bus_id} is {uuid}"
    model = entry.get("Model", "")
    if model and _plain(model) != _plain(gpu.model):
        return f"the kernel says that the card at {gpu.pci_bus_id} is a {model}"
    return ""


def _plain(model: str) -> str:
    """Without the profile of a slice, and without the brand, which drivers before 470 left out."""
    return model.partition(" MIG ")[0].lower().removeprefix("nvidia ").strip()
