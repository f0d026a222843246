"""Whether what stands between a container and the host is known to let it out: NVIDIA's container toolkit,
which works on a container before it is closed, and runc.

NVIDIA's own package keeps the version's meaning, so an old one is refused. Distributions repair runc without
a new version number, so there an old one is only worth a sentence.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Version = tuple[int, ...]

UNSAFE: Final = "machine.toolkit_unsafe"
UNKNOWN: Final = "machine.toolkit_unknown"
PROGRAMS: Final = ("nvidia-ctk", "nvidia-container-cli", "nvidia-container-runtime")
"""Of packages that are updated one by one, so each is asked."""
ANSWER_SECONDS: Final = 10
TOOLKIT_ESCAPES: Final[tuple[tuple[Version, str], ...]] = (
    ((1, 16, 2), "CVE-2024-0132"),
    ((1, 17, 4), "CVE-2025-23359"),
    ((1, 17, 8), "CVE-2025-23266"),
    ((1, 19, 1), "CVE-2026-24260"),
)
"""(first version without it, name), by NVIDIA's bulletins 5582, 5616, 5659 and 5850: with each a
container made from a crafted image can get at the host's files or run code there."""
RUNC_ESCAPES: Final[tuple[tuple[tuple[Version, ...], str], ...]] = (
    (((1, 1, 12),), "CVE-2024-21626"),
    (((1, 2, 8), (1, 3, 3)), "CVE-2025-31133, CVE-2025-52565 and CVE-2025-52881"),
)
"""(first version without it of each line that was repaired, name)."""
_VERSION: Final = re.compile(r"version:? v?(\d+)\.(\d+)\.(\d+)", re.IGNORECASE)
_PLAIN: Final = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(.*)")


@dataclass(frozen=True)
class Judgement:
    """`refused`: no GPU may be offered. `code` is empty if there is nothing to say."""

    refused: bool = False
    code: str = ""
    sentence: str = ""


def toolkit_versions() -> dict[str, Version]:
    """The version that each installed program of the toolkit tells. Blocks for a moment."""
    found = {program: version_in(_said_by(program)) for program in PROGRAMS}
    return {program: version for program, version in found.items() if version}


def judge_toolkit(versions: Mapping[str, Version]) -> Judgement:
    """What the toolkit's versions mean for GPUs on offer."""
    if not versions:
        safe = _text(_first_safe())
        sentence = (
            "no program here tells the version of NVIDIA's container toolkit; see that the engine has it, "
            f"{safe} or newer: without it no job gets a GPU"
        )
        return Judgement(False, UNKNOWN, sentence)
    program, version = min(versions.items(), key=lambda each: each[1])
    escapes = [name for fixed, name in TOOLKIT_ESCAPES if version < fixed]
    if not escapes:
        return Judgement()
    return Judgement(
        True,
        UNSAFE,
        f"{program} {_text(version)} of NVIDIA's container toolkit lets a job out of its container "
        f"({', '.join(escapes)}); GPUs are not offered until it is {_text(_first_safe())} or newer",
    )


def judge_runc(engine_version: Mapping[str, Any]) -> Judgement:
    """A warning for an old runc, from the engine's answer to `version`. Nothing if it does not tell one."""
    components: Iterable[Mapping[str, Any]] = engine_version.get("Components") or ()
    told = next((str(each.get("Version")) for each in components if each.get("Name") == "runc"), "")
    parts = _PLAIN.match(told)
    if parts is None:
        return Judgement()
    version = tuple(int(part) for part in parts.group(1, 2, 3))
    escapes = [name for fixed, name in RUNC_ESCAPES if not _repaired(version, fixed)]
    if not escapes:
        return Judgement()
    doubt = "; your distribution may have repaired it under this number" if parts.group(4) else ""
    sentence = f"runc {told} is from before the repair of {', '.join(escapes)}{doubt}: keep it up to date"
    return Judgement(False, "machine.runc_old", sentence)


def version_in(said: str) -> Version:
    """The first "version 1.2.3" in a program's words; () if there is none."""
    found = _VERSION.search(said)
    return tuple(int(part) for part in found.groups()) if found else ()


def _repaired(version: Version, fixed: tuple[Version, ...]) -> bool:
    """By the repair of its own line, or because it is of a later one."""
    own = [each for each in fixed if each[:2] == version[:2]]
    return version >= own[0] if own else version > fixed[-1]


def _said_by(program: str) -> str:
    try:
        done = subprocess.run(
            [program, "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _first_safe() -> Version:
    return max(fixed for fixed, _ in TOOLKIT_ESCAPES)


def _text(version: Version) -> str:
    return ".".join(map(str, version))
