"""`python -m web` as people start it: one process or several, and who may read the mirror."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.web_mirror import filled
from tests.support.web_process import web_process
from web.database import open_mirror
from web.server import listen, url_of
from web.settings import Settings
from web.store import Store

OFFERS = 60
NOBODY = 65_534


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("web") / "mirror.db", OFFERS)


def offers(client: httpx.Client) -> int:
    answer = client.get("v1/offers", params={"limit": 500}).raise_for_status()
    return len(answer.json()["offers"])


def test_it_serves_and_ends_when_it_is_told(path: Path) -> None:
    with web_process(str(path)) as web, httpx.Client(base_url=web.url, timeout=60) as client:
        assert client.get("healthz").json() == {"status": "ok"}
        assert offers(client) == OFFERS - OFFERS // 50
        assert "server" not in client.get("healthz").headers
        web.process.send_signal(signal.SIGTERM)
        assert web.process.wait(30) in (0, -signal.SIGTERM)


def test_several_processes_share_a_port_and_one_that_dies_is_replaced(path: Path) -> None:
    with web_process(str(path), "--workers", "2") as web:
        first = _workers(web.process.pid, 2)
        with httpx.Client(base_url=web.url, timeout=60) as client:
            assert offers(client)
        os.kill(first[0], signal.SIGKILL)
        assert set(_workers(web.process.pid, 2, without=first[0])) != set(first)
        with httpx.Client(base_url=web.url, timeout=60) as client:
            assert offers(client)
        family = psutil.Process(web.process.pid).children(recursive=True)
        web.process.send_signal(signal.SIGTERM)
        web.process.wait(30)
        assert not psutil.wait_procs(family, timeout=30)[1]


def test_a_port_that_is_taken(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "web", "--mirror", str(path), "--port", str(taken.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 5
    assert "(Address already in use); choose another with --port [net.port_busy]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("host", "url"), [("0.0.0.0", "http://127.0.0.1:{}/"), ("::", "http://[::1]:{}/")])
def test_all_addresses_are_told_as_one_that_leads_there(host: str, url: str) -> None:
    with listen(Settings(mirror="m", host=host, port=0)) as listening:
        assert url_of(listening) == url.format(listening.getsockname()[1])


@pytest.fixture
def shared_dir() -> Iterator[Path]:
    """A directory that other users may look into, but not write."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user as well")
@pytest.mark.parametrize("writing", [True, False])
def test_another_user_reads_what_it_cannot_write(shared_dir: Path, writing: bool) -> None:
    """While the node writes, and after it has ended."""
    mirror = filled(shared_dir / "mirror.db", OFFERS)
    with closing(sqlite3.connect(mirror, isolation_level=None)) as db:
        if writing:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("UPDATE meta SET value = 'fresh' WHERE key = 'book'")
        assert _as_nobody(mirror) == ("fresh" if writing else "", OFFERS)


def _as_nobody(mirror: Path) -> tuple[str, int]:
    """("fresh" or "", newest change) as a process of another user reads it."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            book, change = asyncio.run(_change(mirror))
            os.write(write, f"{'fresh' if book == 'fresh' else ''} {change}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read) as answer:
        said = answer.read().partition(" ")
    os.waitpid(child, 0)
    return said[0], int(said[2] or -1)


async def _change(mirror: Path) -> tuple[str, int]:
    async with open_mirror(str(mirror)) as opened:
        status = await Store(opened).status()
        return status.book, status.change


def _workers(parent: int, number: int, without: int = 0) -> list[int]:
    """Process ids of the workers, once there are so many that listen. A dead one is not one of them."""
    while True:
        children = psutil.Process(parent).children()
        workers = [child.pid for child in children if child.pid != without and "spawn_main" in _line(child)]
        if len(workers) == number:
            return workers
        time.sleep(0.05)


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
