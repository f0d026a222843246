"""What a computer has to rent, in the words of offers."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from protocol.catalogue import suggested_price
from qubixd.hardware import GIB, Gpu, Hardware
from qubixd.machine import machine_of, without


def hardware(*gpus: str) -> Hardware:
    return Hardware(
        cpu_model="a processor",
        cores_physical=8,
        cores_logical=16,
        ram_bytes=64 * GIB,
        disk_free_bytes=1_000 * GIB,
        os="linux",
        arch="amd64",
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


def test_what_a_job_must_know_before_it_comes() -> None:
    pairs = zip(hardware("a", "b").gpus, (12_080, 12_040), strict=True)
    cards = tuple(replace(card, cuda=cuda) for card, cuda in pairs)
    machine = machine_of(replace(hardware(), gpus=cards), 1)
    assert (machine.arch, machine.cuda, machine.cpus) == ("amd64", 12_040, 16)
    assert machine.gpus == cards
    assert machine_of(hardware(), 1).cuda == 0


def test_cards_that_no_container_can_get_are_not_offered() -> None:
    amd = replace(hardware("a").gpus[0], vendor="amd", model="AMD Instinct MI300X")
    machine = machine_of(replace(hardware("b"), gpus=(amd, *hardware("b").gpus)), 1)
    assert (machine.gpu_class, list(machine.gpu_uuids.values())) == ("RTX_4090", ["b"])
    assert machine_of(replace(hardware(), gpus=(amd,)), 1).gpu_class == "CPU"


def test_more_slices_than_an_offer_can_name() -> None:
    machine = machine_of(hardware(*(f"MIG-{n}" for n in range(20))), 1)
    assert len(machine.capacity.gpus) == 16 and len(machine.gpu_uuids) == 20


def test_an_unfit_card_is_left_out_and_nothing_else() -> None:
    capacity = machine_of(hardware("a", "b", "c"), 1).capacity
    assert without(capacity, ["b", "not here"]) == replace(capacity, gpus=capacity.gpus[::2])
    assert without(capacity, []) == capacity
