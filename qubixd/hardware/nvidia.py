"""NVIDIA's cards through NVML; the only file that knows pynvml.

A card in MIG mode is sold as its slices: a program cannot use the whole of it then. Functions and numbers are
those of NVIDIA's NVML API reference (https://docs.nvidia.com/deploy/nvml-api/).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import pynvml

from qubixd.hardware.facts import Gpu, GpuProcess, GpuSample, Pcie, Vitals

SLOW_EVERY: Final = 10
"""Rounds from one look at the memory's errors to the next: they change rarely and cost more to ask."""
RETRY_EVERY: Final = 5
"""Rounds from one try to the next while no card answers. Between the tries NVML is closed, so that whoever
mends the driver can unload it."""
REOPEN_EVERY: Final = 30
"""The same while some answer: opening anew takes a second, and theirs goes by unsampled."""
WAIT_MS: Final = 1
MOST_EVENTS: Final = 64
"""In one round, so that a storm of them cannot hold it."""
NO_INSTANCE: Final = 0xFFFFFFFF
"""An event that concerns the whole card."""

_XID: Final = pynvml.nvmlEventTypeXidCriticalError
_SLOWDOWN: Final = {
    pynvml.nvmlClocksThrottleReasonHwThermalSlowdown: "thermal",
    pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "power_brake",
}
_RECOVERY_FIELD: Final = 230
"""NVML_FI_DEV_GET_GPU_RECOVERY_ACTION; the oldest binding that we take has no names for it and its values."""
_NEEDS: Final = {
    0: "",
    1: "a reset",
    2: "a reboot of this machine",
    # 3 and 5 concern links between cards; each card alone works.
    3: "",
    4: "its jobs ended and a reset",
    5: "",
    6: "a reset of its PCIe bus",
    7: "a reboot of this machine",
}
_REASONS: Final = {
    pynvml.NVML_ERROR_GPU_IS_LOST: "it has fallen off the bus",
    pynvml.NVML_ERROR_RESET_REQUIRED: "it needs a reset",
    pynvml.NVML_ERROR_UNINITIALIZED: "NVIDIA's driver has gone",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "NVIDIA's driver is not loaded",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "NVIDIA's driver was replaced; start this program anew",
}


@dataclass(frozen=True)
class _Card:
    gpu: Gpu
    handle: Any
    whole: Any
    """Handle of the card that a slice is cut from; of a whole card: its own."""
    whole_uuid: str
    instance: int | None
    """Which slice of it, as events number them."""


@dataclass(frozen=True)
class _Slow:
    """What is asked every SLOW_EVERY rounds only."""

    ecc_uncorrected: int
    rows_pending: bool
    rows_failed: bool
    needs: str | None


