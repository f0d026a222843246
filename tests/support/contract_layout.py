"""Layout of the escrow contract's structs, asked of the compiler: sizes and offsets as JSON.

`python -m tests.support.contract_layout` rewrites tests/vectors/contract_layout.json, which both the
contract's test and whoever packs these structs elsewhere are held to.
"""

from __future__ import annotations

import ctypes
import json
import re
from pathlib import Path
from typing import Final

from escrow_bridge.devnet.compiler import QUBIX_HEADER, compile_library

GOLDEN: Final = Path(__file__).parents[1] / "vectors" / "contract_layout.json"
HIDDEN: Final = (
    *("FeeOf", "PartsOf", "NewEscrow", "TicketOf", "ArbiterSlot", "PutChannel", "ReturnReward"),
    *("CheckOpen", "Pay", "Refund", "EndDispute", "Sweep"),
)
"""Private procedures: their structs are nobody else's business."""

_STRUCT = re.compile(r"^    struct (\w+)\n    \{\n(.*?)^    \};", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^        [\w<>, ]+ (\w+);", re.MULTILINE)

Layout = dict[str, dict[str, object]]


def structs() -> dict[str, list[str]]:
    """Every public struct of the contract's header with the names of its fields."""
    found = {name: _FIELD.findall(body) for name, body in _STRUCT.findall(QUBIX_HEADER.read_text())}
    return {
        name: fields
        for name, fields in found.items()
        if not name.endswith("_locals") and name.split("_")[0] not in HIDDEN
    }


def measured() -> Layout:
    """What the compiler makes of them: struct -> size and fields -> [offset, size], in bytes."""
    numbers, names = [], structs()
    for name, fields in names.items():
        numbers.append(f"sizeof(QUBIX::{name})")
        for field in fields:
            numbers += [f"offsetof(QUBIX::{name}, {field})", f"sizeof(QUBIX::{name}::{field})"]
    source = (
        '#include "qpi.h"\n#include <stddef.h>\n#define CONTRACT_INDEX 1\n#define CONTRACT_STATE_TYPE QUBIX\n'
        '#include "QUBIX.h"\n'
        f'extern "C" __attribute__((visibility("default"))) const unsigned long long numbers[] = {{'
        f"{', '.join(numbers)}}};\n"
    )
    library = ctypes.CDLL(str(compile_library(source, {"QUBIX.h": QUBIX_HEADER.read_bytes()})))
    values = iter((ctypes.c_uint64 * len(numbers)).in_dll(library, "numbers"))
    return {
        name: {"size": next(values), "fields": {field: [next(values), next(values)] for field in fields}}
        for name, fields in names.items()
    }


if __name__ == "__main__":
    text = json.dumps(measured(), indent=2)
    GOLDEN.write_text(re.sub(r"\[\s+(\d+),\s+(\d+)\s+\]", r"[\1, \2]", text) + "\n")
