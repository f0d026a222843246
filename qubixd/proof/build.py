"""Makes the program that is sent: from our own C and PTX, by the compiler in the `ziglang` wheel.

The result is kept under a digest of all that goes into it, so that a change of anything compiles anew. The
first compile takes seconds: `prepare` is called in a thread when a node starts.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocol.errors import CompilerMissing, MachineError
from protocol.messages import MAX_PROGRAM_BYTES

SOURCES: Final = Path(__file__).parent / "native"
COMPILE_SECONDS: Final = 300
_ERROR_LINES: Final = 12
_FLAGS: Final = ("-std=gnu11", "-O2", "-s", "-fno-sanitize=all")
STRICT_FLAGS: Final = ("-Wall", "-Wextra", "-Werror")
"""For tests: a new warning of a future compiler must not keep anybody from proving a machine."""
_CPU_FILES: Final = ("prover.c", "cpu.c", "prover.h", "sha256.h")
_CUDA_FILES: Final = (*_CPU_FILES, "cuda.c")
_KERNELS: Final = {"KERNELS_61": "kernels_61.ptx", "KERNELS_80": "kernels_80.ptx"}
_PROCESSORS: Final = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Programs:
    """The programs of this node. `folder` keeps what was compiled."""

    folder: Path

    @classmethod
    def usual(cls) -> Programs:
        base = os.environ.get("XDG_CACHE_HOME")
        root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"
        return cls(root / "qubix" / "proof")

    def prepare(self, arch: str = "amd64") -> None:
        """Compile whatever is not kept yet. CompilerMissing, MachineError."""
        for cuda in (False, True):
            self.path(arch, cuda)

    def program(self, arch: str, cuda: bool) -> bytes:
        """The program for a container on such a processor ("amd64", "arm64"; "" counts as the first).

        For a processor it is static and runs in any image; for GPUs it needs the C library that NVIDIA's
        driver needs, too. CompilerMissing, MachineError.
        """
        data = self.path(arch, cuda).read_bytes()
        if len(data) > MAX_PROGRAM_BYTES:
            raise MachineError(f"the program of the proof has {len(data)} bytes; providers take fewer")
        return data

    def path(self, arch: str, cuda: bool, flags: tuple[str, ...] = ()) -> Path:
        """Where the program lies, compiled if it is not kept yet."""
        if (arch or "amd64") not in _PROCESSORS:
            raise MachineError(f"there is no proof for processors of the kind {arch!r}")
        options = (*_target(_PROCESSORS[arch or "amd64"], cuda), *_FLAGS, *flags)
        kept = self.folder / _digest(options, _files(cuda))
        if not kept.exists():
            try:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                _compile(options, _files(cuda), kept)
            except OSError as error:
                raise MachineError(f"the program of the proof cannot be kept: {error.strerror}") from error
        return kept


def _target(processor: str, cuda: bool) -> tuple[str, ...]:
    if cuda:
        return ("-target", f"{processor}-linux-gnu.2.17", "-DQUBIX_CUDA", "-ldl", "-lpthread")
    return ("-target", f"{processor}-linux-musl", "-static")


@functools.cache
def _files(cuda: bool) -> Mapping[str, bytes]:
    """Name -> content of all that is compiled."""
    files = {name: (SOURCES / name).read_bytes() for name in (_CUDA_FILES if cuda else _CPU_FILES)}
    if cuda:
        kernels = (
            f"static const char {name}[] =\n{_literal(SOURCES / path)};" for name, path in _KERNELS.items()
        )
        files["kernels_ptx.h"] = "\n".join(kernels).encode()
    return files


def _literal(path: Path) -> str:
    """A text as a C string; comments and indentation of PTX are left out."""
    lines = (line.split("//")[0].strip() for line in path.read_text("ascii").splitlines())
    escaped = (line.replace("\\", "\\\\").replace('"', '\\"') for line in lines if line)
    return "\n".join(f'"{line}\\n"' for line in escaped)


def _compile(options: tuple[str, ...], files: Mapping[str, bytes], kept: Path) -> None:
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix="build-") as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        sources = [file for file in files if file.endswith(".c")]
        command = (*zig(), *options, "-o", "program", *sources)
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise MachineError(f"the program of the proof was not compiled in {COMPILE_SECONDS} s") from error
        if done.returncode:
            lines = "\n".join(done.stderr.splitlines()[:_ERROR_LINES])
            raise MachineError(f"the program of the proof does not compile:\n{lines}")
        os.replace(folder / "program", kept)


def zig() -> tuple[str, ...]:
    """Command of the compiler in the `ziglang` wheel. CompilerMissing."""
    if importlib.util.find_spec("ziglang") is None:
        raise CompilerMissing(
            "the proof of a machine is compiled with the Python package ziglang: install it"
        )
    return (sys.executable, "-m", "ziglang", "cc")


def _digest(options: tuple[str, ...], files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for word in options:
        digest.update(word.encode() + b"\0")
    for name in sorted(files):
        digest.update(b"%s\0%d\0%s" % (name.encode(), len(files[name]), files[name]))
    return digest.hexdigest()[:32]
