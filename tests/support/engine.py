"""A Docker engine and two small images for tests, made without any container registry.

Where no engine answers or a tool is missing the fixtures skip with the reason. With
QUBIX_TEST_REQUIRE_DOCKER=1 (CI) they fail instead, so that a broken set-up cannot pass unseen.
`python -m tests.support.engine` makes both images ahead of the tests.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NoReturn

import docker
import pytest
from docker.errors import DockerException, ImageNotFound

BUSYBOX_IMAGE: Final = "qubix-test/busybox:static"
PYTHON_IMAGE: Final = "qubix-test/python:bookworm"
"""Debian 12 with python3-minimal; `FROM` it builds Dockerfiles normally."""
ENGINE_TIMEOUT_S: Final = 60
DEBOOTSTRAP_TIMEOUT_S: Final = 300


class Unavailable(Exception):
    """The engine or a tool that makes an image is missing; the text says which."""


def engine_client() -> docker.DockerClient:
    """A client of the engine at DOCKER_HOST (or the usual socket) that has answered a ping."""
    try:
        client = docker.from_env(timeout=ENGINE_TIMEOUT_S)
        client.ping()
    except DockerException as error:
        where = os.environ.get("DOCKER_HOST", "its usual socket")
        raise Unavailable(f"no Docker engine answers at {where}") from error
    return client


def ensure_busybox(client: docker.DockerClient) -> str:
    """Image with a static busybox and its applets; its name."""
    return _ensure(client, BUSYBOX_IMAGE, _busybox_tar)


def ensure_python(client: docker.DockerClient) -> str:
    """Image of a minimal Debian 12 with Python; its name. Takes about half a minute the first time."""
    return _ensure(client, PYTHON_IMAGE, lambda: _debian_tar().read_bytes())


def _ensure(client: docker.DockerClient, name: str, make_tar: Callable[[], bytes]) -> str:
    try:
        client.images.get(name)
    except ImageNotFound:
        repository, tag = name.split(":")
        client.api.import_image_from_data(make_tar(), repository=repository, tag=tag)
    return name


def _busybox_tar() -> bytes:
    path = shutil.which("busybox")
    if path is None:
        raise Unavailable("busybox is not installed (Debian package busybox-static)")
    binary = Path(path).read_bytes()
    if b"ld-linux" in binary[:4096]:
        raise Unavailable(f"{path} is not static (Debian package busybox-static)")
    applets = subprocess.run([path, "--list"], check=True, capture_output=True, text=True).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for directory, mode in (("bin", 0o755), ("tmp", 0o1777), ("etc", 0o755), ("workspace", 0o755)):
            _add(archive, directory, tarfile.DIRTYPE, mode)
        _add(archive, "bin/busybox", tarfile.REGTYPE, 0o755, data=binary)
        _add(archive, "etc/passwd", tarfile.REGTYPE, 0o644, data=b"root:x:0:0:root:/:/bin/sh\n")
        for applet in applets:
            if applet != "busybox":
                _add(archive, f"bin/{applet}", tarfile.SYMTYPE, 0o777, link="busybox")
    return out.getvalue()


def _add(
    archive: tarfile.TarFile, name: str, kind: bytes, mode: int, *, data: bytes = b"", link: str = ""
) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.size, member.linkname = kind, mode, len(data), link
    archive.addfile(member, io.BytesIO(data))


def _debian_tar() -> Path:
    """A tar of a minimal Debian with Python, kept under XDG_CACHE_HOME/qubix-test."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qubix-test"
    tar = cache / "debian-bookworm-python.tar"
    if tar.exists():
        return tar
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        raise Unavailable("making the Debian test image needs debootstrap and root")
    cache.mkdir(parents=True, exist_ok=True)
    root, unfinished = cache / f"root-{os.getpid()}", cache / f"tar-{os.getpid()}"
    options = ["--variant=minbase", "--include=python3-minimal"]
    try:
        _run("debootstrap", *options, "bookworm", str(root), *_debian_mirror())
        _run("tar", "-C", str(root), "--exclude=./var/cache/apt", "-cf", str(unfinished), ".")
        unfinished.rename(tar)
    finally:
        shutil.rmtree(root, ignore_errors=True)
        unfinished.unlink(missing_ok=True)
    return tar


def _run(*command: str) -> None:
    """Run a tool; Unavailable with its last words if it fails."""
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=DEBOOTSTRAP_TIMEOUT_S, check=False
    )
    if done.returncode:
        raise Unavailable(f"{command[0]} failed: {(done.stderr or done.stdout).strip()[-500:]}")


def _debian_mirror() -> list[str]:
    """The mirror this machine's own apt uses, if it is a Debian; else debootstrap's default."""
    release = Path("/etc/os-release")
    if not release.exists() or "ID=debian\n" not in release.read_text():
        return []
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages", "Codename: bookworm"],
        capture_output=True,
        text=True,
        check=False,
    )
    return listed.stdout.split()[:1]


def skip_or_fail(reason: str) -> NoReturn:
    """The end of a test that needs what this machine lacks; in CI it must not lack it."""
    if os.environ.get("QUBIX_TEST_REQUIRE_DOCKER"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[docker.DockerClient]:
    """A client of a Docker engine that answers."""
    try:
        client = engine_client()
    except Unavailable as error:
        skip_or_fail(str(error))
    yield client
    client.close()


@pytest.fixture(autouse=True)
def engine_or_skip(request: pytest.FixtureRequest) -> None:
    """Skips tests marked `docker` before they begin: pytest-trio drops the reason of a later skip."""
    if request.node.get_closest_marker("docker"):
        request.getfixturevalue("docker_engine")


@pytest.fixture(scope="session")
def busybox_image(docker_engine: docker.DockerClient) -> str:
    """Name of an image with a static busybox: the smallest thing that runs /bin/sh."""
    try:
        return ensure_busybox(docker_engine)
    except Unavailable as error:
        skip_or_fail(str(error))


@pytest.fixture(scope="session")
def python_image(docker_engine: docker.DockerClient) -> str:
    """Name of an image of a minimal Debian 12 with python3."""
    try:
        return ensure_python(docker_engine)
    except Unavailable as error:
        skip_or_fail(str(error))


if __name__ == "__main__":
    for made in (ensure_busybox(engine_client()), ensure_python(engine_client())):
        print(made)
