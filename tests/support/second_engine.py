"""A Docker engine of the tests' own, beside the usual one: for settings that only a restart would change.

It has a network namespace of its own, with its own bridge and packet filter and no way out: an engine that is
to have no bridge would take the usual one's away.
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
    absent = [each for each in ("dockerd", "ip", "unshare", *programs) if shutil.which(each) is None]
    return f"{absent[0]} is not installed" if absent else ""


@contextmanager
def second_engine(settings: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """The address of a new engine with these `daemon.json` settings, and its process id."""
    # Not under pytest's directory: a socket's path may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="qubix-engine-", ignore_cleanup_errors=True) as name:
        root = Path(name)
        (root / "daemon.json").write_text(json.dumps(settings))
        command = [
            *("unshare", "--net", "sh", "-c", 'ip link set lo up && exec dockerd "$@"', "dockerd"),
            *("--config-file", str(root / "daemon.json"), "--host", f"unix://{root}/docker.sock"),
            *("--data-root", str(root / "data"), "--exec-root", str(root / "exec")),
            *("--pidfile", str(root / "pid")),
        ]
        with (root / "log").open("wb") as log:
            engine = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            address = f"unix://{root}/docker.sock"
            _until_answering(engine, address, root / "log")
            yield address, engine.pid
        finally:
            engine.terminate()
            engine.wait(END_SECONDS)
            for mounted in (root / "exec" / "netns").glob("*"):  # which it leaves
                subprocess.run(["umount", str(mounted)], check=False, capture_output=True)


def _until_answering(engine: subprocess.Popen[bytes], address: str, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and engine.poll() is None:
        try:
            docker.DockerClient(base_url=address).close()
            return
        except DockerException:
            time.sleep(0.1)
    raise AssertionError(f"no second engine came up: {log.read_text()[-1000:]}")
