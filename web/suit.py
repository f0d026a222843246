"""Which GPU suits which use: by the catalogue's figures alone, and by what is on offer now."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from protocol import fitness
from protocol.catalogue import CPU_CLASS, GPUS, GpuModel, UseCase
from protocol.fitness import MIB_PER_GIB, Candidate
from protocol.query import Condition, Filter, gpu_key
from protocol.units import Qu
from web.store import Store
from web.views import ModelView

CARDS: Final = (1, 2, 4, 8, 16)
"""How many a machine is asked for."""
USUAL_CORES: Final = 4
USUAL_MEMORY_GIB: Final = 8
LEAST_MEMORY_OF_MANY_GIB: Final = 32
CARD_MODELS: Final = {gpu_key(name): model for name, model in GPUS.items() if name != CPU_CLASS}
"""By the name that filters compare."""


@dataclass(frozen=True)
class Machine:
    """What a job asks for beside its cards."""

    cpus: int
    memory_gib: int
    disk_gib: int


@dataclass(frozen=True)
class Suited:
    """One model for one use."""

    model: GpuModel
    cards: int
    """So many are needed for the use to have room; 0: it has none on any machine."""
    speed: float
    """Held against one RTX 4090 in a machine that has enough of all else; 0 without room."""
    roomy: bool
    """The recommended memory is there, not only the least."""

    @property
    def key(self) -> str:
        return gpu_key(self.model.name)

    @property
    def memory_gib(self) -> float:
        return self.model.vram_gib * self.cards


@dataclass(frozen=True)
class Advice:
    """A model that suits and that somebody offers now."""

    suited: Suited
    now: ModelView
    """Of the machines that have enough cards, cores, memory and disk."""

    @property
    def qu_per_hour(self) -> int:
        """Of the cheapest machine, without its disk."""
        return self.now.cheapest * self.suited.cards

    @property
    def worth(self) -> float:
        """Speed for a QU, by which models are ordered."""
        return self.suited.speed / max(1, self.qu_per_hour)


def suited(model: GpuModel, use: UseCase) -> Suited:
    """How a model does at a use."""
    for cards in CARDS if use.splits else CARDS[:1]:
        one = Candidate(
            key=b"",
            gpu_class=model.name,
            gpus=cards,
            vram_mib=math.floor(model.vram_gib * MIB_PER_GIB),
            cpu_millis=10**6,
            memory_mib=10**7,
            qu_per_hour=Qu(1),
        )
        if speed := fitness.value(one, use):
            return Suited(model, cards, speed, model.vram_gib * cards >= use.recommended_vram_gib)
    return Suited(model, 0, 0.0, False)


def needs(use: UseCase) -> Machine:
    """The usual machine for a use; a person may ask for another."""
    cores = min(8, use.enough.get("cpu", USUAL_CORES))
    memory = max(USUAL_MEMORY_GIB, min(LEAST_MEMORY_OF_MANY_GIB, use.recommended_vram_gib))
    return Machine(
        cpus=math.ceil(cores),
        memory_gib=math.ceil(min(use.enough.get("memory", memory), 64)),
        disk_gib=max(20, math.ceil(use.min_vram_gib * 2 / 10) * 10),
    )


def room(machine: Machine, cards: int = 0, gpu: str = "", region: str = "", internet: bool = False) -> Filter:
    """The condition on offers for such a machine."""
    said = [
        Condition("cpus", ">=", (machine.cpus,)),
        Condition("ram", ">=", (machine.memory_gib,)),
        Condition("disk", ">=", (machine.disk_gib,)),
    ]
    if cards:
        said.append(Condition("gpus", ">=", (cards,)))
    if gpu:
        said.append(Condition("gpu", "=", (gpu,)))
    if region:
        said.append(Condition("region", "=", (region,)))
    if internet:
        said.append(Condition("internet", "=", ("yes",)))
    return Filter(tuple(said))


async def advise(store: Store, use: UseCase, machine: Machine) -> list[Advice]:
    """Models on offer that suit, most speed for a QU first."""
    by_cards: dict[int, list[Suited]] = {}
    for model in CARD_MODELS.values():
        one = suited(model, use)
        by_cards.setdefault(one.cards, []).append(one)
    found = []
    for cards, models in sorted(by_cards.items()):
        if cards:
            now = {view.gpu: view for view in await store.models(room(machine, cards))}
            found += [Advice(one, now[one.key]) for one in models if one.key in now]
    return sorted(found, key=lambda one: (-one.worth, one.qu_per_hour, one.suited.model.name))
