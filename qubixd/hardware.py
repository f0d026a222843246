"""What this machine has to sell: CPU, memory, disk and NVIDIA GPUs, and the GPU class that names its market.
A machine without a GPU (or without NVIDIA's library) sells its CPU."""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import pynvml

from protocol.catalogue import CPU_CLASS

GIB: Final = 1 << 30


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU as NVML describes it. `cuda_version` is the newest the driver supports, "12.4"."""

    uuid: str
    model: str
    vram_bytes: int
    driver_version: str
    cuda_version: str
    compute_capability: str
    """Such as "8.9"; what a CUDA program must have been built for."""


@dataclass(frozen=True)
class Hardware:
    """This machine now; only `disk_free_bytes` changes while it runs."""

    cpu_model: str
    cores_physical: int
    cores_logical: int
    ram_bytes: int
    disk_free_bytes: int
    os: str
    """"linux", "windows" or "darwin"."""
    arch: str
    gpus: tuple[Gpu, ...]


def detect(disk: Path = Path("/")) -> Hardware:
    """Ask this machine. `disk` is any existing path on the disk that jobs will use. Takes up to a second
    where a GPU must wake up: call it in a thread."""
    logical = psutil.cpu_count(logical=True) or 1
    return Hardware(
        cpu_model=_cpu_model(),
        cores_physical=psutil.cpu_count(logical=False) or logical,
        cores_logical=logical,
        ram_bytes=psutil.virtual_memory().total,
        disk_free_bytes=shutil.disk_usage(disk).free,
        os=platform.system().lower(),
        arch=platform.machine().lower(),
        gpus=_gpus(),
    )


# GPUs ------------------------------------------------------------------------------------------


def _gpus() -> tuple[Gpu, ...]:
    """All GPUs NVML lists; none where there is no driver. One that fails (fallen off the bus) is left out."""
    with _nvml() as answers:
        if not answers:
            return ()
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        cuda_version = f"{cuda // 1000}.{cuda % 1000 // 10}"  # NVML says 12040 for 12.4
        found = (_gpu(index, driver, cuda_version) for index in range(pynvml.nvmlDeviceGetCount()))
        return tuple(gpu for gpu in found if gpu is not None)


def _gpu(index: int, driver_version: str, cuda_version: str) -> Gpu | None:
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        return Gpu(
            uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
            model=_text(pynvml.nvmlDeviceGetName(handle)),
            vram_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
            driver_version=driver_version,
            cuda_version=cuda_version,
            compute_capability=f"{major}.{minor}",
        )
    except pynvml.NVMLError:
        return None


@contextmanager
def _nvml() -> Iterator[bool]:
    """NVML for the time of the block; False where its library or driver is missing."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield False
        return
    try:
        yield True
    finally:
        pynvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    """Older bindings answer with bytes."""
    return value.decode() if isinstance(value, bytes) else value


# Classes ---------------------------------------------------------------------------------------

_NOISE: Final = frozenset({"NVIDIA", "GEFORCE", "TESLA", "QUADRO", "GPU", "GRAPHICS", "GENERATION", "PCIE"})
_FORM_OR_MEMORY: Final = re.compile(r"SXM\d*|HBM\d\w*|\d+GB|\d+G")
_SOLD_IN_SIZES: Final = frozenset({"V100", "A100", "H100"})
"""Models whose memory makes two products of one name, so that the class must say it."""
_PCIE_IS_SLOWER: Final = "H100"
"""The one whose PCIe card is much slower than the other form: its class says so."""


def gpu_class(hardware: Hardware) -> str:
    """The market this machine belongs to: its first GPU's class, or "CPU"."""
    return class_of(hardware.gpus[0].model, hardware.gpus[0].vram_bytes) if hardware.gpus else CPU_CLASS


def class_of(model: str, vram_bytes: int) -> str:
    """Short name of a GPU model as NVML gives it: "NVIDIA GeForce RTX 4090" -> "RTX_4090",
    "NVIDIA A100-SXM4-40GB" -> "A100_40GB", "NVIDIA H100 PCIe" -> "H100_PCIE_80GB".
    Only letters, digits and underscores."""
    words = re.findall(r"[A-Z0-9]+", model.upper())
    kept = [word for word in words if word not in _NOISE and not _FORM_OR_MEMORY.fullmatch(word)]
    if _PCIE_IS_SLOWER in kept and "PCIE" in words:
        kept.append("PCIE")
    if _SOLD_IN_SIZES.intersection(kept):
        kept.append(f"{round(vram_bytes / GIB)}GB")
    return "_".join(kept) or "GPU"


# CPU -------------------------------------------------------------------------------------------


def _cpu_model() -> str:
    """The processor's own name where the system tells it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        match = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(errors="replace"), re.MULTILINE)
        if match:
            return " ".join(match[1].split())
    return platform.processor() or platform.machine()
