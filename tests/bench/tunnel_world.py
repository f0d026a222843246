"""Starts what the tunnel's figures compare: a job's program, our two ends, and `ssh -L` with an sshd of its
own, all on loopback, each a process."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).parents[2]


@contextmanager
def process(*command: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A child with text pipes, killed at the end."""
    child = subprocess.Popen(
        command, cwd=_ROOT, text=True, stdout=subprocess.PIPE, stdin=subprocess.PIPE, **options
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def told(child: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line of a child of ours."""
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise RuntimeError("an end of the tunnel has died; its reason is above")
    said: dict[str, Any] = json.loads(line)
    return said


def ask(child: subprocess.Popen[str], **question: object) -> dict[str, Any]:
    tell(child, **question)
    return told(child)


def tell(child: subprocess.Popen[str], **words: object) -> None:
    assert child.stdin is not None
    child.stdin.write(json.dumps(words) + "\n")
    child.stdin.flush()


@contextmanager
def job() -> Iterator[int]:
    """The port of the job's program."""
    with process(sys.executable, "-m", "tests.bench.tunnel_server", "serve") as child:
        assert child.stdout is not None
        yield int(child.stdout.readline())


class Tunnel:
    """Our two ends; `port` is where the caller's programs connect."""

    def __init__(self, near: subprocess.Popen[str], far: subprocess.Popen[str], port: int) -> None:
        self.near, self.far, self.port = near, far, port

    def usage(self) -> dict[str, dict[str, float]]:
        return {"near": ask(self.near), "far": ask(self.far)}


@contextmanager
def tunnel(job_port: int, over: str = "tls") -> Iterator[Tunnel]:
    module = "tests.bench.tunnel_ends"
    with ExitStack() as stack:
        far = stack.enter_context(process(sys.executable, "-m", module, "far", str(job_port), over))
        near = stack.enter_context(process(sys.executable, "-m", module, "near", json.dumps(told(far))))
        said = told(near)
        tell(far, key=said["key"], certificate=said["certificate"])
        yield Tunnel(near, far, said["port"])


@contextmanager
def relay() -> Iterator[str]:
    """The address of a node that relays without limits."""
    with process(sys.executable, "-m", "tests.bench.tunnel_ends", "relay") as child:
        yield told(child)["wire"]


@contextmanager
def ssh(job_port: int, *options: str) -> Iterator[int]:
    """A port forwarded by OpenSSH's client and server, as they come but for keys and port."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qubix-ssh-")))
        port = free_port()
        stack.enter_context(process(*_server(home, port), stderr=subprocess.DEVNULL))
        _until_open(port)
        local = free_port()
        client = (
            *("ssh", "-N", "-F", "none", "-i", f"{home}/key", "-p", str(port), *options),
            *(
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                f"UserKnownHostsFile={home}/known",
                "-o",
                "LogLevel=ERROR",
            ),
            *("-o", "IdentitiesOnly=yes", "-L", f"127.0.0.1:{local}:127.0.0.1:{job_port}", "127.0.0.1"),
        )
        stack.enter_context(process(*client))
        _until_open(local)
        yield local


def _server(home: Path, port: int) -> tuple[str, ...]:
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{home}/{name}"], check=True)
    shutil.copy(home / "key.pub", home / "authorized")
    home.chmod(0o700)
    (home / "config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {home}/host\nAuthorizedKeysFile {home}/authorized\n"
        f"PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own wish
    return (shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-e", "-f", str(home / "config"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def _until_open(port: int) -> None:
    deadline = time.monotonic() + 15
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def client_seconds(port: int, what: str, size: int, streams: int) -> float:
    """As tunnel_server.seconds, in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.tunnel_server", what, str(port), str(size), str(streams)]
    done = subprocess.run(
        command, cwd=_ROOT, text=True, stdout=subprocess.PIPE, check=True, timeout=120, env=os.environ
    )
    return float(done.stdout)
