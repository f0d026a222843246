"""What a computer has to rent, in the words of offers."""

from __future__ import annotations

import hashlib

from protocol.catalogue import suggested_price
from qubixd.hardware import GIB, Gpu, Hardware
from qubixd.machine import machine_of


def hardware(*gpus: str) -> Hardware:
    return Hardware(
        cpu_model="a processor",
        cores_physical=8,
        cores_logical=16,
        ram_bytes=64 * GIB,
        disk_free_bytes=1_000 * GIB,
        os="linux",
        arch="x86_64",
        gpus=tuple(Gpu(uuid, "NVIDIA GeForce RTX 4090", 24 * GIB, "550", 12_040, "8.9") for uuid in gpus),
    )


def test_a_machine_keeps_something_for_itself() -> None:
    capacity = machine_of(hardware(), 1).capacity
    assert (capacity.gpus, capacity.cpu_millis) == ((), 16_000)
    assert capacity.memory_mib < 64 * 1_024 and capacity.disk_mib < 1_000 * 1_024


def test_a_card_is_known_by_its_digest_alone() -> None:
    machine = machine_of(hardware("GPU-1", "GPU-2"), 1)
    digests = [hashlib.sha256(uuid).digest() for uuid in (b"GPU-1", b"GPU-2")]
    assert [gpu.digest for gpu in machine.capacity.gpus] == digests
    assert machine.gpu_uuids == dict(zip(digests, ("GPU-1", "GPU-2"), strict=True))


def test_the_suggested_price_is_of_each_card() -> None:
    one, two, none = (machine_of(hardware(*uuids), 1_000) for uuids in (["a"], ["a", "b"], []))
    assert (one.gpu_class, none.gpu_class) == ("RTX_4090", "CPU")
    assert two.suggested_price == one.suggested_price == suggested_price("RTX_4090", 1_000)
    assert none.suggested_price == 1_000
