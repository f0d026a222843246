"""Static programs of our own for jobs to run, from one file of C: by the system's compiler, else by zig's."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

COMPILE_SECONDS = 240


def static_program(source: Path, out: Path) -> Path:
    """`source` compiled to `out`."""
    target = f"{platform.machine()}-linux-musl"
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target]
    if (cc := shutil.which("cc")) is not None:
        command = [cc]
    subprocess.run(
        [*command, "-static", "-Os", "-o", str(out), str(source)],
        check=True,
        capture_output=True,
        timeout=COMPILE_SECONDS,
    )
    return out
