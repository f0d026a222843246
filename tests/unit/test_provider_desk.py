"""How a card is told of to the person who owns it."""

from __future__ import annotations

from protocol.units import UnixMs
from qubixd.hardware import Gpu, GpuSample, Pcie
from qubixd.health import Health
from qubixd.health_rules import Finding
from qubixd.machine import digest_of
from qubixd.provider_desk import gpu_view

CARD = Gpu(
    uuid="GPU-1",
    model="NVIDIA GeForce RTX 4090",
    vram_bytes=24_564 << 20,
    driver_version="550.54.15",
    cuda=12_040,
    compute_capability="8.9",
    pci_bus_id="0000:01:00.0",
    pcie=Pcie(1, 4, 16, 16),
)


def health() -> Health:
    return Health(frozenset, None, lambda: UnixMs(0))


def test_a_card_at_work() -> None:
    known = health()
    known.samples["GPU-1"] = GpuSample("GPU-1", 0.873, 20_114 << 20, 24_564 << 20, 64, 312_400, ())
    view = gpu_view(CARD, known, "ab")
    assert (view.digest, view.vram_mib, view.cuda) == (digest_of("GPU-1").hex(), 24_564, "12.4")
    assert view.pcie == "0000:01:00.0, gen 4 x16"
    assert (view.use_permille, view.memory_used_mib, view.temperature_c) == (873, 20_114, 64)
    assert (view.power_mw, view.health, view.sentence, view.lease_id) == (312_400, "ok", "", "ab")


def test_a_card_that_is_not_well_has_every_reason() -> None:
    known = health()
    known.unfit["GPU-1"] = (Finding("gpu.ecc", "its memory made errors"), Finding("gpu.xid", "Xid 48"))
    view = gpu_view(CARD, known, "")
    assert (view.health, view.sentence) == ("gpu.ecc", "its memory made errors; Xid 48")


def test_what_is_not_known_is_not_made_up() -> None:
    bare = Gpu("MIG-1", "slice", 5 << 30, "", 0, "")
    view = gpu_view(bare, None, "")
    assert (view.use_permille, view.memory_used_mib, view.temperature_c, view.power_mw) == (None,) * 4
    assert (view.pcie, view.cuda, view.health) == ("", "", "ok")
    known = health()
    known.samples["MIG-1"] = GpuSample("MIG-1", None, 1 << 20, 5 << 30, None, None, None)
    assert gpu_view(bare, known, "").use_permille is None
