"""Golden trees of what a kernel shows of one container, for both versions of control groups."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from qubixd.runner.usage import Kernel, Place

CONTAINER: Final = "8602e833bd5e5378ce3cbeb03c5e92edfd0f831135be034415d00ab1c631f95e"
PID: Final = 4_711
PLACE: Final = Place(CONTAINER, PID)
V1_MEMORY: Final = """cache 5267456
inactive_file 11
total_cache 5267456
total_inactive_file 4198400
total_active_file 0
"""
V2_MEMORY: Final = """anon 9437184
file 5267456
inactive_anon 9437184
inactive_file 4198400
active_file 1069056
"""
V2_CPU: Final = "usage_usec 1500123\nuser_usec 1000000\nsystem_usec 500123\nnr_periods 0\n"
DEVICES: Final = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls
    lo:  999999      12    0    0    0     0          0         0   999999      12    0    0    0     0
  eth0:    1234       2    0    0    0     0          0         0     5678       9    0    0    0     0
tap0_kata:  1234       2    0    0    0     0          0         0     5678       9    0    0    0     0
  eth1:       6       2    0    0    0     0          0         0        2       9    0    0    0     0
"""


def write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def kernel(root: Path) -> Kernel:
    return Kernel(root / "proc", root / "groups")


def v1(root: Path, *, together: bool = False) -> Kernel:
    """As Debian 10 or an engine on a hybrid kernel shows it; `together`: processor and its account as one."""
    cpu, account = ("cpu,cpuacct", "cpu,cpuacct") if together else ("cpu", "cpuacct")
    names = sorted({cpu, account, "memory", "pids", "name=systemd"})
    lines = [f"{number}:{name}:/docker/{CONTAINER}\n" for number, name in enumerate(names, start=1)]
    write(
        root,
        {
            f"proc/{PID}/cgroup": "".join(lines) + f"0::/docker/{CONTAINER}\n",
            f"proc/{PID}/net/dev": DEVICES,
            f"groups/{account}/docker/{CONTAINER}/cpuacct.usage": "1500123000\n",
            f"groups/memory/docker/{CONTAINER}/memory.usage_in_bytes": "14704640\n",
            f"groups/memory/docker/{CONTAINER}/memory.stat": V1_MEMORY,
        },
    )
    return kernel(root)


def v2(root: Path) -> Kernel:
    """As a system with version 2 alone shows it, with systemd's names."""
    group = f"system.slice/docker-{CONTAINER}.scope"
    write(
        root,
        {
            f"proc/{PID}/cgroup": f"0::/{group}\n",
            f"proc/{PID}/net/dev": DEVICES,
            f"groups/{group}/cpu.stat": V2_CPU,
            f"groups/{group}/memory.current": "14704640\n",
            f"groups/{group}/memory.stat": V2_MEMORY,
        },
    )
    return kernel(root)
