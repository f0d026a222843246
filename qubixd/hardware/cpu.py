"""The processor: its name and its architecture."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Final

_ARCHS: Final = {"x86_64": "amd64", "aarch64": "arm64"}


def arch() -> str:
    """This machine's architecture as container images name it."""
    machine = platform.machine().lower()
    return _ARCHS.get(machine, machine)


def model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's own name where the system tells it, else its architecture."""
    if cpuinfo.exists():
        match = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(errors="replace"), re.MULTILINE)
        if match:
            return " ".join(match[1].split())
    return platform.processor() or platform.machine()
