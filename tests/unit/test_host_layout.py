"""The host against facts of a genuine node: sizes, offsets, padding, input and output sizes, signatures."""

from __future__ import annotations

import struct

import pytest
from Crypto.Hash import KangarooTwelve

from escrow_bridge.devnet.compiler import STRICT_FLAGS, compile_library
from escrow_bridge.devnet.host import Host, contract_id
from escrow_bridge.qubic import Wallet
from protocol.errors import MachineError
from tests.support.probes import ALICE, LAYOUT, new_chain

SIZES = {
    "id": 32,
    "bit": 1,
    "sint8": 1,
    "uint128": 16,
    "struct without members": 1,
    "NoData": 1,
    "BitArray<2>": 8,
    "BitArray<64>": 8,
    "BitArray<128>": 16,
    "Array<uint16, 4>": 8,
    "Array<id, 8>": 256,
    "{id; u16}": 40,
    "{u16; id}": 40,
    "{u8; u64}": 16,
    "{bit; u32; bit}": 12,
    "{id; u64; u32; u16; bit; s8}": 48,
    "{u32; id; bit}": 48,
    "{u8; id}: id has align 8": 40,
    "{u8; uint128}: align 8": 24,
    "{u8; Array<u16, 4>}: T's alignment": 10,
    "HashMap<id, u64, 64>": 2_592,
    "HashMap<id, u8, 2>: flags rounded up to a u64": 2 * 40 + 8 + 16,
    "HashSet<id, 64>": 64 * 32 + 16 + 16,
}


@pytest.fixture
def chain() -> Host:
    return new_chain()


def k12(data: bytes) -> bytes:
    return KangarooTwelve.new(data=data).read(32)


@pytest.mark.parametrize("position", range(len(SIZES)), ids=list(SIZES))
def test_sizes(chain: Host, position: int) -> None:
    sizes = struct.unpack("<32I", chain.query(LAYOUT, 1, b""))
    assert sizes[position] == list(SIZES.values())[position]


def test_a_state_is_its_members_and_nothing_else(chain: Host) -> None:
    assert len(chain.state(LAYOUT)) == 2_592


def test_offsets(chain: Host) -> None:
    assert chain.query(LAYOUT, 2, b"") == struct.pack("<4QQIHbb", 1, 2, 3, 4, 5, 6, 7, 1, -2)


@pytest.mark.parametrize(
    ("payload", "echo"),
    [
        (b"", bytes(16)),
        (b"\x01\x02\x03", b"\x01\x02\x03" + bytes(13)),
        (bytes(range(16)), bytes(range(16))),
        (bytes(range(40)), bytes(range(16))),
    ],
)
def test_short_input_is_filled_with_zeros_and_long_input_cut(
    chain: Host, payload: bytes, echo: bytes
) -> None:
    assert chain.query(LAYOUT, 3, payload) == echo
    assert chain.call(ALICE, contract_id(LAYOUT), 0, 1, payload) == echo


def test_a_transaction_carries_at_most_1024_bytes(chain: Host) -> None:
    assert chain.apply(ALICE, contract_id(LAYOUT), 0, 1, bytes(1_024))
    assert not chain.apply(ALICE, contract_id(LAYOUT), 0, 1, bytes(1_025))


@pytest.mark.parametrize("fill", [0, 0xFF])
def test_k12_hashes_padding_too(chain: Host, fill: int) -> None:
    padded = b"\x01" + bytes([fill]) * 7 + (2).to_bytes(8, "little")
    assert chain.query(LAYOUT, 4, bytes([fill])) == k12(padded)


def test_signatures_are_real(chain: Host) -> None:
    wallet, digest = Wallet("layout".ljust(55, "z")), k12(b"voucher")
    good = wallet.sign(digest)
    forged = good[:-1] + bytes([good[-1] ^ 1])
    assert chain.query(LAYOUT, 5, wallet.public_key + digest + good) == b"\x01"
    assert chain.query(LAYOUT, 5, wallet.public_key + digest + forged) == b"\x00"
    assert chain.query(LAYOUT, 5, wallet.public_key + k12(b"other") + good) == b"\x00"


def contract(members: str, register: str = "", state: str = "") -> str:
    return (
        '#include "qpi.h"\n#define CONTRACT_INDEX 1\n#define CONTRACT_STATE_TYPE BAD\nusing namespace QPI;\n'
        f"struct BAD : public ContractBase {{ struct StateData {{ {state} }}; {members}\n"
        f"REGISTER_USER_FUNCTIONS_AND_PROCEDURES() {{ {register} }} }};\n"
        '#include "machine.h"\nnamespace host { void deployAll(Machine& m) { m.deploy<BAD, 1>(); } }\n'
        '#include "abi.h"\n'
    )


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (
            contract(
                "struct P_input { Array<uint8, 2048> a; }; struct P_output {}; PUBLIC_PROCEDURE(P) {}",
                "REGISTER_USER_PROCEDURE(P, 1);",
            ),
            "input is too large",
        ),
        (
            contract(
                "struct F_input {}; struct F_output { Array<uint8, 65536> a; }; PUBLIC_FUNCTION(F) {}",
                "REGISTER_USER_FUNCTION(F, 1);",
            ),
            "output is too large",
        ),
        (
            contract(
                "struct F_input {}; struct F_output {}; struct F_locals { Array<uint64, 8192> a; };"
                "PUBLIC_FUNCTION_WITH_LOCALS(F) {}",
                "REGISTER_USER_FUNCTION(F, 1);",
            ),
            "locals are too large",
        ),
        (contract("", state="Array<uint64, 268435456> a;"), "state is too large"),
        (contract("", state="Array<uint64, 3> a;"), "power of two"),
        (
            contract(
                "struct F_input {}; struct F_output { sint64 a; };"
                "PUBLIC_FUNCTION(F) { output.a = div(output.a, output.a); }",
            ),
            "lldiv_t",
        ),
    ],
    ids=["input", "output", "locals", "state", "array", "div without its type"],
)
def test_what_a_node_refuses_to_compile_does_not_compile(source: str, complaint: str) -> None:
    with pytest.raises(MachineError, match="does not compile") as error:
        compile_library(source, {})
    assert complaint in str(error.value)


def test_the_same_contract_within_the_limits_compiles() -> None:
    members = "struct F_input {}; struct F_output { sint64 a; }; PUBLIC_FUNCTION(F) { %s }"
    good = members % "output.a = div<sint64>(output.a, output.a);"
    assert compile_library(contract(good, "REGISTER_USER_FUNCTION(F, 1);"), {}, flags=STRICT_FLAGS).exists()
