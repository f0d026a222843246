"""A container image for the demo, packed on the spot from programs of this machine; no registry is asked.

A busybox if there is one, else the shell and the few tools the demo's job uses, each with the shared
libraries it needs. The image's tag is the digest of its content, so it is imported once.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from protocol.errors import EngineUnreachable, ImageUnavailable

if TYPE_CHECKING:
    from docker import DockerClient

REPOSITORY: Final = "qubix-demo"
TOOLS: Final = ("sh", "awk", "sort", "tail", "sleep", "rm", "cat", "mkdir")
ENGINE_SECONDS: Final = 60
PING_SECONDS: Final = 5
TOOL_SECONDS: Final = 10
_LIBRARY: Final = re.compile(r"(?:=>\s*)?(/\S+)\s+\(0x")
_SMOKE_TEST: Final = "echo 2 1 | awk '{ print $1; print $2 }' | sort -n | tail -n 1"


def ensure_image() -> str:
    """Make the image present in the Docker engine; its name.

    EngineUnreachable if none answers or it may not be used; ImageUnavailable if no image can be made.
    """
    with closing(_engine()) as client:
        try:
            return _ensure(client)
        except OSError as error:  # every trouble on the way to the engine
            raise ImageUnavailable(f"the Docker engine did not take the demo's image: {error}") from error


def _engine() -> DockerClient:
    import docker

    if sys.platform != "linux":
        raise EngineUnreachable(
            "the demo makes its container image from Linux programs, and this is no Linux"
        )
    try:
        client = docker.from_env(timeout=PING_SECONDS)
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        raise EngineUnreachable(
            "no Docker engine answers here; start one or use `--runner process`"
        ) from error
    client.api.timeout = ENGINE_SECONDS
    return client


def _ensure(client: DockerClient) -> str:
    from docker.errors import DockerException

    content = image_tar()
    name = f"{REPOSITORY}:{hashlib.sha256(content).hexdigest()[:12]}"
    try:
        if client.images.list(name):
            return name
        client.api.import_image_from_data(content, repository=REPOSITORY, tag=name.partition(":")[2])
        said = client.containers.run(name, ["/bin/sh", "-c", _SMOKE_TEST], remove=True, network_mode="none")
    except DockerException as error:
        raise ImageUnavailable(f"the Docker engine cannot run the demo's image: {error}") from error
    if said.strip() != b"2":
        raise ImageUnavailable("the image packed from this machine's programs does not work")
    return name


def image_tar() -> bytes:
    """The root file system as a tar; equal for equal programs. ImageUnavailable if a tool is missing."""
    files: dict[str, Path] = {}
    links: dict[str, str] = {}
    busybox = _busybox()
    if busybox:
        files |= {"bin/busybox": busybox, **_libraries(busybox)}
        links = {f"bin/{tool}": "busybox" for tool in TOOLS}
    else:
        for tool in TOOLS:
            path = _find(tool)
            files |= {f"bin/{tool}": path, **_libraries(path)}
    return _tar(files, links)


def _busybox() -> Path | None:
    """A busybox with all applets the job needs."""
    path = shutil.which("busybox")
    if path is None:
        return None
    applets = _output(path, "--list").split()
    return Path(path).resolve() if set(TOOLS) <= set(applets) else None


def _find(tool: str) -> Path:
    path = shutil.which(tool)
    if path is None:
        raise ImageUnavailable(f"`{tool}` is not installed, so the demo's image cannot be packed")
    return Path(path).resolve()


def _libraries(program: Path) -> dict[str, Path]:
    """The shared libraries of a program and its loader, under the paths where it looks for them."""
    found = _LIBRARY.findall(_output("ldd", str(program)))
    return {name.lstrip("/"): Path(name).resolve() for name in found}


def _output(*command: str) -> str:
    """What a tool prints; nothing if it fails (`ldd` of a static program does)."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=TOOL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace")


def _tar(files: dict[str, Path], links: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        parents = {str(parent) for name in files for parent in Path(name).parents if str(parent) != "."}
        for directory in sorted(parents | {"etc", "workspace"}):
            _add(archive, directory, tarfile.DIRTYPE, 0o755)
        _add(archive, "tmp", tarfile.DIRTYPE, 0o1777)
        _add(archive, "etc/passwd", tarfile.REGTYPE, 0o644, b"root:x:0:0:root:/:/bin/sh\n")
        for name, source in sorted(files.items()):
            _add(archive, name, tarfile.REGTYPE, 0o755, source.read_bytes())
        for name, target in sorted(links.items()):
            _add(archive, name, tarfile.SYMTYPE, 0o777, link=target)
    return out.getvalue()


def _add(
    archive: tarfile.TarFile, name: str, kind: bytes, mode: int, data: bytes = b"", link: str = ""
) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.size, member.linkname = kind, mode, len(data), link
    archive.addfile(member, io.BytesIO(data))
