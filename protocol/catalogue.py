"""What people rent and what for: GPUs with their figures and suggested prices, and use cases.

All data is in catalogue.toml beside this file, with the source of each figure; docs/gpus.md shows it.
"""

from __future__ import annotations

import difflib
import importlib.resources
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from protocol.codec import convert
from protocol.errors import UsageError
from protocol.units import Qu

CPU_CLASS: Final = "CPU"
OTHER: Final = "OTHER"
"""The market of what the catalogue does not know."""


@dataclass(frozen=True)
class GpuModel:
    """One class of GPU, in a provider's words ("RTX_4090", "A100_80GB")."""

    name: str
    title: str
    market: str
    vram_gib: float
    bandwidth_gb_s: float
    """Of the card's own memory; GB is 10^9."""
    tflops: Mapping[str, float]
    """Dense, by precision: fp32 of the shaders, fp16, bf16, fp8 and int8 (TOPS) of the tensor cores."""
    credits_per_hour: tuple[int, int]
    """Suggested range; a credit is 0.20 USD."""
    sources: Mapping[str, str]
    """Figure -> where it is from, "title, address"."""
    nvml: tuple[str, ...]
    """How NVIDIA's library calls such cards."""
    note: str = ""
    listed_only: bool = False
    """Known, but not offered by this version: engines hand NVIDIA's cards to containers only."""


@dataclass(frozen=True)
class UseCase:
    """Something to rent a machine for."""

    name: str
    title: str
    words: tuple[str, ...]
    """Other names by which it is found."""
    group: str
    group_title: str
    min_vram_gib: float
    recommended_vram_gib: float
    weights: Mapping[str, float]
    """How much of the speed hangs on bandwidth, fp16, fp32, cpu, memory; these add up to 1. `vram` stands
    beside them: what it costs to have less than the recommended memory."""
    enough: Mapping[str, float]
    """Beyond which more of it brings nothing: TFLOPS, GB/s, cores, GB."""
    splits: bool
    """Several cards may share the work, so that their memory adds up."""
    connection: str
    why: str
    source: str
    """Of the memory figures, "title, address"."""


@dataclass(frozen=True)
class _Source:
    title: str
    address: str

    def __str__(self) -> str:
        return f"{self.title}, {self.address}"


@dataclass(frozen=True)
class _Gpu:
    """A GPU's table in the file."""

    title: str
    market: str
    nvml: tuple[str, ...]
    vram_gib: float
    bandwidth_gb_s: float
    tflops: dict[str, float]
    credits_per_hour: tuple[int, int]
    source: str
    source_of: dict[str, str] = field(default_factory=dict)
    note: str = ""
    listed_only: bool = False


@dataclass(frozen=True)
class _Group:
    title: str
    connection: str


@dataclass(frozen=True)
class _Use:
    """A use case's table in the file."""

    title: str
    words: tuple[str, ...]
    group: str
    min_vram_gib: float
    recommended_vram_gib: float
    weights: dict[str, float]
    why: str
    source: str
    enough: dict[str, float] = field(default_factory=dict)
    splits: bool = False


@dataclass(frozen=True)
class _File:
    sources: dict[str, _Source]
    gpu: dict[str, _Gpu]
    group: dict[str, _Group]
    use: dict[str, _Use]


def _model(name: str, one: _Gpu, sources: Mapping[str, _Source]) -> GpuModel:
    figures = ("vram_gib", "bandwidth_gb_s", *one.tflops, "credits_per_hour")
    return GpuModel(
        name=name,
        title=one.title,
        market=one.market,
        vram_gib=one.vram_gib,
        bandwidth_gb_s=one.bandwidth_gb_s,
        tflops=one.tflops,
        credits_per_hour=one.credits_per_hour,
        sources={figure: str(sources[one.source_of.get(figure, one.source)]) for figure in figures},
        nvml=one.nvml,
        note=one.note,
        listed_only=one.listed_only,
    )


