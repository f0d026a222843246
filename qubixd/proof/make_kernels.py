"""`make kernels`: kernels.cu to PTX with NVIDIA's NVRTC, which needs no GPU.

Needs the package nvidia-cuda-nvrtc-cu12 and, to check that the result assembles for every card,
nvidia-cuda-nvcc-cu12: neither is a dependency of qubix, the PTX is committed. The version that PTX names is
set to the least one that has the instructions used, so that drivers of many years take it.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from qubixd.proof.build import SOURCES

FORMS: Final = (
    ("kernels_61.ptx", 61, "6.4", (), (61, 70, 75, 80, 86, 89, 90)),
    ("kernels_80.ptx", 80, "7.0", ("-DQUBIX_MMA",), (80, 86, 89, 90, 100, 120)),
)
"""File, compute capability, PTX version, definitions, the cards that ptxas must accept it for."""


def compiled(library: ctypes.CDLL, capability: int, definitions: tuple[str, ...]) -> str:
    """PTX of kernels.cu. RuntimeError with the compiler's words."""
    program = ctypes.c_void_p()
    contents = (ctypes.c_char_p * 1)((SOURCES / "sha256.h").read_bytes())
    names = (ctypes.c_char_p * 1)(b"sha256.h")
    source = (SOURCES / "kernels.cu").read_bytes()
    library.nvrtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", 1, contents, names)
    options = [f"--gpu-architecture=compute_{capability}".encode(), *(word.encode() for word in definitions)]
    failed = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    if failed:
        raise RuntimeError(_text(library, program, "ProgramLog"))
    return _text(library, program, "PTX")


def _text(library: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> str:
    size = ctypes.c_size_t()
    library[f"nvrtcGet{what}Size"](program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    library[f"nvrtcGet{what}"](program, buffer)
    return buffer.value.decode()


def _package(name: str) -> Path:
    found = importlib.util.find_spec(f"nvidia.{name}")
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"install the packages nvidia-cuda-nvrtc-cu12 and nvidia-cuda-nvcc-cu12 ({name})")
    return Path(next(iter(found.submodule_search_locations)))


def source_line() -> str:
    """The first line of the PTX: by it a test sees that the kernels were changed and not made anew."""
    digest = hashlib.sha256()
    for name in ("kernels.cu", "sha256.h"):
        digest.update((SOURCES / name).read_bytes())
    return f"// Made by `make kernels` from sources with the digest {digest.hexdigest()}"


def main() -> None:
    library = ctypes.CDLL(str(next((_package("cuda_nvrtc") / "lib").glob("libnvrtc.so.*"))))
    ptxas = _package("cuda_nvcc") / "bin" / "ptxas"
    for name, capability, version, definitions, cards in FORMS:
        text = compiled(library, capability, definitions)
        text = re.sub(r"(?m)^\.version .*$", f".version {version}", text)
        lines = (line.rstrip() for line in text.splitlines() if line.strip("/ "))
        (SOURCES / name).write_text("\n".join([source_line(), *lines, ""]), "ascii")
        for card in cards:
            subprocess.run([ptxas, f"-arch=sm_{card}", "-o", "/dev/null", SOURCES / name], check=True)
        sys.stdout.write(f"{name}: assembles for {', '.join(f'sm_{card}' for card in cards)}\n")


if __name__ == "__main__":
    main()
