"""What a book knows of an offer, as numbers and names to search by.

Numbers are kept in whole steps of a field (protocol.query.Field.step): 24.5 GB of memory are 25,088 steps
of a MiB. So they are exact, in every index, and a value is what `protocol.query.matches` is asked about.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from protocol.all_in import sold_mib
from protocol.catalogue import market_of
from protocol.messages import Offer
from protocol.query import FIELDS, Known, arch_key, gpu_names, name_key
from protocol.units import PeerKey, UnixMs

MEASURED: Final = ("score", "reliability", "rtt")
"""Fields that this node measures itself; None until it has."""
NUMBERS: Final = ("gpus", "vram", "price", "storage", "ram", "cpus", "disk", "cuda", *MEASURED, "issued")
"""`issued`, a Unix second, stands for the field `age`."""
NAMES: Final = ("gpu", "gpu_model", "region", "market", "name", "runner", "runtime", "internet", "arch")
"""`gpu_model` is the GPU's name without its memory size, where it has one."""
MAX_STEPS: Final = 2**40

Steps = tuple[int | None, ...]
"""Of NUMBERS."""
Measured = tuple[int | None, int | None, int | None]
"""Of MEASURED, in steps."""
Names = tuple[str, ...]
"""Of NAMES, as filters compare them; "" where there is none."""


def steps_of(offer: Offer, measured: Measured) -> Steps:
    capacity = offer.capacity
    return (
        len(capacity.gpus),
        _sold_gib(max([gpu.vram_mib for gpu in capacity.gpus])) if capacity.gpus else 0,
        offer.price_qu_per_hour,
        offer.storage_qu_per_tib_hour,
        capacity.memory_mib,
        capacity.cpu_millis,
        capacity.disk_mib,
        offer.cuda // 1_000 * 10 + min(9, offer.cuda % 1_000 // 10),
        *measured,
        offer.issued_at // 1_000,
    )


def names_of(offer: Offer) -> Names:
    gpu_class = offer.gpu_class
    words = (offer.region, *markets(gpu_class), offer.name, *_runner(offer.runner))
    internet = "yes" if offer.internet else "no"
    return (*_of_class(gpu_class), *map(_key, words), internet, _arch(offer.arch))


@lru_cache(4_096)
def _of_class(gpu_class: str) -> Names:
    return (*gpu_names(gpu_class), "", "")[:2]


@lru_cache(4_096)
def _runner(runner: str) -> tuple[str, str]:
    """ "docker+runsc" -> runner and runtime; an engine without another uses runc."""
    name, _, runtime = runner.partition("+")
    return name, runtime or ("runc" if name == "docker" else "")


@lru_cache(4_096)
def _arch(arch: str) -> str:
    try:
        return arch_key(arch)
    except ValueError:
        return ""


@lru_cache(4_096)
def _sold_gib(vram_mib: int) -> int:
    return sold_mib(vram_mib) // 1_024


@lru_cache(4_096)
def markets(gpu_class: str) -> tuple[str]:
    """As catalogue.market_of, at once for the classes that many have, and one tuple for all of them."""
    return (market_of(gpu_class),)


@lru_cache(4_096)
def _key(name: str) -> str:
    try:
        return name_key(name)
    except ValueError:
        return ""


def steps(field: str, value: float) -> int:
    """A measured value in whole steps, within what a column holds."""
    return min(max(0, round(value * FIELDS[field].step)), MAX_STEPS)


def values_of(provider: PeerKey, numbers: Steps, names: Names, now: UnixMs) -> dict[str, Known]:
    """Field -> value, for `protocol.query.matches`."""
    by_number = dict(zip(NUMBERS, numbers, strict=True))
    by_name: dict[str, str] = dict(zip(NAMES, names, strict=True))
    issued = by_number.pop("issued")
    values: dict[str, Known] = {field: _value(field, number) for field, number in by_number.items()}
    values["age"] = None if issued is None else now // 1_000 - issued
    values["gpu"] = tuple(name for name in (by_name.pop("gpu"), by_name.pop("gpu_model")) if name)
    values |= {field: name or None for field, name in by_name.items()}
    values["provider"] = provider.hex()
    return values


def _value(field: str, number: int | None) -> int | float | None:
    step = FIELDS[field].step
    return number if number is None or step == 1 else number / step
