"""What this computer has to rent, in the words of offers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from protocol.catalogue import suggested_price
from protocol.messages import Capacity, Gpu
from protocol.units import Qu
from qubixd.hardware import Hardware, gpu_class

MIB: Final = 1 << 20
DISK_SHARE: Final = 0.8
"""Of the free disk; the rest stays for the system and for images."""
MEMORY_SHARE: Final = 0.9


@dataclass(frozen=True)
class Machine:
    capacity: Capacity
    gpu_class: str
    gpu_uuids: dict[bytes, str]
    """GPU digest -> the UUID the engine knows the card by."""
    suggested_price: Qu
    """Of the whole, with all its cards, as offers have it."""


def machine_of(hardware: Hardware, qu_per_credit: int) -> Machine:
    """The offer's view of detected hardware. A GPU's digest is SHA-256 of its UUID. A credit, in which
    prices are suggested, is 0.20 USD."""
    digests = {hashlib.sha256(gpu.uuid.encode()).digest(): gpu for gpu in hardware.gpus}
    capacity = Capacity(
        gpus=tuple(Gpu(gpu.model[:64], gpu.vram_bytes // MIB, d) for d, gpu in digests.items()),
        cpu_millis=hardware.cores_logical * 1_000,
        memory_mib=int(hardware.ram_bytes * MEMORY_SHARE) // MIB,
        disk_mib=int(hardware.disk_free_bytes * DISK_SHARE) // MIB,
    )
    market = gpu_class(hardware)
    uuids = {digest: gpu.uuid for digest, gpu in digests.items()}
    price = suggested_price(market, qu_per_credit)
    return Machine(capacity, market[:64], uuids, price)
