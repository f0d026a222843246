"""Contracts to a shared library: generates the one source file, finds a compiler, keeps the result.

The source includes the host's `qpi.h`, then every contract unchanged, then the machine that runs them,
so that no contract can see the machine. It needs the C library only, no C++ one: that lets the
`ziglang` wheel compile it in seconds where a system has no compiler.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from protocol.errors import CompilerMissing, MachineError

CONTRACTS_FOLDER: Final = Path(__file__).resolve().parents[2] / "contracts"
QUBIX_HEADER: Final = CONTRACTS_FOLDER / "Qubix.h"

_HOST_FOLDER: Final = CONTRACTS_FOLDER / "host"
_SYSTEM_COMPILERS: Final = ("c++", "g++", "clang++")
_MIN_INDEX: Final = 1
_MAX_INDEX: Final = 1_023
_COMPILE_SECONDS: Final = 300
_ERROR_LINES: Final = 12
_LANGUAGE_FLAGS: Final = ("-x", "c++", "-std=c++20", "-O2", "-fno-exceptions", "-fno-rtti", "-nostdinc++")
_LINK_FLAGS: Final = ("-shared", "-fvisibility=hidden", *(() if os.name == "nt" else ("-fPIC",)))
STRICT_FLAGS: Final = ("-Wall", "-Wextra", "-Werror")
"""For tests: a new warning of a future compiler must not keep anybody from running a devnet."""
_SUFFIX: Final = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")


@functools.cache
def find_compiler() -> tuple[str, ...]:
    """Command of a C++ compiler: the system's, else the one in the `ziglang` wheel.

    Raises CompilerMissing if there is neither.
    """
    for name in _SYSTEM_COMPILERS:
        if path := shutil.which(name):
            return (path,)
    return zig_compiler()


def zig_compiler() -> tuple[str, ...]:
    """Command of the compiler in the `ziglang` wheel. Raises CompilerMissing."""
    if importlib.util.find_spec("ziglang") is None:
        raise CompilerMissing(
            "the devnet compiles the real contract and found no C++ compiler: "
            "install one (Debian and Ubuntu: apt install g++) or the Python package ziglang"
        )
    return (sys.executable, "-m", "ziglang", "cc")


def struct_name(header: Path) -> str:
    """Name of the contract in a header: the file's stem in capitals. Raises MachineError."""
    name = header.stem.upper()
    if not re.fullmatch(r"[A-Z][A-Z0-9]*", name):
        raise MachineError(
            f"a contract's file is named like Qubix.h, in letters and digits, not {header.name}"
        )
    return name


def source_of(contracts: Mapping[int, Path]) -> str:
    """The generated source file. Contracts come by rising index, as each may call lower ones."""
    parts = ['#include "qpi.h"']
    deployed = []
    for index, header in sorted(contracts.items()):
        if not _MIN_INDEX <= index <= _MAX_INDEX:
            raise MachineError(f"a contract's index is {_MIN_INDEX} to {_MAX_INDEX}, not {index}")
        name = struct_name(header)
        parts += [
            f"#define CONTRACT_INDEX {index}",
            f"#define CONTRACT_STATE_TYPE {name}",
            f"#define CONTRACT_STATE2_TYPE {name}2",
            f'#include "{name}.h"',
            "#undef CONTRACT_INDEX",
            "#undef CONTRACT_STATE_TYPE",
            "#undef CONTRACT_STATE2_TYPE",
        ]
        deployed.append(f"machine.deploy<{name}, {index}>();")
    deploy = "\n    ".join(deployed)
    parts += [
        '#include "machine.h"',
        f"namespace host\n{{\nvoid deployAll(Machine& machine)\n{{\n    {deploy}\n}}\n}}",
        '#include "abi.h"',
    ]
    return "\n".join(parts) + "\n"


def compile_contracts(
    contracts: Mapping[int, Path], compiler: Sequence[str] | None = None, flags: Sequence[str] = ()
) -> Path:
    """Path of the shared library that runs these contracts (index -> header), compiled if not kept yet.

    Raises CompilerMissing, or MachineError if a contract does not compile or nothing can be written.
    """
    names = [struct_name(header) for header in contracts.values()]
    if len(set(names)) != len(names):
        raise MachineError("each contract of a chain needs a file name of its own")
    headers = {f"{struct_name(path)}.h": _content(path) for path in contracts.values()}
    return compile_library(source_of(contracts), headers, compiler, flags)


def compile_library(
    source: str,
    headers: Mapping[str, bytes],
    compiler: Sequence[str] | None = None,
    flags: Sequence[str] = (),
) -> Path:
    """Compiles `source`, which may include `headers` (name -> content) and the host's own.

    The library's name is a hash of all that goes into it, so a change of anything compiles anew. It
    is written under another name and renamed: a reader finds all of it or nothing.
    """
    command = tuple(compiler or find_compiler())
    options = (*_LANGUAGE_FLAGS, *_LINK_FLAGS, *flags)
    files = {**_host_headers(), **headers, "contracts.cpp": source.encode()}
    folder = _cache_folder()
    library = folder / f"{_digest(command, options, files)}{_SUFFIX}"
    if not library.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _compile(command, options, files, library)
        except OSError as error:
            raise MachineError(
                f"the compiled contract cannot be kept in {folder}: {error.strerror}"
            ) from error
    return library


def _compile(
    command: Sequence[str], options: Sequence[str], files: Mapping[str, bytes], library: Path
) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent, prefix="build-") as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        result = Path(folder) / library.name
        arguments = (*command, *options, "-I.", "-o", result.name, "contracts.cpp")
        try:
            done = subprocess.run(
                arguments, cwd=folder, capture_output=True, text=True, timeout=_COMPILE_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise MachineError(f"the contract was not compiled after {_COMPILE_SECONDS} s") from error
        if done.returncode:
            lines = "\n".join(done.stderr.splitlines()[:_ERROR_LINES])
            raise MachineError(f"the contract does not compile with {command[0]}:\n{lines}")
        os.replace(result, library)


def _content(header: Path) -> bytes:
    try:
        return header.read_bytes()
    except OSError as error:
        raise MachineError(
            f"the contract {header} cannot be read ({error.strerror}); a devnet runs from a checkout of qubix"
        ) from error


def _host_headers() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(_HOST_FOLDER.glob("*.h"))}


def _digest(command: Sequence[str], options: Sequence[str], files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for word in (*command, *options, platform.machine()):
        digest.update(word.encode() + b"\0")
    for name in sorted(files):
        digest.update(b"%s\0%d\0%s" % (name.encode(), len(files[name]), files[name]))
    return digest.hexdigest()[:32]


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"
    return root / "qubix" / "contracts"
