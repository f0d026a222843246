"""The chain on which the host's behaviour is tested: the probe contracts and the escrow on one host."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from escrow_bridge.devnet.compiler import QUBIX_HEADER
from escrow_bridge.devnet.host import Host, contract_id

FOLDER: Final = Path(__file__).parent / "contracts"
QUIET, MONEY, CALLER, LAYOUT, MAPS, NUMBERS, QUBIX, OPENER = range(1, 9)
CONTRACTS: Final = {
    QUIET: FOLDER / "Quiet.h",
    MONEY: FOLDER / "Money.h",
    CALLER: FOLDER / "Caller.h",
    LAYOUT: FOLDER / "Layout.h",
    MAPS: FOLDER / "Maps.h",
    NUMBERS: FOLDER / "Numbers.h",
    QUBIX: QUBIX_HEADER,
    OPENER: FOLDER / "Opener.h",
}
FIRST_TICK: Final = 1_000
EPOCH: Final = 7
GENESIS: Final = 10**12

ALICE: Final = bytes([0xA1]) * 32
BOB: Final = bytes([0xB0]) * 32
NOBODY: Final = bytes([0x0F]) * 32
NULL_ID: Final = bytes(32)


def new_chain() -> Host:
    """A chain in its first tick with all contracts; only ALICE has money."""
    host = Host.build(CONTRACTS, first_tick=FIRST_TICK, epoch=EPOCH)
    host.credit(ALICE, GENESIS)
    host.begin_tick(FIRST_TICK)
    return host


def run(host: Host, index: int, procedure: int, payload: bytes = b"", amount: int = 0) -> bytes:
    """Output of a procedure that ALICE calls."""
    output = host.call(ALICE, contract_id(index), amount, procedure, payload)
    assert output is not None
    return output
