"""What is told of a machine and its GPUs, whoever made them: the dataclasses of this package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GIB: Final = 1 << 30


@dataclass(frozen=True)
class Pcie:
    """A card's link. `now` is lower than `most` while it idles, so that says nothing about its state."""

    generation_now: int
    generation_most: int
    width_now: int
    width_most: int


@dataclass(frozen=True)
class Gpu:
    """One GPU to rent: a card, or one slice (MIG) of a card that is cut into slices."""

    uuid: str
    """ "GPU-..." of a card, "MIG-..." of a slice: what the container engine knows it by."""
    model: str
    """A slice's ends in its profile: "NVIDIA A100-SXM4-40GB MIG 1g.5gb"."""
    vram_bytes: int
    driver_version: str
    cuda: int
    """Newest CUDA that the driver supports, as CUDA writes it: 12040 is 12.4. 0 where there is none."""
    compute_capability: str
    """Such as "8.9"; what a CUDA program must have been built for. AMD: the target, "gfx942"."""
    vendor: str = "nvidia"
    pci_bus_id: str = ""
    """Domain, bus, device and function, "0000:01:00.0"; of a slice: its card's."""
    pcie: Pcie | None = None
    mig_parent: str = ""
    """UUID of the card that this slice is cut from."""


@dataclass(frozen=True)
class GpuProcess:
    pid: int
    """As this machine numbers processes, also for one in a container."""
    bytes: int | None
    """Of the card's memory; None where the driver does not say."""
    computes: bool
    """It runs kernels; False for one that only draws."""


@dataclass(frozen=True)
class GpuSample:
    """One GPU at one moment. None: the card does not tell (a slice has no use ratio of its own)."""

    uuid: str
    use_ratio: float | None
    """Share of the last sample period in which a kernel ran, 0..1."""
    memory_used: int
    memory_total: int
    """Bytes."""
    temperature_c: int | None
    power_mw: int | None
    """Of a slice: these two are its whole card's."""
    processes: tuple[GpuProcess, ...] | None


@dataclass(frozen=True)
class Vitals:
    """How well one GPU is. `lost` says why it does not answer; the rest means nothing then."""

    uuid: str
    lost: str = ""
    ecc_uncorrected: int = 0
    """Memory errors that could not be corrected since the driver was loaded."""
    rows_pending: bool = False
    """Memory was found bad and is replaced at the next reset."""
    rows_failed: bool = False
    """Memory was found bad and could not be replaced."""
    slowdown: frozenset[str] = frozenset()
    """Of "thermal" and "power_brake": the hardware itself has cut the clocks."""
    xids: tuple[int, ...] = ()
    """NVIDIA's numbers of the errors since they were last asked for."""
    needs: str | None = None
    """What the driver says that it needs: "" for nothing, None where it does not say."""


@dataclass(frozen=True)
class Hardware:
    """This machine now; only `disk_free_bytes` changes while it runs."""

    cpu_model: str
    cores_physical: int
    cores_logical: int
    ram_bytes: int
    disk_free_bytes: int
    os: str
    """ "linux", "windows" or "darwin"."""
    arch: str
    """As container images say it: "amd64", "arm64"."""
    gpus: tuple[Gpu, ...]
