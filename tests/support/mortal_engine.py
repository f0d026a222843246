"""A Docker engine of a test's own that can be stopped, killed and started again over what it left."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import docker
import psutil
from docker.errors import DockerException

from tests.support.engine import ensure_busybox
from tests.support.second_engine import missing as missing

START_SECONDS: Final = 60
END_SECONDS: Final = 60


class MortalEngine:
    """An engine without networks in a folder of its own; it does not run yet."""

    def __init__(self, root: Path, settings: dict[str, Any]) -> None:
        self._root = root
        self._engine: subprocess.Popen[bytes] | None = None
        self.address = f"unix://{root}/d.sock"
        (root / "daemon.json").write_text(json.dumps(settings))

    def start(self) -> None:
        """Return when it answers."""
        command = [
            # Without a network namespace of its own it would take the usual engine's bridge away: that is
            # what an engine does that is to have none.
            *("unshare", "--net", "dockerd", "--config-file", str(self._root / "daemon.json")),
            *("--host", self.address, "--data-root", str(self._root / "data")),
            *("--exec-root", str(self._root / "exec"), "--pidfile", str(self._root / "pid")),
            *("--bridge=none", "--iptables=false", "--ip6tables=false"),
        ]
        with (self._root / "log").open("ab") as log:
            self._engine = subprocess.Popen(command, stdout=log, stderr=log)
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self._engine.poll() is None:
            with suppress(DockerException), self.client() as client:
                client.ping()
                return
            time.sleep(0.05)
        raise AssertionError(f"the engine did not come up: {(self._root / 'log').read_text()[-1000:]}")

    def end(self, number: signal.Signals) -> None:
        """Send it a signal and wait for its end."""
        assert self._engine is not None
        self._engine.send_signal(number)
        self._engine.wait(END_SECONDS)
        self._engine = None
        # The next engine would take a containerd that is about to end, or one whose parent has not noticed
        # its end yet, for its own.
        while any("--config" in each.info["cmdline"] for each in self._left()):
            time.sleep(0.02)
        (self._root / "exec/containerd/containerd.pid").unlink(missing_ok=True)

    @contextmanager
    def client(self) -> Iterator[docker.DockerClient]:
        client = docker.DockerClient(base_url=self.address, timeout=END_SECONDS)
        try:
            yield client
        finally:
            client.close()

    def clear(self) -> None:
        """End it with all that it began, whatever state it is in."""
        if self._engine is None:
            with suppress(AssertionError):
                self.start()
        with suppress(DockerException), self.client() as client:
            for container in client.containers.list(all=True):
                container.remove(force=True)
        if self._engine is not None:
            self.end(signal.SIGTERM)
        self.kill_jobs()

    def kill_jobs(self) -> None:
        """All that a dead engine left: its containerd and shims, which name this folder, and their jobs."""
        left = self._left()
        for process in (*left, *(child for each in left for child in each.children(recursive=True))):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _left(self) -> list[psutil.Process]:
        named = psutil.process_iter(["cmdline"])
        return [each for each in named if str(self._root) in " ".join(each.info["cmdline"] or ())]


@contextmanager
def mortal_engine(settings: dict[str, Any]) -> Iterator[MortalEngine]:
    """One that runs and has the small image; it is gone afterwards."""
    # Not under pytest's directory: a socket's path may have 107 bytes.
    root = Path(tempfile.mkdtemp(prefix="qubix-mortal-"))
    engine = MortalEngine(root, settings)
    try:
        engine.start()
        with engine.client() as client:
            ensure_busybox(client)
        yield engine
    finally:
        engine.clear()
        for place in psutil.disk_partitions(all=True):
            if place.mountpoint.startswith(f"{root}/"):
                subprocess.run(["umount", "--lazy", place.mountpoint], check=False)
        shutil.rmtree(root, ignore_errors=True)
