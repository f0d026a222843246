"""AMD SMI's Python binding for tests: answers what a JSON file says, read anew at each call.

The file (named by QUBIX_AMDSMI_STATE) is {"up": bool, "cards": [{question: answer, ...}]}; a question is the
name of the function less "amdsmi_get_" and "gpu_", and one that the card has no answer to is not supported.
Names, fields and units are those of AMD's reference. Tests copy this file to where Python looks for `amdsmi`.
"""

from __future__ import annotations

import enum
import json
import os
from pathlib import Path
from typing import Any


class AmdSmiException(Exception):
    pass


class AmdSmiLibraryException(AmdSmiException):
    pass


class AmdSmiTemperatureType(enum.IntEnum):
    EDGE = 0
    HOTSPOT = 1


class AmdSmiTemperatureMetric(enum.IntEnum):
    CURRENT = 0


class AmdSmiMemoryPageStatus(enum.IntEnum):
    RESERVED = 0
    PENDING = 1
    UNRESERVABLE = 2


_open = False


def _state() -> Any:
    state = json.loads(Path(os.environ["QUBIX_AMDSMI_STATE"]).read_text())
    if not state["up"]:
        raise AmdSmiLibraryException("the driver is not loaded")
    return state


def _answer(card: int, question: str) -> Any:
    if not _open:
        raise AmdSmiLibraryException("not initialised")
    answers = _state()["cards"][card]
    if question not in answers:
        raise AmdSmiLibraryException("not supported")
    return answers[question]


def amdsmi_init() -> None:
    global _open  # noqa: PLW0603 -- the binding has this state, too
    _open = bool(_state())


def amdsmi_shut_down() -> None:
    global _open  # noqa: PLW0603
    _open = False


def amdsmi_get_processor_handles() -> list[int]:
    return list(range(len(_state()["cards"])))


def amdsmi_get_gpu_device_uuid(handle: int) -> Any:
    return _answer(handle, "device_uuid")


def amdsmi_get_gpu_device_bdf(handle: int) -> Any:
    return _answer(handle, "device_bdf")


def amdsmi_get_gpu_asic_info(handle: int) -> Any:
    return _answer(handle, "asic_info")


def amdsmi_get_gpu_driver_info(handle: int) -> Any:
    return _answer(handle, "driver_info")


def amdsmi_get_pcie_info(handle: int) -> Any:
    return _answer(handle, "pcie_info")


def amdsmi_get_gpu_vram_usage(handle: int) -> Any:
    return _answer(handle, "vram_usage")


def amdsmi_get_gpu_activity(handle: int) -> Any:
    return _answer(handle, "activity")


def amdsmi_get_power_info(handle: int) -> Any:
    return _answer(handle, "power_info")


def amdsmi_get_temp_metric(
    handle: int, sensor: AmdSmiTemperatureType, metric: AmdSmiTemperatureMetric
) -> Any:
    assert metric is AmdSmiTemperatureMetric.CURRENT
    return _answer(handle, f"temp_{sensor.name}")


def amdsmi_get_gpu_process_list(handle: int) -> Any:
    return _answer(handle, "process_list")


def amdsmi_get_gpu_total_ecc_count(handle: int) -> Any:
    return _answer(handle, "total_ecc_count")


def amdsmi_get_gpu_bad_page_info(handle: int) -> Any:
    return _answer(handle, "bad_page_info")


def amdsmi_get_violation_status(handle: int) -> Any:
    return _answer(handle, "violation_status")
