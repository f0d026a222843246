"""What this computer has to rent, in the words of offers."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from protocol.catalogue import suggested_price
from protocol.messages import Capacity, Gpu
from protocol.units import Qu
from qubixd.hardware import Gpu as Card
from qubixd.hardware import Hardware, gpu_class

MIB: Final = 1 << 20
DISK_SHARE: Final = 0.8
"""Of the free disk; the rest stays for the system and for images."""
MEMORY_SHARE: Final = 0.9
MOST_GPUS: Final = 16
"""In one offer, as messages have it: two cards cut into slices are 14."""


@dataclass(frozen=True)
class Machine:
    capacity: Capacity
    gpu_class: str
    gpu_uuids: dict[bytes, str]
    """GPU digest -> the UUID the engine knows the card by."""
    suggested_price: Qu
    """Of the whole, with all its cards, as offers have it."""
    arch: str = ""
    """As container images say it: "amd64", "arm64"."""
    cuda: int = 0
    """Newest CUDA that every card's driver supports: 12040 is 12.4. 0 where there is none."""
    cpu_model: str = ""
    cpus: int = 0
    gpus: tuple[Card, ...] = ()
    """The cards that are offered, with all that is known of them."""


def machine_of(hardware: Hardware, qu_per_credit: int) -> Machine:
    """The offer's view of detected hardware. A GPU's digest is SHA-256 of its UUID. A credit, in which
    prices are suggested, is 0.20 USD."""
    # The engine hands cards to containers through NVIDIA's toolkit only: AMD's are watched, not rented.
    cards = tuple(gpu for gpu in hardware.gpus if gpu.vendor == "nvidia")
    digests = {digest_of(gpu.uuid): gpu for gpu in cards}
    capacity = Capacity(
        gpus=tuple(Gpu(gpu.model[:64], gpu.vram_bytes // MIB, d) for d, gpu in digests.items())[:MOST_GPUS],
        cpu_millis=hardware.cores_logical * 1_000,
        memory_mib=int(hardware.ram_bytes * MEMORY_SHARE) // MIB,
        disk_mib=int(hardware.disk_free_bytes * DISK_SHARE) // MIB,
    )
    market = gpu_class(replace(hardware, gpus=cards))
    return Machine(
        capacity=capacity,
        gpu_class=market[:64],
        gpu_uuids={digest: gpu.uuid for digest, gpu in digests.items()},
        suggested_price=suggested_price(market, qu_per_credit),
        arch=hardware.arch,
        cuda=min((gpu.cuda for gpu in cards), default=0),
        cpu_model=hardware.cpu_model,
        cpus=hardware.cores_logical,
        gpus=cards,
    )


def without(capacity: Capacity, uuids: Collection[str]) -> Capacity:
    """The capacity less the GPUs with these UUIDs."""
    gone = {digest_of(uuid) for uuid in uuids}
    return replace(capacity, gpus=tuple(gpu for gpu in capacity.gpus if gpu.digest not in gone))


def digest_of(uuid: str) -> bytes:
    """How offers and terms name a GPU."""
    return hashlib.sha256(uuid.encode()).digest()
