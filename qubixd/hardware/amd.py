"""AMD's cards through the AMD SMI library; the only file that knows amdsmi.

Its Python binding comes with ROCm and is used where it can be imported. Functions, fields and units are those
of AMD's reference (https://rocm.docs.amd.com/projects/amdsmi/en/latest/reference/amdsmi-py-api.html), which
says "N/A" for whatever a card does not tell.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from qubixd.hardware.facts import Gpu, GpuProcess, GpuSample, Pcie, Vitals

MIB: Final = 1 << 20
SLOW_EVERY: Final = 10
"""Rounds from one look at a card's health to the next: the library measures for a tenth of a second."""
RETRY_EVERY: Final = 30
"""Rounds from one try to open the library anew to the next, while a card does not answer."""
_FASTER: Final = (5, 8, 16, 32, 64)
"""GT/s of PCIe's generations from the second on."""
_ODD: Final = (KeyError, TypeError, ValueError)
"""What comes of an answer that has another form than the reference says, "N/A" where a number should be."""
_HOT: Final = ("active_prochot_thrm", "active_socket_thrm", "active_vr_thrm", "active_hbm_thrm")


@dataclass(frozen=True)
class _Card:
    gpu: Gpu
    handle: Any


class Cards:
    """All AMD GPUs of this machine, through one library that stays open. Raises nothing. One at a time in a
    process: the library does not count who opened it."""

    def __init__(self) -> None:
        self._smi: Any = None
        self._round = 0
        self._cards: list[_Card] = []
        self._known: dict[str, str] = {}
        """Every UUID ever listed -> why it does not answer, or ""."""
        self._well: dict[str, Vitals] = {}

    def open(self) -> None:
        """Leaves no card where the library or the driver is missing. The binding loads its library while it
        is imported, and raises whatever comes to its mind if that fails."""
        try:
            smi = importlib.import_module("amdsmi")
            smi.amdsmi_init()
        except Exception as error:
            self._known = dict.fromkeys(self._known, f"AMD's driver does not answer: {error}")
            return
        self._smi = smi
        self._cards = list(_list(smi))
        listed = {card.gpu.uuid for card in self._cards}
        missing = "AMD's driver does not list it any more"
        self._known = {uuid: "" if uuid in listed else missing for uuid in (*self._known, *listed)}

    def close(self) -> None:
        if self._smi is not None:
            _ask(self._smi, "amdsmi_shut_down")
        self._smi, self._cards = None, []

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        return tuple(card.gpu for card in self._cards)

    def sample(self) -> tuple[GpuSample, ...]:
        self._round += 1
        if any(self._known.values()) and self._round % RETRY_EVERY == 0:
            self.close()
            self.open()
        found = (self._sample(card) for card in self._cards)
        return tuple(sample for sample in found if sample is not None)

    def vitals(self) -> tuple[Vitals, ...]:
        if self._round % SLOW_EVERY == 1:
            self._well = {card.gpu.uuid: _vitals(self._smi, card) for card in self._cards}
        return tuple(
            Vitals(uuid, lost=reason) if reason else self._well.get(uuid, Vitals(uuid))
            for uuid, reason in self._known.items()
        )

    def _sample(self, card: _Card) -> GpuSample | None:
        """A card that does not tell its memory does not answer; all else some cards never tell."""
        smi = self._smi
        try:
            memory = smi.amdsmi_get_gpu_vram_usage(card.handle)
            used, total = int(memory["vram_used"]) * MIB, int(memory["vram_total"]) * MIB
        except (smi.AmdSmiException, *_ODD) as error:
            self._known[card.gpu.uuid] = f"AMD's driver answers with an error: {error}"
            return None
        self._known[card.gpu.uuid] = ""
        use = _number(_ask(smi, "amdsmi_get_gpu_activity", card.handle), "gfx_activity")
        power = _ask(smi, "amdsmi_get_power_info", card.handle)
        # Newer bindings give the first; before, which of the others is told hangs on the card.
        watts = [_number(power, f"{which}socket_power") for which in ("", "current_", "average_")]
        return GpuSample(
            uuid=card.gpu.uuid,
            use_ratio=None if use is None else min(use / 100, 1.0),
            memory_used=used,
            memory_total=total,
            temperature_c=_temperature(smi, card.handle),
            power_mw=next((int(one * 1_000) for one in watts if one), None),
            processes=_processes(smi, card.handle),
        )


