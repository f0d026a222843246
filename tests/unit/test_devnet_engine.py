"""What the devnet takes, drops, runs and remembers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from escrow_bridge.chain import Outcome
from escrow_bridge.devnet.__main__ import (
    CONTRACT_INDEX,
    FIRST_EPOCH,
    FIRST_TICK,
    build_engine,
    parse_fund,
    parse_fund_seed_file,
)
from escrow_bridge.devnet.engine import Drop, Engine, Rules
from escrow_bridge.qubic import contract_id, sign_transaction, transaction_digest
from protocol.errors import UsageError
from protocol.units import Qu, QubicId, Tick
from tests.support.chains import wallet_of

RICH, POOR, EMPTY = wallet_of(0), wallet_of(1), wallet_of(2)


@pytest.fixture
def engine() -> Engine:
    return build_engine(Rules(keep_ticks=100), [(RICH.public_key, Qu(1_000)), (POOR.public_key, Qu(10))])


def transfer(amount: int, tick: int, to: QubicId = EMPTY.public_key) -> bytes:
    return sign_transaction(RICH, to, Qu(amount), Tick(tick))


def advance(engine: Engine, ticks: int) -> None:
    for _ in range(ticks):
        engine.advance()


def test_a_transaction_runs_in_its_tick_and_only_there(engine: Engine) -> None:
    raw = transfer(100, FIRST_TICK + 3)
    assert engine.submit(raw) is None
    advance(engine, 3)
    assert engine.outcome(transaction_digest(raw), Tick(FIRST_TICK + 3)) is Outcome.PENDING
    assert engine.balance(EMPTY.public_key) == 0
    engine.advance()
    assert engine.outcome(transaction_digest(raw), Tick(FIRST_TICK + 3)) is Outcome.INCLUDED
    assert (engine.balance(RICH.public_key), engine.balance(EMPTY.public_key)) == (900, 100)
    assert engine.outcome(transaction_digest(raw), Tick(FIRST_TICK + 2)) is Outcome.MISSED


def flipped(raw: bytes, position: int) -> bytes:
    return raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :]


@pytest.mark.parametrize(
    ("make", "drop"),
    [
        (lambda: transfer(1, FIRST_TICK + 2), Drop.TOO_NEAR),
        (lambda: transfer(1, FIRST_TICK - 5), Drop.TOO_NEAR),
        (lambda: transfer(1, FIRST_TICK + 32), Drop.TOO_FAR),
        (lambda: transfer(1, FIRST_TICK + 5)[:-1], Drop.MALFORMED),
        (lambda: transfer(1, FIRST_TICK + 5) + b"x", Drop.MALFORMED),
        (lambda: b"", Drop.MALFORMED),
        (lambda: flipped(transfer(1, FIRST_TICK + 5), 64), Drop.SIGNATURE),
        (lambda: flipped(transfer(1, FIRST_TICK + 5), 100), Drop.SIGNATURE),
        (lambda: sign_transaction(EMPTY, RICH.public_key, Qu(0), Tick(FIRST_TICK + 5)), Drop.BALANCE),
    ],
)
def test_what_a_node_drops_is_dropped(engine: Engine, make: Callable[[], bytes], drop: Drop) -> None:
    assert engine.submit(make()) is drop
    assert engine.dropped[drop] == 1
    advance(engine, 40)
    assert engine.balance(RICH.public_key) == 1_000


def test_offsets_3_to_31_are_taken_and_an_identical_one_runs_once(engine: Engine) -> None:
    for offset in (3, 31):
        assert engine.submit(transfer(100, FIRST_TICK + offset)) is None
        assert engine.submit(transfer(100, FIRST_TICK + offset)) is Drop.REPEATED
    advance(engine, 32)
    assert engine.balance(EMPTY.public_key) == 200


def test_an_overspend_is_included_without_effect(engine: Engine) -> None:
    raws = [transfer(amount, FIRST_TICK + 3) for amount in (900, 901)]
    for raw in raws:
        assert engine.submit(raw) is None
    advance(engine, 4)
    assert list((engine.past(Tick(FIRST_TICK + 3)) or {}).values()) == raws
    assert (engine.balance(RICH.public_key), engine.balance(EMPTY.public_key)) == (100, 900)


def test_old_ticks_are_forgotten(engine: Engine) -> None:
    raw = transfer(1, FIRST_TICK + 3)
    engine.submit(raw)
    advance(engine, 103)
    assert engine.outcome(transaction_digest(raw), Tick(FIRST_TICK + 3)) is Outcome.INCLUDED
    engine.advance()
    assert engine.outcome(transaction_digest(raw), Tick(FIRST_TICK + 3)) is Outcome.UNKNOWN


def test_a_plain_transfer_to_the_contract_comes_back(engine: Engine) -> None:
    engine.submit(transfer(100, FIRST_TICK + 3, contract_id(CONTRACT_INDEX)))
    advance(engine, 4)
    assert engine.balance(RICH.public_key) == 1_000


def test_an_epoch_ends_with_its_tick_and_ticks_go_on(engine: Engine) -> None:
    advance(engine, 2)
    engine.end_epoch()
    assert engine.tick_info().epoch == FIRST_EPOCH
    engine.advance()
    info = engine.tick_info()
    assert (info.epoch, info.tick, info.initial_tick) == (FIRST_EPOCH + 1, FIRST_TICK + 3, FIRST_TICK + 3)
    engine.advance()
    assert engine.tick_info().epoch == FIRST_EPOCH + 1


def test_queries_of_what_does_not_exist_fail_empty(engine: Engine) -> None:
    assert engine.host.query(CONTRACT_INDEX + 1, 1, b"") == b""
    assert engine.host.query(CONTRACT_INDEX, 99, b"") == b""


def test_settings_no_network_could_have_are_refused() -> None:
    for rules in (
        {"tick_duration_ms": 0},
        {"tick_duration_ms": 65_536},
        {"keep_ticks": 99},
    ):
        with pytest.raises(UsageError):
            Rules(**rules)


def test_funds_are_read_strictly() -> None:
    assert parse_fund(f"{RICH.identity}=5") == (RICH.public_key, 5)
    for text in (
        "",
        "=5",
        f"{RICH.identity}",
        f"{RICH.identity}=",
        f"{RICH.identity}=0",
        f"{RICH.identity}=-1",
    ):
        with pytest.raises(UsageError):
            parse_fund(text)


def test_a_wallet_can_be_funded_by_its_seed_file(tmp_path: Path) -> None:
    seed_file = tmp_path / "seed"
    seed_file.write_text("a" * 55 + "\n", encoding="utf-8")
    assert parse_fund_seed_file(f"{seed_file}=7") == (wallet_of(0).public_key, 7)
    with pytest.raises(UsageError, match="cannot read"):
        parse_fund_seed_file(f"{tmp_path / 'missing'}=7")


def test_an_epoch_ends_by_itself_and_loses_what_was_meant_for_its_first_ticks() -> None:
    rules = Rules(epoch_ticks=5, lost_ticks=2)
    engine = build_engine(rules, [(RICH.public_key, Qu(1_000))])
    for tick in (4, 5, 6, 7):
        assert engine.submit(transfer(100, FIRST_TICK + tick)) is None
    advance(engine, 5)
    info = engine.tick_info()
    assert (info.epoch, info.initial_tick, info.tick) == (FIRST_EPOCH + 1, FIRST_TICK + 5, FIRST_TICK + 5)
    advance(engine, 5)
    assert engine.balance(EMPTY.public_key) == 200
    assert engine.tick_info().epoch == FIRST_EPOCH + 2


@pytest.mark.parametrize("name", ["epoch_ticks", "lost_ticks", "silence_ms"])
def test_rules_below_zero_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        Rules(**{name: -1})
