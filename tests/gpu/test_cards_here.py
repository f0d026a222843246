"""Detection, sampling, health and the kernel's list on a machine that has NVIDIA cards."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import Any

import pytest

from qubixd.hardware import Gpu, GpuSample, Session, class_of, detect, nvidia
from qubixd.hardware.procfs import DRIVER, disagreements

pytestmark = pytest.mark.gpu

MIB = 1 << 20
HOLD = f"""
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
context, memory = ctypes.c_void_p(), ctypes.c_void_p()
for result in (
    cuda.cuInit(0),
    cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0),
    cuda.cuCtxSetCurrent(context),
    cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t({512 * MIB})),
):
    if result:
        sys.exit(f"CUDA error {{result}}")
print("held", flush=True)
sys.stdin.read()
"""
"""A program that holds 512 MiB of the first card until its input ends."""


def samples(session: Session) -> dict[str, GpuSample]:
    return {one.uuid: one for one in session.sample()}


def test_every_card_is_described(session: Session) -> None:
    assert detect().gpus == session.gpus
    for gpu in session.gpus:
        assert re.fullmatch(r"(GPU|MIG)-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", gpu.uuid)
        assert gpu.vram_bytes > 256 * MIB and gpu.cuda > 9_000
        assert re.fullmatch(r"\d+\.\d", gpu.compute_capability)
        assert re.fullmatch(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.0", gpu.pci_bus_id)
        assert class_of(gpu.model, gpu.vram_bytes) != "GPU"
        assert gpu.pcie is None or 0 < gpu.pcie.width_now <= gpu.pcie.width_most <= 32


def test_nvidia_smi_says_the_same(session: Session) -> None:
    if shutil.which("nvidia-smi") is None:
        pytest.skip("nvidia-smi is not installed")
    asked = "uuid,name,memory.total,driver_version"
    command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader,nounits"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    whole = {gpu.uuid: gpu for gpu in session.gpus if not gpu.mig_parent}
    for line in said.splitlines():
        uuid, name, mib, driver = (word.strip() for word in line.split(","))
        if uuid in whole:
            gpu = whole.pop(uuid)
            assert (gpu.model, gpu.vram_bytes // MIB, gpu.driver_version) == (name, int(mib), driver)
    assert not whole


def test_samples_are_plausible_round_after_round(session: Session) -> None:
    for _ in range(3):
        found = samples(session)
        for gpu in session.gpus:
            one = found[gpu.uuid]
            assert one.memory_total == gpu.vram_bytes and 0 <= one.memory_used <= one.memory_total
            assert one.use_ratio is None or 0 <= one.use_ratio <= 1
            assert one.temperature_c is None or 0 < one.temperature_c < 120
            assert one.power_mw is None or 0 < one.power_mw < 2_000_000
        assert not any(one.lost for one in session.vitals())


def test_the_kernel_lists_the_same_cards(session: Session) -> None:
    if not (DRIVER / "gpus").is_dir():
        pytest.skip(f"{DRIVER}/gpus is not there: the driver shows its list to the host only")
    assert disagreements(session.gpus) == {}


def test_errors_of_the_driver_are_listened_to(session: Session) -> None:
    cards: Any = next(one for one in session._vendors if isinstance(one, nvidia.Cards))
    assert cards._events is not None
    assert all(one.xids == () for one in session.vitals())


def test_a_session_opens_again(session: Session) -> None:
    before = session.gpus
    session.close()
    closed: tuple[Gpu, ...] = session.gpus
    assert session.sample() == () and closed == ()
    session.open()
    assert session.gpus == before and samples(session).keys() == {gpu.uuid for gpu in before}


def test_a_program_s_memory_comes_and_goes(session: Session) -> None:
    before = sum(one.memory_used for one in session.sample())
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin and holder.stdout
    if holder.stdout.readline() != "held\n":
        holder.wait(60)
        pytest.skip("CUDA does not start here; see standard error")
    held = session.sample()
    assert sum(one.memory_used for one in held) >= before + 512 * MIB
    seen = [process for one in held for process in one.processes or ()]
    assert any(process.computes for process in seen)
    holder.stdin.close()
    holder.stdout.close()
    assert holder.wait(60) == 0
    assert sum(one.memory_used for one in session.sample()) < before + 512 * MIB
