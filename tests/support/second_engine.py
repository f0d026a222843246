"""A Docker engine of the tests' own, beside the usual one: for settings that only a restart would change.

It makes no bridge and touches no packet filter, so containers on it have no network.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import docker
from docker.errors import DockerException

START_SECONDS: Final = 60
END_SECONDS: Final = 30


def missing(*programs: str) -> str:
    """Why there can be no second engine here; "" if there can. `programs`: what it needs besides."""
    if os.geteuid() != 0:
        return "starting a Docker engine needs root"
    absent = [each for each in ("dockerd", *programs) if shutil.which(each) is None]
    return f"{absent[0]} is not installed" if absent else ""


@contextmanager
def second_engine(settings: dict[str, Any]) -> Iterator[str]:
    """The address of a new engine with these `daemon.json` settings; it ends with the block."""
    # Not under pytest's directory: a socket's path may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="qubix-engine-", ignore_cleanup_errors=True) as name:
        root = Path(name)
        (root / "daemon.json").write_text(json.dumps(settings))
        command = [
            # Without a network namespace of its own it would take the usual engine's bridge away: that is
            # what an engine does that is to have none.
            *("unshare", "--net", "dockerd"),
            *("--config-file", str(root / "daemon.json"), "--host", f"unix://{root}/docker.sock"),
            *("--data-root", str(root / "data"), "--exec-root", str(root / "exec")),
            *("--pidfile", str(root / "pid"), "--bridge=none", "--iptables=false", "--ip6tables=false"),
        ]
        with (root / "log").open("wb") as log:
            engine = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            address = f"unix://{root}/docker.sock"
            _until_answering(engine, address, root / "log")
            yield address
        finally:
            engine.terminate()
            engine.wait(END_SECONDS)


def _until_answering(engine: subprocess.Popen[bytes], address: str, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and engine.poll() is None:
        try:
            docker.DockerClient(base_url=address).close()
            return
        except DockerException:
            time.sleep(0.1)
    raise AssertionError(f"no second engine came up: {log.read_text()[-1000:]}")