# What is there -----------------------------------------------------------------------------------


def _list(smi: Any) -> Iterator[_Card]:
    """One that fails is left out."""
    for handle in _ask(smi, "amdsmi_get_processor_handles") or ():
        with suppress(smi.AmdSmiException, *_ODD):
            yield _Card(_gpu(smi, handle), handle)


def _gpu(smi: Any, handle: Any) -> Gpu:
    asic = smi.amdsmi_get_gpu_asic_info(handle)
    return Gpu(
        uuid=str(smi.amdsmi_get_gpu_device_uuid(handle)),
        model=str(asic["market_name"]),
        vram_bytes=int(smi.amdsmi_get_gpu_vram_usage(handle)["vram_total"]) * MIB,
        driver_version=str((_ask(smi, "amdsmi_get_gpu_driver_info", handle) or {}).get("driver_version", "")),
        cuda=0,
        compute_capability=str(asic.get("target_graphics_version", "")),
        vendor="amd",
        pci_bus_id=str(_ask(smi, "amdsmi_get_gpu_device_bdf", handle) or "").lower(),
        pcie=_pcie(_ask(smi, "amdsmi_get_pcie_info", handle)),
    )


def _pcie(told: Any) -> Pcie | None:
    now, most = (told or {}).get("pcie_metric"), (told or {}).get("pcie_static")
    speed, generation = _number(now, "pcie_speed"), _number(most, "pcie_interface_version")
    width, widest = _number(now, "pcie_width"), _number(most, "max_pcie_width")
    if speed is None or generation is None or width is None or widest is None:
        return None
    return Pcie(1 + sum(speed >= one for one in _FASTER), int(generation), int(width), int(widest))


# Questions ---------------------------------------------------------------------------------------


def _vitals(smi: Any, card: _Card) -> Vitals:
    ecc = _number(_ask(smi, "amdsmi_get_gpu_total_ecc_count", card.handle), "uncorrectable_count")
    pages = _ask(smi, "amdsmi_get_gpu_bad_page_info", card.handle)
    states = {page["status"] for page in pages} if isinstance(pages, list) else set()
    throttled = _ask(smi, "amdsmi_get_violation_status", card.handle)
    return Vitals(
        uuid=card.gpu.uuid,
        ecc_uncorrected=int(ecc or 0),
        rows_pending=smi.AmdSmiMemoryPageStatus.PENDING in states,
        rows_failed=smi.AmdSmiMemoryPageStatus.UNRESERVABLE in states,
        slowdown=frozenset({"thermal"} if any(_number(throttled, name) for name in _HOT) else ()),
    )


def _temperature(smi: Any, handle: Any) -> int | None:
    """Of the hottest spot, where the card has that sensor; what it slows down for."""
    kinds, now = smi.AmdSmiTemperatureType, smi.AmdSmiTemperatureMetric.CURRENT
    for kind in (kinds.HOTSPOT, kinds.EDGE):
        celsius = _ask(smi, "amdsmi_get_temp_metric", handle, kind, now)
        if isinstance(celsius, int | float):
            return int(celsius)
    return None


def _processes(smi: Any, handle: Any) -> tuple[GpuProcess, ...] | None:
    """Those that hold some of the card's memory: the list has every program that ever opened the driver."""
    told = _ask(smi, "amdsmi_get_gpu_process_list", handle)
    if told is None:
        return None
    held = ((int(one["pid"]), _number(one.get("memory_usage"), "vram_mem")) for one in told)
    return tuple(GpuProcess(pid, int(size), computes=True) for pid, size in held if size)


def _number(told: Any, name: str) -> float | None:
    value = told.get(name) if isinstance(told, dict) else None
    return value if isinstance(value, int | float) else None


def _ask(smi: Any, question: str, *arguments: Any) -> Any:
    """The answer, None where this card or this version of the library has none."""
    try:
        return getattr(smi, question)(*arguments)
    except (AttributeError, smi.AmdSmiException):
        return None
