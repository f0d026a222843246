"""Detection on this machine as it is and without a usable library, and the names of classes."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from qubixd.hardware import GIB, class_of, detect, gpu_class
from tests.support.nvml import environment

SHOW = "import qubixd.hardware as h; m = h.detect(); print(h.gpu_class(m), len(m.gpus))"


@pytest.mark.skipif(sys.platform != "linux", reason="loads a library the Linux way")
def test_broken_nvidia_library_means_no_gpu(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    done = subprocess.run(
        [sys.executable, "-c", SHOW],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("CPU 0\n", "")


def test_this_machine(tmp_path: Path) -> None:
    machine = detect(tmp_path)
    assert machine.os == platform.system().lower() and machine.arch not in {"x86_64", "aarch64"}
    assert 1 <= machine.cores_physical <= machine.cores_logical
    assert machine.ram_bytes > GIB // 4 and machine.disk_free_bytes > 0
    assert machine.cpu_model == machine.cpu_model.strip() != ""
    assert (gpu_class(machine) == "CPU") == (machine.gpus == ())


@pytest.mark.parametrize(
    ("model", "vram_gib", "expected"),
    [
        ("NVIDIA GeForce RTX 4090", 24, "RTX_4090"),
        ("NVIDIA GeForce RTX 3080 Ti", 12, "RTX_3080_TI"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 16, "RTX_4090_LAPTOP"),
        ("NVIDIA A100-SXM4-40GB", 40, "A100_40GB"),
        ("NVIDIA A100 80GB PCIe", 80, "A100_80GB"),
        ("NVIDIA H100 80GB HBM3", 79.6, "H100_80GB"),
        ("NVIDIA H100 PCIe", 79.6, "H100_PCIE_80GB"),
        ("NVIDIA H100 NVL", 93.6, "H100_NVL_94GB"),
        ("NVIDIA H200", 140.4, "H200"),
        ("Tesla V100-SXM2-16GB", 16, "V100_16GB"),
        ("Tesla T4", 15, "T4"),
        ("NVIDIA RTX 6000 Ada Generation", 48, "RTX_6000_ADA"),
        ("NVIDIA RTX A6000", 48, "RTX_A6000"),
        ("Quadro RTX 8000", 48, "RTX_8000"),
        ("NVIDIA L40S", 45, "L40S"),
        ("NVIDIA Graphics", 8, "GPU"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4.75, "A100_MIG_1G_5GB"),
        ("NVIDIA H200 MIG 1g.35gb+me", 32.5, "H200_MIG_1G_35GB_ME"),
        ("AMD Instinct MI300X", 192, "MI300X"),
        ("AMD Radeon RX 7900 XTX", 24, "RX_7900_XTX"),
    ],
)
def test_class_of_a_model(model: str, vram_gib: float, expected: str) -> None:
    assert class_of(model, int(vram_gib * GIB)) == expected