def _use(name: str, one: _Use, file: _File) -> UseCase:
    group = file.group[one.group]
    return UseCase(
        name=name,
        title=one.title,
        words=one.words,
        group=one.group,
        group_title=group.title,
        min_vram_gib=one.min_vram_gib,
        recommended_vram_gib=one.recommended_vram_gib,
        weights=one.weights,
        enough=one.enough,
        splits=one.splits,
        connection=group.connection,
        why=one.why,
        source=str(file.sources[one.source]),
    )


def _load() -> _File:
    text = importlib.resources.files(__package__).joinpath("catalogue.toml").read_text("utf-8")
    raw: dict[str, Any] = tomllib.loads(text)
    file: _File = convert(raw, _File, "the catalogue")
    return file


_FILE: Final = _load()
GPUS: Final[Mapping[str, GpuModel]] = {
    name: _model(name, one, _FILE.sources) for name, one in _FILE.gpu.items()
}
USE_CASES: Final[Mapping[str, UseCase]] = {name: _use(name, one, _FILE) for name, one in _FILE.use.items()}
MARKETS: Final[tuple[str, ...]] = (*dict.fromkeys(model.market for model in GPUS.values()), OTHER)
"""Every offer is in exactly one."""


def gpu_of(gpu_class: str) -> GpuModel | None:
    return GPUS.get(gpu_class)


def market_of(gpu_class: str) -> str:
    """One of MARKETS."""
    model = gpu_of(gpu_class)
    return model.market if model else OTHER


# Prices ----------------------------------------------------------------------------------------


def suggested_range(gpu_class: str, qu_per_credit: int) -> tuple[Qu, Qu]:
    """QU per hour, from and to, never zero. For a GPU not listed: the lowest range of any GPU."""
    model = gpu_of(gpu_class)
    low, high = model.credits_per_hour if model else _LOWEST_RANGE
    return Qu(max(1, low * qu_per_credit)), Qu(max(1, high * qu_per_credit))


def suggested_price(gpu_class: str, qu_per_credit: int) -> Qu:
    """QU per hour: the middle of the class's range, rounded down, never zero. A provider may set any."""
    low, high = suggested_range(gpu_class, qu_per_credit)
    return Qu((low + high) // 2)


_LOWEST_RANGE: Final = min(model.credits_per_hour for name, model in GPUS.items() if name != CPU_CLASS)


# Finding a use case ----------------------------------------------------------------------------


def use_case(words: str) -> UseCase:
    """The use case that somebody means: by name, title or other name, however it is spelled, or by words
    that only one has. UsageError, naming the nearest ones."""
    wanted = _plain(words)
    if wanted in _BY_NAME:
        return _BY_NAME[wanted]
    fitting = {use.name: use for name, use in _BY_NAME.items() if wanted and set(wanted) <= set(name)}
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    near = sorted(fitting) or _near(wanted)
    fault = "fits several use cases" if fitting else "is no use case known here"
    hint = f"did you mean {', '.join(near)}?" if near else f"known are {', '.join(USE_CASES)}"
    raise UsageError(f"{words[:64]!r} {fault}; {hint}")


def _near(wanted: tuple[str, ...]) -> list[str]:
    spelled = {" ".join(name): use.name for name, use in _BY_NAME.items()}
    close = difflib.get_close_matches(" ".join(wanted)[:64], spelled, n=4, cutoff=0.55)
    return list(dict.fromkeys(spelled[one] for one in close))


def _plain(words: str) -> tuple[str, ...]:
    """Letters and digits in lower case, split where one turns into the other: "SD1.5" -> sd 1 5."""
    return tuple(re.findall(r"[a-z]+|\d+", words.casefold()))


_BY_NAME: Final[Mapping[tuple[str, ...], UseCase]] = {
    _plain(said): use for use in USE_CASES.values() for said in (*use.words, use.title, use.name)
}
