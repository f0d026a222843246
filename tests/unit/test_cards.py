"""Which of a provider's GPUs are offered, and the words for the others."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import trio

from protocol.lease_state import Lease, Phase, Role
from protocol.messages import Capacity, Gpu
from protocol.units import LeaseId, Qu, UnixMs
from qubixd import cards as module
from qubixd import hardware
from qubixd.cards import Cards
from qubixd.health import Health
from qubixd.health_rules import Finding
from qubixd.machine import Machine
from qubixd.runner.toolkit import TOOLKIT_ESCAPES
from tests.support.lease_plan import make_terms
from tests.support.world_jobs import Engine

UUIDS = ("GPU-0", "GPU-1")
DIGESTS = {hashlib.sha256(uuid.encode()).digest(): uuid for uuid in UUIDS}
WITH_CARDS = Machine(
    capacity=Capacity(tuple(Gpu("RTX", 24_000, digest) for digest in DIGESTS), 4_000, 8_192, 10_240),
    gpu_class="RTX",
    gpu_uuids=DIGESTS,
    suggested_price=Qu(1),
    gpus=tuple(hardware.Gpu(uuid, "NVIDIA RTX", 24 << 30, "550", 12_040, "8.9") for uuid in UUIDS),
)
NEWEST = max(version for version, _ in TOOLKIT_ESCAPES)
SICK: dict[str, tuple[Finding, ...]] = {
    "GPU-1": (Finding("gpu.ecc", "memory errors"), Finding("gpu.slowdown", "too hot"))
}


class Docker(Engine):
    """An engine with containers."""

    def __init__(self, containers: dict[str, LeaseId] | None = None) -> None:
        super().__init__()
        self.name = "docker"
        self.of_jobs = containers or {}

    async def containers(self) -> dict[str, LeaseId]:
        return self.of_jobs


def lease(number: int, phase: Phase, *uuids: str, role: Role = Role.PROVIDER) -> Lease:
    digests = tuple(digest for digest, uuid in DIGESTS.items() if uuid in uuids)
    terms = make_terms(gpu_digests=digests)
    lease_id = LeaseId(bytes([number]) * 32)
    return Lease(lease_id, role, terms, opened_at=UnixMs(0), timer_at=UnixMs(0), phase=phase)


def made(engine: Engine, *leases: Lease) -> Cards:
    cards = Cards(WITH_CARDS, engine, lambda: leases, lambda: UnixMs(1))
    # These cards are made up: a watch that does not expect them calls none of them lost.
    cards.health = Health(cards._rented, None, lambda: UnixMs(1))
    return cards


async def offered(cards: Cards) -> list[int]:
    """Numbers of GPUs offered before the first look and after it."""
    told = trio.Event()
    cards.on_change.append(told.set)
    numbers = [len(cards.fit().gpus)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cards.run)
        await told.wait()
        nursery.cancel_scope.cancel()
    return [*numbers, len(cards.fit().gpus)]


async def test_nothing_is_offered_before_it_was_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "toolkit_versions", lambda: {"nvidia-ctk": NEWEST})
    cards = made(Docker())
    assert await offered(cards) == [0, 2]
    assert cards.reasons() == []


async def test_a_toolkit_that_lets_jobs_out_keeps_all_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "toolkit_versions", lambda: {"nvidia-ctk": (1, 16, 0)})
    cards = made(Docker())
    assert await offered(cards) == [0, 0]
    assert [code for code, _ in cards.reasons()] == ["machine.toolkit_unsafe"]
    assert cards.fit() == replace(WITH_CARDS.capacity, gpus=())


async def test_jobs_without_containers_need_no_toolkit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "toolkit_versions", lambda: {"nvidia-ctk": (1, 16, 0)})
    assert await offered(made(Engine())) == [0, 2]


async def test_an_unfit_card_is_named_with_every_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "toolkit_versions", lambda: {"nvidia-ctk": NEWEST})
    cards = made(Docker())
    await offered(cards)
    cards.health.unfit = SICK
    fit: Capacity = cards.fit()
    assert [DIGESTS[gpu.digest] for gpu in fit.gpus] == ["GPU-0"]
    assert cards.reasons() == [
        ("gpu.ecc", "NVIDIA RTX (GPU-1) is not offered: memory errors"),
        ("gpu.slowdown", "NVIDIA RTX (GPU-1) is not offered: too hot"),
    ]


async def test_whose_containers_may_be_on_which_card() -> None:
    one, over = lease(1, Phase.RUNNING, "GPU-0"), lease(2, Phase.DONE, "GPU-1")
    hired = lease(3, Phase.RUNNING, "GPU-1", role=Role.CALLER)
    cards = made(Docker({"a" * 64: one.lease_id, "b" * 64: over.lease_id}), one, over, hired)
    assert cards._rented() == {"GPU-0"}
    assert await cards._tenants() == {"a" * 64: {"GPU-0"}, "b" * 64: frozenset()}


async def test_a_card_that_no_job_can_be_given_is_not_offered() -> None:
    cards = Cards(WITH_CARDS, Engine(), tuple, lambda: UnixMs(1), handed=False)
    cards.health = Health(cards._rented, None, lambda: UnixMs(1))
    assert await offered(cards) == [0, 0]
