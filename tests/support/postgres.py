"""A real PostgreSQL for tests: on a socket in a directory of its own. Skips where none is installed.

With QUBIX_TEST_REQUIRE_POSTGRES=1 (CI) its absence is a failure. PostgreSQL refuses to run as root, so root
gives it to the user `postgres`, or to `nobody`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

PROGRAMS: Final = ("initdb", "pg_ctl", "postgres")
FAST: Final = "-c fsync=off -c full_page_writes=off -c listen_addresses= -c max_connections=40"
START_S: Final = 60


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[str]:
    """Directory of the socket of a server that this module's tests share."""
    with server() as sockets:
        yield sockets


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """An empty database of its own."""
    return new_database(postgres_server)


def new_database(sockets: str) -> str:
    """Its address."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(url_of(sockets, "postgres"), autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name}".encode())
    return url_of(sockets, name)


def url_of(sockets: str, database: str) -> str:
    return f"postgresql:///{database}?host={sockets}&user=postgres"


@contextmanager
def server() -> Iterator[str]:
    """The directory of its socket."""
    programs = _programs()
    root = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path has at most 107 bytes
    who = _other_user()
    try:
        if who:
            os.chown(root, who["user"], who["group"])
        data = root / "data"
        _run(who, programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8")
        options = f"-k {root} {FAST}"
        _run(who, programs / "pg_ctl", "-D", data, "-l", root / "log", "-o", options, "-w", "start")
        try:
            yield str(root)
        finally:
            _run(who, programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(root)


def _programs() -> Path:
    """The directory of the newest installed server's programs."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    on_path = shutil.which("initdb")
    places = [*reversed(installed), *([Path(on_path).parent] if on_path else [])]
    for place in places:
        if all((place / program).exists() for program in PROGRAMS):
            return place
    reason = "no PostgreSQL server is installed here (initdb was not found)"
    if os.environ.get("QUBIX_TEST_REQUIRE_POSTGRES"):
        pytest.fail(reason)
    pytest.skip(reason)


def _other_user() -> dict[str, Any]:
    """Whom to be instead of root, as subprocess takes it."""
    if os.geteuid():
        return {}
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = names.get("postgres") or names["nobody"]
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _run(who: dict[str, Any], *command: object) -> None:
    words = [str(word) for word in command]
    # Not through pipes: the server keeps what pg_ctl was given.
    with tempfile.TemporaryFile() as said:
        done = subprocess.run(
            words, check=False, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd="/", timeout=START_S,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}, **who,
        )  # fmt: skip
        said.seek(0)
        assert done.returncode == 0, f"{words[0]} failed: {said.read().decode(errors='replace')}"
