"""What a person gets wrong, or a machine lacks, when a daemon starts: one sentence, a stable code, an exit
code, and nothing half done."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from protocol.errors import ConfigInvalid, DiskFull, EngineUnreachable, PortBusy, QubixError, SeedInvalid

NOWHERE = ("--chain", "node://127.0.0.1:1", "--contract-index", "28")
NO_ENGINE = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}


def start(data_dir: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`qubixd` to its end, which must come by itself."""
    command = [sys.executable, "-m", "qubixd", "--data-dir", str(data_dir), *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        env=os.environ | environment,
    )


def check(ended: subprocess.CompletedProcess[str], error: type[QubixError], *words: str) -> None:
    last = ended.stderr.strip().splitlines()[-1]
    assert re.fullmatch(rf"error: .+ \[{re.escape(error.code)}\]", last), ended.stderr
    assert ended.returncode == error.exit_code
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    for word in words:
        assert word in last


@pytest.mark.parametrize(
    ("seed", "words"),
    [("abc", "3 letters"), ("a" * 54 + "1", "position 55"), ("", "0 letters"), ("a" * 5_000, "too large")],
)
def test_a_wrong_seed(tmp_path: Path, seed: str, words: str) -> None:
    path = tmp_path / "seed"
    path.touch(mode=0o600)
    path.write_text(seed)
    ended = start(tmp_path / "node", *NOWHERE, "--wallet-seed-file", str(path))
    check(ended, SeedInvalid, words)
    assert not seed or seed not in ended.stderr
    assert not (tmp_path / "node" / "keystore").exists()


def test_a_seed_others_can_read(tmp_path: Path) -> None:
    path = tmp_path / "seed"
    path.write_text("a" * 55)
    path.chmod(0o644)
    check(start(tmp_path / "node", *NOWHERE, "--wallet-seed-file", str(path)), SeedInvalid, "chmod 600")


def test_a_busy_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        check(start(tmp_path / "node", *NOWHERE, "--listen", f"127.0.0.1:{port}"), PortBusy, port)


def test_a_busy_port_for_metrics(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = start(tmp_path / "node", *NOWHERE, "--metrics", f"127.0.0.1:{port}")
        check(ended, PortBusy, port, "--metrics")


@pytest.mark.docker
def test_a_runtime_that_the_engine_does_not_have(tmp_path: Path) -> None:
    ended = start(tmp_path / "node", *NOWHERE, "--provider", "--runtime", "magic")
    check(ended, ConfigInvalid, "magic", "runc")


def test_a_dead_engine(tmp_path: Path) -> None:
    ended = start(tmp_path / "node", *NOWHERE, "--provider", "--runner", "docker", **NO_ENGINE)
    check(ended, EngineUnreachable, "Docker")


def test_a_dead_engine_that_somebody_has_named_is_not_replaced_by_plain_processes(tmp_path: Path) -> None:
    dead = NO_ENGINE["DOCKER_HOST"]
    ended = start(tmp_path / "node", *NOWHERE, "--provider", "--docker-host", dead)
    check(ended, EngineUnreachable, "Docker")


def test_plain_processes_are_for_this_machine_only(tmp_path: Path) -> None:
    ended = start(tmp_path / "node", *NOWHERE, "--provider", "--listen", "0.0.0.0:0", **NO_ENGINE)
    check(ended, ConfigInvalid, "127.0.0.1")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no chain is set"),
        (("--chain", "node://127.0.0.1:1"), "--contract-index"),
        (("--chain", "carrier pigeon", "--contract-index", "1"), "node://"),
        (("--chain", "rpc+http://", "--contract-index", "1"), "rpc+http://HOST:PORT"),
        (("--chain", "node://127.0.0.1:1,127.0.0.1:1", "--contract-index", "1"), "named twice"),
        ((*NOWHERE, "--listen", "here"), "HOST:PORT"),
        ((*NOWHERE, "--runner", "magic"), "magic"),
        ((*NOWHERE, "--egress", "some"), "some"),
        ((*NOWHERE, "--egress-forbid", "fd00::/8"), "fd00::/8"),
        ((*NOWHERE, "--egress-mbit", "-1"), "egress_mbit"),
        ((*NOWHERE, "--image-percent", "101"), "image_percent"),
        ((*NOWHERE, "--metrics", "9464"), "metrics must be HOST:PORT"),
        ((*NOWHERE, "--metrics", "0.0.0.0:9464"), "--metrics-open"),
        ((*NOWHERE, "--interval", "0"), "interval"),
        ((*NOWHERE, "--config", "/nonexistent.toml"), "/nonexistent.toml"),
        ((*NOWHERE, "--price", "cheap"), "--price"),
        ((*NOWHERE, "--frob"), "--frob"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    check(start(tmp_path / "node", *arguments), ConfigInvalid, words)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with a few kilobytes, all of them taken."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system of its own can be mounted here: {mounted.stderr.strip()}")
    try:
        with (mount / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
            while ballast.write(bytes(4_096)):
                pass
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_full_disk(tiny_disk: Path) -> None:
    check(start(tiny_disk / "node", *NOWHERE), DiskFull, "full")
