"""`resources` of a job file: what a job wants of a machine."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from protocol.image_needs import cuda_int
from protocol.messages import Wish
from protocol.templates import Template
from protocol.yaml_fields import Field

SIZE_PATTERN: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]i?B?|B)?", re.IGNORECASE | re.ASCII)
GPU_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_. -]{0,47}")
MIB_OF_UNIT: Final = {"": 1024.0, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0 * 1024, "B": 1 / 1024**2}
"""A bare number means gigabytes; K, M, G, T count in 1024s."""
ARCHITECTURES: Final = ("amd64", "arm64")
FIELDS: Final = frozenset({"gpu", "cpus", "memory", "disk", "image", "internet", "cuda", "arch"})


def wish_of(resources: dict[str, Field], template: Template | None) -> Wish:
    model, vram_mib, count = _gpu(resources["gpu"]) if "gpu" in resources else ("", 0, 0)
    known_cuda = template.cuda if template and count and "image" not in resources else 0
    return Wish(
        gpu_model=model,
        gpu_count=count,
        gpu_vram_mib=vram_mib,
        cpu_millis=_or(resources.get("cpus"), 1_000, lambda f: int(f.number(0.001, 1_024) * 1_000)),
        memory_mib=_or(resources.get("memory"), 1_024, _size_mib),
        disk_mib=_or(resources.get("disk"), 1_024, _size_mib),
        arch=resources["arch"].one_of(ARCHITECTURES) if "arch" in resources else "",
        cuda=_or(resources.get("cuda"), known_cuda, _cuda),
        internet=resources["internet"].yes() if "internet" in resources else False,
    )


def _cuda(field: Field) -> int:
    """The least version, with or without `>=`."""
    cuda = cuda_int(field.text(32).removeprefix(">="))
    if not cuda:
        field.fail("must be the least CUDA version, such as 12.4 or >=12.4")
    return cuda


def _gpu(field: Field) -> tuple[str, int, int]:
    """model[:memory][:count]; a bare number is a count of any model."""
    parts = [part.strip() for part in field.text(64).split(":")]
    if len(parts) > 3:
        field.fail("must be model[:memory][:count], such as RTX4090:24GB:1")
    model, vram_mib, count = parts[0], 0, 1
    if _is_count(model):
        parts, model = ["", *parts], ""
    elif not GPU_PATTERN.fullmatch(model):
        field.fail(f"{model!r} is not a GPU model")
    for part in parts[1:]:
        if _is_count(part):
            count = int(part)
        else:
            vram_mib = _mib(part.rstrip("+"), field)
    if not 1 <= count <= 16:
        field.fail("asks for a count outside 1 to 16")
    return model, vram_mib, count


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _size_mib(field: Field) -> int:
    return _mib(field.text(32).rstrip("+"), field)


def _mib(text: str, field: Field) -> int:
    try:
        return mib_of(text)
    except ValueError as error:
        field.fail(str(error))


def mib_of(text: str) -> int:
    """A size such as 512MB or 4GB in MiB. ValueError with a sentence if it is none."""
    match = SIZE_PATTERN.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not a size such as 512MB or 4GB")
    mib = float(match[1]) * MIB_OF_UNIT[(match[2] or "")[:1].upper()]
    if not 1 <= mib <= 2**31:
        raise ValueError(f"{text!r} is outside 1MB to 2048TB")
    return int(mib)


def _or(field: Field | None, default: int, read: Callable[[Any], int]) -> int:
    return read(field) if field else default
