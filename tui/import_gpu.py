"""GPUs and sizes of imported containers as a job file says them. Pure."""

from __future__ import annotations

import math
from typing import Any, Final

from tui.import_file import Notes, mapping, scalar, sequence

MEMORY: Final = "16GB"
"""For a GPU's job that does not say what it needs."""
SIZES: Final = f"{MEMORY} of memory, as the file names no limit; the job ends if it needs more"
NO_SIZES: Final = "1GB of memory, as the file names no limit; the job ends if it needs more"
ANY_MODEL: Final = "GPUs of any model, as the file names none; `--gpu RTX4090:24GB` chooses"
MAX_COUNT: Final = 16
MOST_MIB: Final = 1e12
MOST_DIGITS: Final = 9


def size_of(mib: float) -> str:
    """As a job file has it, rounded up; what no machine has is refused there."""
    whole = max(1, math.ceil(min(mib, MOST_MIB)))
    return f"{whole // 1_024}GB" if whole % 1_024 == 0 else f"{whole}MB"


def of_compose(service: dict[str, Any], reserved: dict[str, Any], at: str, notes: Notes) -> str:
    """`gpus: all`, `runtime: nvidia` and reserved devices as a count of GPUs; empty for none."""
    devices: Any = reserved.get("devices")
    where = f"{at}.deploy.resources.reservations.devices"
    if devices is None and "gpus" in service:
        devices, where = service["gpus"], f"{at}.gpus"
        if not isinstance(devices, list):
            devices = [{"count": devices, "capabilities": ["gpu"]}]
    if devices is None and service.get("runtime") == "nvidia":
        devices, where = [{"capabilities": ["gpu"]}], f"{at}.runtime"
    count = sum(_count(mapping(one, where), where, notes) for one in sequence(devices, where))
    if count:
        notes.assumed(where, ANY_MODEL)
    return str(min(count, MAX_COUNT)) if count else ""


def _count(device: dict[str, Any], where: str, notes: Notes) -> int:
    """Of one request for devices; 0 if it is for no GPU."""
    abilities = sequence(device.get("capabilities"), where)
    if abilities and not {"gpu", "nvidia"} & {scalar(one, where) for one in abilities}:
        notes.left_out(where, "a job asks for GPUs only")
        return 0
    named = sequence(device.get("device_ids"), where)
    said = scalar(device.get("count"), where)
    if named:
        return len(named)
    if said.isascii() and said.isdigit():
        return int(said[:MOST_DIGITS])
    notes.assumed(where, "one GPU, as `all` of another machine is not known")
    return 1