class Cards:
    """All NVIDIA GPUs of this machine, through one NVML that stays open. Raises nothing."""

    def __init__(self, expected: Iterable[str] = ()) -> None:
        """`expected`: UUIDs that were here before, which count as lost until they are listed again."""
        self._open = False
        self._round = 0
        self._cards: list[_Card] = []
        self._known: dict[str, str] = dict.fromkeys(expected, "NVIDIA's driver has not listed it yet")
        """Every UUID ever listed -> why it does not answer, or ""."""
        self._slow: dict[str, _Slow] = {}
        self._events: Any = None

    def open(self) -> None:
        """Leaves no card where the library or the driver is missing."""
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            self._known = dict.fromkeys(self._known, _reason(error))
            return
        self._open = True
        self._cards = list(_list())
        listed = {card.gpu.uuid for card in self._cards}
        missing = "NVIDIA's driver does not list it any more"
        self._known = {uuid: "" if uuid in listed else missing for uuid in (*self._known, *listed)}
        self._listen()

    def close(self) -> None:
        if not self._open:
            return
        if self._events is not None:
            _ask(pynvml.nvmlEventSetFree, self._events)
        _ask(pynvml.nvmlShutdown)
        self._open, self._events, self._cards = False, None, []
        self._slow.clear()

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        return tuple(card.gpu for card in self._cards)

    def sample(self) -> tuple[GpuSample, ...]:
        self._renew()
        self._round += 1
        found = (self._sample(card) for card in self._cards)
        return tuple(sample for sample in found if sample is not None)

    def vitals(self) -> tuple[Vitals, ...]:
        xids = self._xids()
        well = {card.gpu.uuid: self._vitals(card, xids) for card in self._cards}
        return tuple(
            well[uuid] if uuid in well and not reason else Vitals(uuid, lost=reason or "NVML is closed")
            for uuid, reason in self._known.items()
        )

    # One card -------------------------------------------------------------------------------

    def _sample(self, card: _Card) -> GpuSample | None:
        """A card that does not tell its memory does not answer; all else some cards never tell."""
        try:
            memory = _memory(card.handle)
        except pynvml.NVMLError as error:
            self._known[card.gpu.uuid] = _reason(error)
            return None
        self._known[card.gpu.uuid] = ""
        use = None if card.instance is not None else _ask(pynvml.nvmlDeviceGetUtilizationRates, card.handle)
        return GpuSample(
            uuid=card.gpu.uuid,
            use_ratio=None if use is None else min(use.gpu / 100, 1.0),
            memory_used=int(memory.used),
            memory_total=int(memory.total),
            temperature_c=_ask(pynvml.nvmlDeviceGetTemperature, card.whole, pynvml.NVML_TEMPERATURE_GPU),
            power_mw=_ask(pynvml.nvmlDeviceGetPowerUsage, card.whole),
            processes=_processes(card.handle),
        )

    def _vitals(self, card: _Card, xids: list[_Xid]) -> Vitals:
        uuid = card.gpu.uuid
        if uuid not in self._slow or self._round % SLOW_EVERY == 0:
            self._slow[uuid] = _slow(card.whole)
        slow = self._slow[uuid]
        reasons = _ask(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, card.whole) or 0
        return Vitals(
            uuid=uuid,
            ecc_uncorrected=slow.ecc_uncorrected,
            rows_pending=slow.rows_pending,
            rows_failed=slow.rows_failed,
            slowdown=frozenset(name for bit, name in _SLOWDOWN.items() if reasons & bit),
            xids=tuple(xid.number for xid in xids if xid.concerns(card)),
            needs=slow.needs,
        )

    # The whole library ----------------------------------------------------------------------

    def _renew(self) -> None:
        """A driver that was restarted and a card that was reset answer only to an NVML opened anew."""
        lost = sum(bool(reason) for reason in self._known.values())
        if lost and lost == len(self._known):
            self.close()
        wait = REOPEN_EVERY if self._open else RETRY_EVERY
        if lost and self._round % wait == 0:
            self.close()
            self.open()

    def _listen(self) -> None:
        """Ask for the driver's errors (Xid) of every card that reports them."""
        self._events = _ask(pynvml.nvmlEventSetCreate)
        if self._events is None:
            return
        for handle in {card.whole_uuid: card.whole for card in self._cards}.values():
            if (_ask(pynvml.nvmlDeviceGetSupportedEventTypes, handle) or 0) & _XID:
                _ask(pynvml.nvmlDeviceRegisterEvents, handle, _XID, self._events)

    def _xids(self) -> list[_Xid]:
        """What came in since the last time."""
        found: list[_Xid] = []
        while self._events is not None and len(found) < MOST_EVENTS:
            event = _ask(pynvml.nvmlEventSetWait_v2, self._events, WAIT_MS)
            if event is None:
                break
            uuid = _ask(pynvml.nvmlDeviceGetUUID, event.device)
            found.append(_Xid(_text(uuid or ""), int(event.gpuInstanceId), int(event.eventData)))
        return found


@dataclass(frozen=True)
class _Xid:
    whole_uuid: str
    """Empty if the card could not say which it is any more."""
    instance: int
    number: int

    def concerns(self, card: _Card) -> bool:
        if self.whole_uuid != card.whole_uuid:
            return False
        return self.instance == NO_INSTANCE or card.instance in (None, self.instance)


# What is there -----------------------------------------------------------------------------------


def _list() -> Iterator[_Card]:
    """Every GPU that NVML lists, slices instead of a card that is cut. One that fails is left out."""
    driver = _text(_ask(pynvml.nvmlSystemGetDriverVersion) or "")
    cuda = int(_ask(pynvml.nvmlSystemGetCudaDriverVersion_v2) or 0)
    for index in range(_ask(pynvml.nvmlDeviceGetCount) or 0):
        with suppress(pynvml.NVMLError):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            uuid = _text(pynvml.nvmlDeviceGetUUID(handle))
            mode = _ask(pynvml.nvmlDeviceGetMigMode, handle)
            if mode and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE:
                yield from _slices(handle, uuid, driver, cuda)
            else:
                yield _Card(_gpu(handle, handle, driver, cuda), handle, handle, uuid, None)


