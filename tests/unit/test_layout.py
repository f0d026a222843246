"""The contract's bytes: golden vectors, and the compiled contract's own answers."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from escrow_bridge import layout
from escrow_bridge.devnet.__main__ import CONTRACT_INDEX, FIRST_TICK, build_engine
from escrow_bridge.devnet.engine import Engine, Rules
from escrow_bridge.layout import EscrowView, Function, Procedure
from escrow_bridge.qubic import contract_id
from protocol.units import EscrowId, LeaseId, Qu, QubicId, Tick
from tests.support.chains import wallet_of

VECTORS = Path(__file__).parents[1] / "vectors"
GOLDEN: dict[str, str] = json.loads((VECTORS / "escrow_bytes.json").read_text(encoding="utf-8"))
OFFSETS: dict[str, Any] = json.loads((VECTORS / "contract_layout.json").read_text(encoding="utf-8"))
"""Struct -> size, and field -> [offset, size], as the compiler of the contract sees them."""
CALLER, PROVIDER = wallet_of(0).public_key, wallet_of(1).public_key
TERMS = LeaseId(bytes(range(32)))
ESCROW = layout.escrow_id(CALLER, PROVIDER, TERMS, 28, Tick(10_000_123))
VIEW = EscrowView(
    escrow_id=ESCROW,
    caller=CALLER,
    provider=PROVIDER,
    deposit=Qu(1_000),
    paid=Qu(250),
    deadline_tick=Tick(10_000_323),
    close_tick=Tick(10_000_200),
    challenge_ticks=16,
    open_tick=Tick(10_000_123),
    burn_basis_points=250,
    as_of=Tick(10_000_150),
)
LEASE = layout.LeaseOrder(PROVIDER, TERMS, Qu(1_000), Tick(10_000_323), 16, 250)
LEASE_BYTES = layout.open_many_input([LEASE], 7)[:88]
PAY = layout.pay_input(ESCROW, Qu(250), bytes(range(64)))


def test_golden_bytes() -> None:
    signature = bytes(range(64))
    assert {
        "escrow_id": ESCROW.hex(),
        "voucher_digest": layout.voucher_digest(ESCROW, Qu(250)).hex(),
        "open": layout.open_input(PROVIDER, TERMS, Tick(10_000_323), 16, 7, 250).hex(),
        "pay": layout.pay_input(ESCROW, Qu(250), signature).hex(),
        "open_many": layout.open_many_input([LEASE, LEASE], 7).hex(),
        "redeem_many": layout.redeem_many_input([PAY]).hex(),
        "escrow": layout.escrow_input(ESCROW).hex(),
        "reading": layout.encode_reading(VIEW).hex(),
    } == GOLDEN


def network_of(engine: Engine) -> int:
    info = layout.decode_info(engine.host.query(CONTRACT_INDEX, Function.GET_INFO, b""))
    assert info is not None
    return info.network


def number(value: int) -> bytes:
    return value.to_bytes(8, "little")


@pytest.mark.parametrize(
    ("struct", "packed", "fields"),
    [
        (
            "Open_input",
            layout.open_input(PROVIDER, TERMS, Tick(10_000_323), 16, 7, 250),
            {
                "provider": PROVIDER,
                "terms": TERMS,
                "deadlineTick": number(10_000_323),
                "challengeTicks": number(16),
                "network": number(7),
                "burnBasisPoints": number(250),
                "unused": number(0),
            },
        ),
        (
            "OpenMany_input",
            layout.open_many_input([LEASE], 7),
            {"leases": LEASE_BYTES.ljust(8 * 88, b"\0"), "network": number(7), "count": number(1)}
            | {"unused": number(0)},
        ),
        (
            "Lease",
            LEASE_BYTES,
            {
                "provider": PROVIDER,
                "terms": TERMS,
                "deposit": number(1_000),
                "deadlineTick": number(10_000_323),
                "challengeTicks": number(16),
                "burnBasisPoints": number(250),
                "unused": number(0),
            },
        ),
        (
            "TopUp_input",
            layout.top_up_input(ESCROW, Qu(1_000), Tick(10_000_400)),
            {
                "escrow": ESCROW,
                "deposit": number(1_000),
                "deadlineTick": number(10_000_400),
                "unused": number(0),
            },
        ),
        (
            "RedeemMany_input",
            layout.redeem_many_input([PAY] * 9),
            {"vouchers": PAY * 8, "ninth": PAY, "count": number(9), "unused": number(0)},
        ),
        *(
            (
                struct,
                layout.pay_input(ESCROW, Qu(250), bytes(range(64))),
                {"escrow": ESCROW, "cumulative": number(250), "signature": bytes(range(64))},
            )
            for struct in ("Redeem_input", "Close_input")
        ),
        *(
            (struct, layout.escrow_input(ESCROW), {"escrow": ESCROW})
            for struct in ("RequestClose_input", "Finalize_input", "GetEscrow_input")
        ),
        (
            "GetEscrow_output",
            layout.encode_reading(VIEW),
            {"exists": number(1), "tick": number(10_000_150), "channel": layout.encode_reading(VIEW)[8:]},
        ),
        (
            "Channel",
            layout.encode_reading(VIEW)[8:],
            {
                "caller": CALLER,
                "provider": PROVIDER,
                "deposit": number(1_000),
                "paid": number(250),
                "deadlineTick": number(10_000_323),
                "closeTick": number(10_000_200),
                "challengeTicks": number(16),
                "openTick": number(10_000_123),
                "burnBasisPoints": number(250),
                "unused": number(0),
            },
        ),
    ],
)
def test_every_field_is_where_the_compiler_puts_it(
    struct: str, packed: bytes, fields: dict[str, bytes]
) -> None:
    places = OFFSETS[struct]["fields"]
    assert (len(packed), set(places)) == (OFFSETS[struct]["size"], set(fields))
    for name, (offset, size) in places.items():
        assert packed[offset : offset + size] == fields[name][:size], name


def test_info_fields_are_where_the_compiler_puts_them() -> None:
    info = OFFSETS["GetInfo_output"]
    places = {name: place for name, place in info["fields"].items() if name != "totals"}
    start = info["fields"]["totals"][0]
    for name, (offset, size) in OFFSETS["Totals"]["fields"].items():
        places[name] = [start + offset, size]
    raw = bytearray(info["size"])
    for value, (offset, size) in enumerate(places.values(), start=1):
        raw[offset : offset + size] = value.to_bytes(size, "little")
    decoded = layout.decode_info(bytes(raw))
    assert decoded is not None
    snake = [re.sub("([A-Z])", r"_\1", name).lower() for name in places]
    assert asdict(decoded) == dict(zip(snake, range(1, len(places) + 1), strict=True))


def test_reading_round_trip() -> None:
    reading = layout.decode_reading(ESCROW, layout.encode_reading(VIEW))
    assert reading is not None and reading.view is not None
    assert (reading.tick, reading.view, reading.view.as_of) == (VIEW.as_of, VIEW, VIEW.as_of)
    assert VIEW.last_tick == VIEW.close_tick
    assert replace(VIEW, close_tick=Tick(0)).last_tick == VIEW.deadline_tick


def test_the_compiled_contract_agrees() -> None:
    engine = build_engine(Rules(), [(CALLER, Qu(5_000))])
    payload = layout.open_input(PROVIDER, TERMS, Tick(FIRST_TICK + 100), 20, network_of(engine))
    output = engine.host.call(CALLER, contract_id(CONTRACT_INDEX), 1_000, Procedure.OPEN, payload)
    escrow = layout.escrow_id(CALLER, PROVIDER, TERMS, CONTRACT_INDEX, FIRST_TICK)
    assert output is not None and output[:32] == escrow
    raw = engine.host.query(CONTRACT_INDEX, Function.GET_ESCROW, layout.escrow_input(escrow))
    reading = layout.decode_reading(escrow, raw)
    assert reading is not None and reading.view is not None
    assert layout.encode_reading(reading.view) == raw
    assert reading.view == EscrowView(
        escrow, CALLER, PROVIDER, Qu(1_000), Qu(0), Tick(FIRST_TICK + 100), Tick(0), 20, FIRST_TICK
    )


def test_the_compiled_contract_accepts_our_vouchers() -> None:
    engine = build_engine(Rules(), [(CALLER, Qu(5_000))])
    contract = contract_id(CONTRACT_INDEX)
    payload = layout.open_input(PROVIDER, TERMS, Tick(FIRST_TICK + 100), 20, network_of(engine))
    engine.host.apply(CALLER, contract, 1_000, Procedure.OPEN, payload)
    escrow = layout.escrow_id(CALLER, PROVIDER, TERMS, CONTRACT_INDEX, FIRST_TICK)
    signature = wallet_of(0).sign(layout.voucher_digest(escrow, Qu(100)))
    engine.host.apply(CALLER, contract, 100, Procedure.REDEEM, layout.pay_input(escrow, Qu(100), signature))
    assert engine.balance(PROVIDER) == 95


def test_info_of_the_compiled_contract() -> None:
    engine = build_engine(Rules())
    info = layout.decode_info(engine.host.query(CONTRACT_INDEX, Function.GET_INFO, b""))
    assert info is not None
    assert (info.contract_index, info.tick, info.fee_basis_points) == (CONTRACT_INDEX, FIRST_TICK, 500)
    assert 0 < info.min_deadline_ticks < info.max_deadline_ticks
    assert 0 < info.min_challenge_ticks < info.max_challenge_ticks
    assert (info.open_balance, info.opened, info.closed) == (0, 0, 0)


@pytest.mark.parametrize("size", [0, 1, 111, 113, 127, 129])
def test_answers_of_a_wrong_size_are_none(size: int) -> None:
    assert layout.decode_reading(ESCROW, bytes(size)) is None
    assert layout.decode_info(bytes(size)) is None


@pytest.mark.parametrize("count", [0, 10])
def test_a_batch_has_a_limit(count: int) -> None:
    with pytest.raises(ValueError, match="parts"):
        layout.redeem_many_input([PAY] * count)
    with pytest.raises(ValueError, match="parts"):
        layout.open_many_input([LEASE] * count, 7)


def test_absent_is_not_an_error() -> None:
    reading = layout.decode_reading(ESCROW, b"\0\0\0\0\x07" + bytes(107))
    assert reading == layout.EscrowReading(Tick(7), None)


def test_voucher_input_is_read_as_the_contract_reads_it() -> None:
    full = layout.pay_input(ESCROW, Qu(9), bytes(64))
    assert layout.parse_pay_input(full + b"cut") == (ESCROW, 9, bytes(64))
    assert layout.parse_pay_input(full[:33]) == (ESCROW, 9, bytes(64))
    assert layout.parse_pay_input(b"") == (bytes(32), 0, bytes(64))


def test_top_up_input_is_read_as_the_contract_reads_it() -> None:
    full = layout.top_up_input(ESCROW, Qu(9), Tick(300))
    assert layout.parse_top_up_input(full + b"cut") == (ESCROW, 9, 300)
    assert layout.parse_top_up_input(full[:41]) == (ESCROW, 9, 300 % 256)
    assert layout.parse_top_up_input(b"") == (bytes(32), 0, 0)


def test_wrong_sizes_are_not_packed() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        layout.escrow_id(QubicId(b""), PROVIDER, TERMS, 1, Tick(1))
    with pytest.raises(ValueError, match="32 bytes"):
        layout.voucher_digest(EscrowId(bytes(33)), Qu(1))
    with pytest.raises(ValueError, match="64 bytes"):
        layout.pay_input(ESCROW, Qu(1), bytes(63))
