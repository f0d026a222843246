"""What an image needs of a machine: its processor's architecture and a CUDA that the driver supports. Pure.

An image says it itself: the architecture in its config; CUDA in the label `qubix.cuda`, in the variable
NVIDIA_REQUIRE_CUDA that NVIDIA's images have, or in CUDA_VERSION. Compared before a quote where the image is
known, and in any case after it was fetched, before anything is paid.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from protocol.errors import CudaTooNew, GpuMissing, WrongArchitecture

LABEL_CUDA: Final = "qubix.cuda"
REQUIRE_CUDA: Final = "NVIDIA_REQUIRE_CUDA"
CUDA_VERSION: Final = "CUDA_VERSION"
MAX_ENTRIES: Final = 1_000
"""Of an image's variables; what comes after them is not looked at."""
MAX_CHARS: Final = 8_192
_VERSION: Final = re.compile(r"(\d{1,3})(?:\.(\d{1,2}))?(?:\.\d{1,4})*", re.ASCII)
_CONDITION: Final = re.compile(r"([a-z]+)(>=|<=|!=|=|>|<)([^,\s]+)")
_ARCHITECTURES: Final = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Need:
    """An empty `arch` and a `cuda` of 0 need nothing."""

    arch: str = ""
    """As images name it: amd64, arm64, ..."""
    cuda: int = 0
    """What the driver must support at least, as NVML counts: 12040 for 12.4."""


NOTHING: Final = Need()


def need_of(architecture: str, env: Iterable[str], labels: Mapping[str, str]) -> Need:
    """Of an image's config. Whatever is no version there is passed over: an image can be made by anybody."""
    variables: dict[str, str] = {}
    for _, entry in zip(range(MAX_ENTRIES), env, strict=False):
        name, _, value = entry.partition("=")
        variables[name] = value[:MAX_CHARS]
    stated = (
        cuda_int(labels.get(LABEL_CUDA, "")),
        cuda_of_requirement(variables.get(REQUIRE_CUDA, "")),
        cuda_int(variables.get(CUDA_VERSION, "")),
    )
    return Need(plain_arch(architecture), next((cuda for cuda in stated if cuda), 0))


def plain_arch(architecture: str) -> str:
    """One spelling: kernels say x86_64 where images say amd64."""
    lower = architecture.casefold()[:32]
    return _ARCHITECTURES.get(lower, lower)


def cuda_int(version: str) -> int:
    """ "12.4" or "12.4.1" as 12040; 0 if it is no version."""
    match = _VERSION.fullmatch(version.strip()[:32])
    return int(match[1]) * 1_000 + int(match[2] or 0) * 10 if match else 0


def cuda_words(cuda: int) -> str:
    """12040 as "12.4"."""
    return f"{cuda // 1_000}.{cuda % 1_000 // 10}"


def cuda_of_requirement(text: str) -> int:
    """The least CUDA with which NVIDIA_REQUIRE_CUDA is met, 0 if it names none.

    Its conditions are joined by commas (all of them) and the groups by spaces (any of them). Groups that also
    want a brand or a driver are for old drivers of single series with a library of the image's own; which
    those are only the driver knows, so they are not counted and the newer CUDA is asked for.
    """
    groups = (_least_of_group(group) for group in text[:MAX_CHARS].split())
    return min((cuda for cuda in groups if cuda), default=0)


def _least_of_group(group: str) -> int:
    """0 if it names no least CUDA, or something besides."""
    conditions = [_CONDITION.fullmatch(one) for one in group.split(",")]
    if not all(match and match[1] == "cuda" for match in conditions):
        return 0
    return max((_least(match[2], match[3]) for match in conditions if match), default=0)


def _least(operator: str, version: str) -> int:
    cuda = cuda_int(version)
    if not cuda or operator not in (">=", ">", "="):
        return 0
    return cuda + 10 if operator == ">" else cuda


def joined(image: Need, wished: Need) -> Need:
    """What an image needs of itself, and what the caller says that it does."""
    return Need(image.arch or wished.arch, max(image.cuda, wished.cuda))


def check(need: Need, machine: Need, *, gpus: int) -> None:
    """Return if the machine has what is needed. `machine`: its architecture and the newest CUDA that its
    driver supports, empty and 0 if unknown or none; `gpus`: how many the job wants.

    A job without a GPU may run in an image that has CUDA in it: nothing there asks for the driver.
    WrongArchitecture, GpuMissing, CudaTooNew.
    """
    if need.arch and machine.arch and plain_arch(need.arch) != machine.arch:
        raise WrongArchitecture(
            f"the image is for {need.arch} processors and this machine has {machine.arch}; "
            f"build or choose one for {machine.arch}"
        )
    if not (need.cuda and gpus):
        return
    wanted = f"the image needs a driver with CUDA {cuda_words(need.cuda)} or newer"
    if not machine.cuda:
        raise GpuMissing(f"{wanted}, and this machine has no NVIDIA driver")
    if need.cuda > machine.cuda:
        raise CudaTooNew(
            f"{wanted}, and this machine's supports {cuda_words(machine.cuda)}; choose an older image or "
            "another machine"
        )