def _slices(whole: Any, whole_uuid: str, driver: str, cuda: int) -> Iterator[_Card]:
    for index in range(_ask(pynvml.nvmlDeviceGetMaxMigDeviceCount, whole) or 0):
        with suppress(pynvml.NVMLError):
            # Places without a slice answer "not found".
            handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(whole, index)
            gpu = _gpu(handle, whole, driver, cuda, whole_uuid)
            yield _Card(gpu, handle, whole, whole_uuid, pynvml.nvmlDeviceGetGpuInstanceId(handle))


def _gpu(handle: Any, whole: Any, driver: str, cuda: int, mig_parent: str = "") -> Gpu:
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(whole)
    pci = _ask(pynvml.nvmlDeviceGetPciInfo_v3, whole)
    return Gpu(
        uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
        model=_text(pynvml.nvmlDeviceGetName(handle)),
        vram_bytes=int(_memory(handle).total),
        driver_version=driver,
        cuda=cuda,
        compute_capability=f"{major}.{minor}",
        # NVIDIA's cards are function 0 of their device; the others are their sound and USB.
        pci_bus_id=f"{pci.domain:04x}:{pci.bus:02x}:{pci.device:02x}.0" if pci else "",
        pcie=_pcie(whole),
        mig_parent=mig_parent,
    )


def _pcie(handle: Any) -> Pcie | None:
    figures = [
        _ask(question, handle)
        for question in (
            pynvml.nvmlDeviceGetCurrPcieLinkGeneration,
            pynvml.nvmlDeviceGetMaxPcieLinkGeneration,
            pynvml.nvmlDeviceGetCurrPcieLinkWidth,
            pynvml.nvmlDeviceGetMaxPcieLinkWidth,
        )
    ]
    return None if None in figures else Pcie(*figures)


# Questions ---------------------------------------------------------------------------------------


def _memory(handle: Any) -> Any:
    """`used` without what the driver keeps for itself, where the driver tells the two apart (510 on)."""
    with suppress(pynvml.NVMLError):
        return pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    return pynvml.nvmlDeviceGetMemoryInfo(handle)


def _processes(handle: Any) -> tuple[GpuProcess, ...] | None:
    """A program that draws and computes (a desktop does) stands in both lists; it counts as drawing."""
    computing = _ask(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
    if computing is None:
        return None
    drawing = _ask(pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3, handle) or ()
    draws = {one.pid for one in drawing}
    found = {one.pid: one for one in (*computing, *drawing)}
    return tuple(GpuProcess(pid, one.usedGpuMemory, pid not in draws) for pid, one in sorted(found.items()))


def _slow(handle: Any) -> _Slow:
    uncorrected = (pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC)
    rows = _ask(pynvml.nvmlDeviceGetRemappedRows, handle)
    # Before Ampere whole pages were retired instead of rows.
    pending = rows[2] if rows else _ask(pynvml.nvmlDeviceGetRetiredPagesPendingStatus, handle)
    return _Slow(
        ecc_uncorrected=_ask(pynvml.nvmlDeviceGetTotalEccErrors, handle, *uncorrected) or 0,
        rows_pending=bool(pending),
        rows_failed=bool(rows and rows[3]),
        needs=_needs(handle),
    )


def _needs(handle: Any) -> str | None:
    """The driver's own word (560 on) on what would mend the card."""
    fields = _ask(pynvml.nvmlDeviceGetFieldValues, handle, [_RECOVERY_FIELD])
    if not fields or fields[0].nvmlReturn != pynvml.NVML_SUCCESS:
        return None
    action = fields[0].value.uiVal
    return _NEEDS.get(action, f"recovery action {action}")


def _ask(question: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, None where this card, driver or library has none."""
    try:
        return question(*arguments)
    except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError):
        return None


def _reason(error: Any) -> str:
    return _REASONS.get(error.value, f"NVIDIA's driver answers with an error: {error}")


def _text(value: str | bytes) -> str:
    """Older bindings answer with bytes."""
    return value.decode() if isinstance(value, bytes) else value
