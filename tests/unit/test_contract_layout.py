"""The bytes of the escrow contract's structs are those the golden file says."""

from __future__ import annotations

import json
import re
import struct

import pytest

from escrow_bridge.devnet.compiler import QUBIX_HEADER
from escrow_bridge.layout import Function, Procedure
from escrow_bridge.qubic import k12
from tests.support import contract_layout
from tests.support.escrow import VOUCHER_TAG, Desk
from tests.support.probes import QUBIX

LAYOUT = contract_layout.measured()


INNER = (
    *("Channel", "EscrowKey", "Voucher", "Lease", "Totals", "StateData", "Provider"),
    *("TicketKey", "Ticket", "Receipt", "DisputeCase", "Rotation"),
)


def test_the_compiled_header_has_the_golden_layout() -> None:
    assert json.loads(contract_layout.GOLDEN.read_text()) == LAYOUT


def test_the_golden_file_misses_no_public_struct() -> None:
    header = QUBIX_HEADER.read_text()
    registered = re.findall(r"REGISTER_USER_\w+\((\w+), \d+\)", header)
    assert len(registered) == len(Procedure) + len(Function)
    expected = {f"{name}_{end}" for name in registered for end in ("input", "output")}
    assert LAYOUT.keys() == expected | set(INNER)


@pytest.mark.parametrize(
    ("name", "size"),
    [("EscrowKey", 104), ("Voucher", 48), ("Channel", 104), ("TicketKey", 104), ("Receipt", 88)],
)
def test_what_is_hashed_has_no_padding(name: str, size: int) -> None:
    fields = LAYOUT[name]["fields"]
    assert isinstance(fields, dict)
    assert sum(length for _, length in fields.values()) == LAYOUT[name]["size"] == size


def test_the_state_has_the_size_the_readme_says() -> None:
    assert LAYOUT["StateData"]["size"] == len(Desk().host.state(QUBIX)) == 815_328


def test_a_voucher_is_the_hash_of_48_bytes() -> None:
    """A transaction hashes 80 and more, so a voucher's signature fits none."""
    desk = Desk()
    escrow = desk.opened()
    message = VOUCHER_TAG + escrow + struct.pack("<q", 5)
    assert len(message) == 48
    assert desk.voucher(escrow, 5)[40:] == desk.caller.sign(k12(message))
