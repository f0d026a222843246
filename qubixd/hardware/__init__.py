"""What this machine has to sell and how it is: CPU, memory, disk, GPUs of NVIDIA and AMD.

`detect` looks once; a `Session` looks again every second. A machine without a GPU (or without its vendor's
library) sells its CPU.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterable
from pathlib import Path

import psutil

from qubixd.hardware import amd, cpu, nvidia
from qubixd.hardware.classes import class_of as class_of
from qubixd.hardware.classes import gpu_class as gpu_class
from qubixd.hardware.facts import GIB as GIB
from qubixd.hardware.facts import Gpu as Gpu
from qubixd.hardware.facts import GpuProcess as GpuProcess
from qubixd.hardware.facts import GpuSample as GpuSample
from qubixd.hardware.facts import Hardware as Hardware
from qubixd.hardware.facts import Pcie as Pcie
from qubixd.hardware.facts import Vitals as Vitals


def detect(disk: Path = Path("/")) -> Hardware:
    """Ask this machine. `disk` is any existing path on the disk that jobs will use. Takes up to a second
    where a GPU must wake up: call it in a thread."""
    logical = psutil.cpu_count(logical=True) or 1
    with Session() as session:
        gpus = session.gpus
    return Hardware(
        cpu_model=cpu.model(),
        cores_physical=psutil.cpu_count(logical=False) or logical,
        cores_logical=logical,
        ram_bytes=psutil.virtual_memory().total,
        disk_free_bytes=shutil.disk_usage(disk).free,
        os=platform.system().lower(),
        arch=cpu.arch(),
        gpus=gpus,
    )


class Session:
    """Every GPU here, asked again and again; made for one worker thread at a time, once a second.

    Holds the vendors' libraries open between the questions, because opening them takes a second. Nothing
    here raises: a card that does not answer is missing in `sample` and says why in `vitals`.
    """

    def __init__(self, expected: Iterable[str] = ()) -> None:
        """`expected`: UUIDs of NVIDIA's GPUs that must be here; `vitals` tells of them in any case."""
        self._vendors = (nvidia.Cards(expected), amd.Cards())

    def open(self) -> None:
        for vendor in self._vendors:
            vendor.open()

    def close(self) -> None:
        for vendor in self._vendors:
            vendor.close()

    def __enter__(self) -> Session:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """As found when it was last opened; a UUID that two cards claim is in it twice."""
        return tuple(gpu for vendor in self._vendors for gpu in vendor.gpus)

    def sample(self) -> tuple[GpuSample, ...]:
        """What each card does now, those left out that do not answer."""
        return tuple(one for vendor in self._vendors for one in vendor.sample())

    def vitals(self) -> tuple[Vitals, ...]:
        """How each card is that has ever been seen here. Ask after `sample`."""
        return tuple(one for vendor in self._vendors for one in vendor.vitals())
