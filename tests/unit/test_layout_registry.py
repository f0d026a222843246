"""The bytes of registry, receipts, disputes and purchases are where the contract's compiler puts them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from escrow_bridge import layout_registry as layout
from escrow_bridge.layout_registry import DisputeView, ProviderView, Receipt, TicketKind, TicketView, Verdict
from escrow_bridge.qubic import k12
from protocol.units import EscrowId, Qu, QubicId, Tick

VECTORS = Path(__file__).parents[1] / "vectors"
OFFSETS: dict[str, Any] = json.loads((VECTORS / "contract_layout.json").read_text(encoding="utf-8"))
GOLDEN: dict[str, str] = json.loads((VECTORS / "registry_bytes.json").read_text(encoding="utf-8"))
A, B, C, D = (bytes([value]) * 32 for value in (0xA1, 0xB2, 0xC3, 0xD4))
ESCROW, OTHER, PROVIDER, CALLER = EscrowId(A), EscrowId(B), QubicId(C), QubicId(D)
SIGNED, SIGNED_TOO = bytes(range(64)), bytes(range(64, 128))
FIRST = Receipt(D, ESCROW, Tick(100), Tick(200))
SECOND = Receipt(D, OTHER, Tick(150), Tick(300))


def number(value: int) -> bytes:
    return value.to_bytes(8, "little")


NONE = number(0)
PACKED: dict[str, tuple[bytes, dict[str, bytes]]] = {
    "Register_input": (
        layout.register_input(A, B, 7),
        {"peerKey": A, "metadata": B, "network": number(7)},
    ),
    "Update_input": (layout.register_input(A, B, 7), {"peerKey": A, "metadata": B, "network": number(7)}),
    "Exit_input": (layout.exit_input(7), {"network": number(7)}),
    "Rate_input": (
        layout.rate_input(ESCROW, PROVIDER, 5),
        {"escrow": A, "provider": C, "stars": number(5), "unused": NONE},
    ),
    "Slash_input": (
        layout.slash_input(PROVIDER, FIRST, SIGNED, SECOND, SIGNED_TOO),
        {
            "provider": C,
            "gpu": D,
            "firstEscrow": A,
            "secondEscrow": B,
            "firstFromTick": number(100),
            "firstUntilTick": number(200),
            "secondFromTick": number(150),
            "secondUntilTick": number(300),
            "firstSignature": SIGNED,
            "secondSignature": SIGNED_TOO,
        },
    ),
    "OpenDispute_input": (
        layout.open_dispute_input(ESCROW, PROVIDER, B),
        {"escrow": A, "provider": C, "evidence": B},
    ),
    "Decide_input": (
        layout.decide_input(ESCROW, Verdict.FOR_PROVIDER),
        {"escrow": A, "verdict": number(2), "unused": NONE},
    ),
    "Rotate_input": (
        layout.rotate_input(CALLER, 7, 2),
        {"candidate": D, "network": number(7), "slot": number(2), "unused": NONE},
    ),
    "Buy_input": (layout.buy_input(PROVIDER, A, 7), {"seller": C, "item": A, "network": number(7)}),
    "GetTicket_input": (
        layout.ticket_input(TicketKind.PURCHASE, A, CALLER, PROVIDER),
        {"kind": number(2), "subject": A, "holder": D, "provider": C},
    ),
    "TicketKey": (
        layout.ticket_input(TicketKind.LEASE, A, CALLER, PROVIDER),
        {"kind": number(1), "subject": A, "holder": D, "provider": C},
    ),
}


@pytest.mark.parametrize("struct", PACKED)
def test_every_field_is_where_the_compiler_puts_it(struct: str) -> None:
    packed, fields = PACKED[struct]
    places = OFFSETS[struct]["fields"]
    assert (len(packed), set(places)) == (OFFSETS[struct]["size"], set(fields))
    for name, (offset, size) in places.items():
        assert packed[offset : offset + size] == fields[name][:size], name


def test_golden_bytes() -> None:
    assert {name: packed.hex() for name, (packed, _) in PACKED.items()} | {
        "receipt_digest": FIRST.digest(7).hex()
    } == GOLDEN


def test_a_receipt_is_the_hash_of_its_struct() -> None:
    values = {"tag": b"QubixRct", "network": number(7), "gpu": D, "escrow": A}
    values |= {"fromTick": number(100), "untilTick": number(200)}
    raw = bytearray(OFFSETS["Receipt"]["size"])
    for name, (offset, size) in OFFSETS["Receipt"]["fields"].items():
        raw[offset : offset + size] = values[name][:size]
    assert FIRST.digest(7) == k12(bytes(raw))


def answer(name: str, values: dict[str, int | bytes]) -> bytes:
    """A GetX answer whose inner struct `name` has these values."""
    raw = bytearray(8 + OFFSETS[name]["size"])
    raw[0] = 1
    for field, value in values.items():
        offset, size = OFFSETS[name]["fields"][field]
        data = value.to_bytes(size, "little") if isinstance(value, int) else value
        raw[8 + offset : 8 + offset + size] = data
    return bytes(raw)


def test_a_provider_is_read() -> None:
    counts = ("stake", "volume", "stars", "ratings", "completed", "disputed", "failed", "sinceTick")
    values: dict[str, int | bytes] = {name: place for place, name in enumerate((*counts, "exitEpoch"), 1)}
    raw = answer("Provider", values | {"peerKey": A, "metadata": B})
    assert layout.decode_provider(raw) == ProviderView(A, B, Qu(1), Qu(2), 3, 4, 5, 6, 7, Tick(8), 9)


def test_a_ticket_is_read() -> None:
    raw = answer("Ticket", {"amount": 5, "epoch": 6, "rated": 1, "disputed": 0})
    assert layout.decode_ticket(raw) == TicketView(Qu(5), 6, True, False)


def test_a_dispute_is_read() -> None:
    verdicts = b"".join(value.to_bytes(4, "little") for value in (1, 0, 2, 0))
    raw = answer(
        "DisputeCase",
        {"caller": D, "provider": C, "evidence": A, "bond": 5, "untilTick": 6, "verdicts": verdicts},
    )
    assert layout.decode_dispute(raw) == DisputeView(CALLER, PROVIDER, A, Qu(5), Tick(6), (1, 0, 2))


@pytest.mark.parametrize("decode", [layout.decode_provider, layout.decode_ticket, layout.decode_dispute])
def test_what_is_absent_or_of_a_wrong_size_is_none(decode: Any) -> None:
    sizes = {OFFSETS[f"{name}_output"]["size"] for name in ("GetProvider", "GetTicket", "GetDispute")}
    for size in sizes | {0, 7, 25, 1_000}:
        assert decode(bytes(size)) is None
        assert size in sizes or decode(b"\1" * size) is None


def test_receipts_of_two_gpus_prove_nothing() -> None:
    with pytest.raises(ValueError, match="one GPU"):
        layout.slash_input(PROVIDER, FIRST, SIGNED, Receipt(A, OTHER, Tick(1), Tick(2)), SIGNED)


def test_wrong_sizes_are_not_packed() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        layout.buy_input(QubicId(b""), A, 7)
    with pytest.raises(ValueError, match="64 bytes"):
        layout.slash_input(PROVIDER, FIRST, b"", SECOND, SIGNED)
