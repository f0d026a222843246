"""Detection on this machine as it is, through the real NVML binding with and without a library, and
names."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qubixd.hardware import GIB, class_of, detect, gpu_class

SHOW = "import qubixd.hardware as h; m = h.detect(); print(h.gpu_class(m)); print(*m.gpus, sep='\\n')"

# Two GPUs, of which the second has fallen off the bus (NVML_ERROR_GPU_IS_LOST = 15).
STUB_NVML = r"""
#include <string.h>
typedef unsigned int u32;
struct memory { unsigned long long total, free, used; };
int nvmlInitWithFlags(u32 flags) { return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int e) { return "stub"; }
int nvmlSystemGetDriverVersion(char *s, u32 n) { strcpy(s, "550.54.14"); return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *v) { *v = 12040; return 0; }
int nvmlDeviceGetCount_v2(u32 *n) { *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(u32 i, void **h) { *h = (void *)(long)(i + 1); return i == 1 ? 15 : 0; }
int nvmlDeviceGetUUID(void *h, char *s, u32 n) { strcpy(s, "GPU-5f0c"); return 0; }
int nvmlDeviceGetName(void *h, char *s, u32 n) { strcpy(s, "NVIDIA GeForce RTX 4090"); return 0; }
int nvmlDeviceGetMemoryInfo(void *h, struct memory *m) { m->total = 24ULL << 30; return 0; }
int nvmlDeviceGetCudaComputeCapability(void *h, int *a, int *b) { *a = 8; *b = 9; return 0; }
"""


def show(library_path: Path) -> list[str]:
    """What a fresh Python process detects with `library_path` searched first for NVML."""
    root = Path(__file__).parents[2]
    env = {"LD_LIBRARY_PATH": str(library_path), "PATH": os.defpath, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", SHOW], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="loads a library the Linux way")
def test_gpu_through_the_real_binding(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "nvml.c").write_text(STUB_NVML)
    library = str(tmp_path / "libnvidia-ml.so.1")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, str(tmp_path / "nvml.c")], check=True)
    name, *gpus = show(tmp_path)
    assert name == "RTX_4090"
    assert gpus == [
        f"Gpu(uuid='GPU-5f0c', model='NVIDIA GeForce RTX 4090', vram_bytes={24 * GIB}, "
        "driver_version='550.54.14', cuda_version='12.4', compute_capability='8.9')"
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="loads a library the Linux way")
def test_broken_nvidia_library_means_no_gpu(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    assert show(tmp_path)[0] == "CPU"


def test_this_machine(tmp_path: Path) -> None:
    machine = detect(tmp_path)
    assert machine.os == platform.system().lower() and machine.arch
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
    ],
)
def test_class_of_a_model(model: str, vram_gib: float, expected: str) -> None:
    assert class_of(model, int(vram_gib * GIB)) == expected
