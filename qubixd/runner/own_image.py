"""The image of our own programs, the fence's and the porter's: two static C programs and nothing else.

Compiled on the provider's machine and imported: no registry, no digest of somebody else's to trust.
Everything here blocks: for the engine's worker threads.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import importlib.util
import io
import logging
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, Final

from docker.errors import NotFound
from docker.types import LogConfig

from protocol.errors import InternetUnavailable
from qubixd.runner import docker_config as config
from qubixd.runner.common import write_atomic
from qubixd.runner.docker_engine import Client

log = logging.getLogger(__name__)

FENCE: Final = "fence"
PORTER: Final = "porter"
TARGETS: Final = {"x86_64": "x86_64-linux-musl", "aarch64": "aarch64-linux-musl"}
HEADERS: Final = {"x86_64-linux-musl": "x86-linux-any", "aarch64-linux-musl": "aarch64-linux-any"}
"""The kernel's own, where the compiler keeps them."""
FREESTANDING: Final = ("-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector")
COMPILE_SECONDS: Final = 120
MEMORY_BYTES: Final = 48 << 20
PIDS: Final = 64
"""The programs need 1 MB and are alone; the runtime that starts one's second self counts against both for a
moment."""
SMALL: Final[dict[str, Any]] = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
    "ipc_mode": "private",
    "cgroupns": "private",
    "pids_limit": PIDS,
    "mem_limit": MEMORY_BYTES,
    "memswap_limit": MEMORY_BYTES,
    "log_config": LogConfig(type=LogConfig.types.JSON, config={"max-size": "1m", "max-file": "1"}),
    "restart_policy": {"Name": "no"},
}
"""What a container of either may: arguments of the SDK's `create_host_config`."""
_ROOM: Final = importlib.resources.files("qubixd.runner")


def ensure_image(client: Client, built: Path) -> str:
    """The name of the image for this engine's kind of processor; made where it is missing.

    `built` keeps the compiled programs. InternetUnavailable if it cannot be made.
    """
    machine = str(client.info()["Architecture"])
    name = image_name(machine)
    try:
        client.inspect_image(name)
    except NotFound:
        repository, tag = name.split(":")
        programs = {each: program(each, machine, built) for each in (FENCE, PORTER)}
        client.import_image_from_data(_archive(programs), repository=repository, tag=tag)
    return name


@functools.cache
def image_name(machine: str) -> str:
    """Named by what it is made of, so that a newer daemon makes its own. `machine` as in TARGETS."""
    digest = hashlib.sha256(b"".join(_source(each) for each in (FENCE, PORTER)) + _target(machine).encode())
    return f"{config.FENCE_REPOSITORY}:{digest.hexdigest()[:32]}"


def program(name: str, machine: str, built: Path) -> bytes:
    """One of our programs, compiled. InternetUnavailable if it cannot be."""
    digest = hashlib.sha256(_source(name) + _target(machine).encode()).hexdigest()
    path = built / f"{name}-{digest[:32]}"
    if not path.exists():
        log.info("compiling the %s of jobs; this takes a second or two, once", name)
        built.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(path, _compiled(name, TARGETS[machine], built))
    return path.read_bytes()


def _source(name: str) -> bytes:
    return (_ROOM / "freestanding.h").read_bytes() + (_ROOM / f"{name}.c").read_bytes()


def _target(machine: str) -> str:
    if machine not in TARGETS:
        raise InternetUnavailable(f"there is no fence for processors of the kind {machine}")
    return TARGETS[machine]


def _compiled(name: str, target: str, built: Path) -> bytes:
    """The program; no C library is in it. InternetUnavailable if there is no compiler."""
    unique = f"{os.getpid()}-{os.urandom(4).hex()}"
    out, cache = built / f"unfinished-{unique}", built / f"zig-{unique}"
    options = ["-target", target, *FREESTANDING, "-Os", "-s", "-x", "c", "-", "-o", str(out)]
    for headers in (HEADERS[target], "any-linux-any"):
        options += ["-isystem", str(_zig() / "lib" / "libc" / "include" / headers)]
    try:
        subprocess.run(
            [sys.executable, "-m", "ziglang", "cc", *options],
            input=_source(name),
            capture_output=True,
            check=True,
            timeout=COMPILE_SECONDS,
            env={**os.environ, "ZIG_LOCAL_CACHE_DIR": str(cache), "ZIG_GLOBAL_CACHE_DIR": str(cache)},
        )
        return out.read_bytes()
    except subprocess.CalledProcessError as error:
        words = error.stderr.decode(errors="replace").strip()[-300:]
        raise InternetUnavailable(f"the {name} of jobs cannot be compiled: {words}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InternetUnavailable(f"the {name} of jobs cannot be compiled: {error}") from error
    finally:
        out.unlink(missing_ok=True)
        shutil.rmtree(cache, ignore_errors=True)


def _zig() -> Path:
    found = importlib.util.find_spec("ziglang")
    if found is None or found.origin is None:
        raise InternetUnavailable("the fence cannot be compiled: the Python package ziglang is missing")
    return Path(found.origin).parent


def _archive(programs: dict[str, bytes]) -> bytes:
    """A root directory with nothing but the programs."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in programs.items():
            member = tarfile.TarInfo(name)
            member.mode, member.size = 0o555, len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()
