"""The host against facts of a genuine node: who calls, what time it is, what runs in which order."""

from __future__ import annotations

import datetime
import struct
from dataclasses import dataclass
from typing import Self

import pytest

from escrow_bridge.devnet.host import START_MS, Host, contract_id
from tests.support.probes import ALICE, BOB, CALLER, EPOCH, FIRST_TICK, MONEY, NULL_ID, QUIET, new_chain, run

NO_ERROR, NO_FEES = 0, 2
SEEN = struct.Struct("<32s32sqQII")


@dataclass(frozen=True)
class Seen:
    invocator: bytes
    originator: bytes
    reward: int
    now: datetime.datetime | None
    tick: int
    epoch: int

    @classmethod
    def of(cls, raw: bytes) -> Self:
        invocator, originator, reward, now, tick, epoch = SEEN.unpack(raw)
        return cls(invocator, originator, reward, unpacked(now), tick, epoch)


@dataclass(frozen=True)
class Counts:
    """State of QUIET: what it saw, and how often its events ran."""

    last: Seen
    begin_tick: Seen
    end_tick: Seen
    begin_ticks: int
    end_ticks: int
    begin_epochs: int
    end_epochs: int
    initialized: int
    begin_epochs_at_initialize: int


def unpacked(value: int) -> datetime.datetime | None:
    """The time in a DateAndTime; None if it was never set."""
    if not value:
        return None
    ms = value >> 10 & 1023
    fields = [
        value >> shift & (1 << bits) - 1 for shift, bits in ((42, 4), (37, 5), (32, 5), (26, 6), (20, 6))
    ]
    month, day, hour, minute, second = fields
    return datetime.datetime(value >> 46, month, day, hour, minute, second, ms * 1_000, datetime.UTC)


def at(unix_ms: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(unix_ms / 1_000, datetime.UTC)


def counts(chain: Host) -> Counts:
    raw = chain.query(QUIET, 2, b"")
    last, begin_tick, end_tick = (Seen.of(raw[i * SEEN.size : (i + 1) * SEEN.size]) for i in range(3))
    return Counts(last, begin_tick, end_tick, *struct.unpack_from("<6Q", raw, 3 * SEEN.size))


@pytest.fixture
def chain() -> Host:
    """CALLER owns 100 QU."""
    host = new_chain()
    assert host.apply(ALICE, contract_id(CALLER), 100, 0, b"")
    return host


def test_in_a_transaction_invocator_and_originator_are_the_source(chain: Host) -> None:
    seen = Seen.of(run(chain, QUIET, 2, amount=5))
    assert (seen.invocator, seen.originator, seen.reward) == (ALICE, ALICE, 5)


def test_between_contracts_the_invocator_is_the_calling_contract(chain: Host) -> None:
    output = run(chain, CALLER, 1, struct.pack("<q", 30))
    seen = Seen.of(output[: SEEN.size])
    assert (seen.invocator, seen.originator, seen.reward) == (contract_id(CALLER), ALICE, 30)
    assert (chain.balance(contract_id(CALLER)), chain.balance(contract_id(QUIET))) == (70, 30)


def test_a_network_query_has_no_caller_and_no_reward(chain: Host) -> None:
    seen = Seen.of(chain.query(QUIET, 1, b""))
    assert (seen.invocator, seen.originator, seen.reward) == (NULL_ID, NULL_ID, 0)


def test_a_reward_that_cannot_be_paid_becomes_0(chain: Host) -> None:
    output = run(chain, CALLER, 1, struct.pack("<q", 101))
    seen, error = Seen.of(output[: SEEN.size]), output[SEEN.size]
    assert (seen.invocator, seen.reward, error) == (contract_id(CALLER), 0, NO_ERROR)
    assert chain.balance(contract_id(CALLER)) == 100


def test_a_procedure_of_a_contract_without_reserve_is_not_invoked(chain: Host) -> None:
    chain.set_reserve(QUIET, 0)
    output = run(chain, CALLER, 1, struct.pack("<q", 30))
    assert output[: SEEN.size] == bytes(SEEN.size)
    assert output[SEEN.size] == NO_FEES
    assert chain.balance(contract_id(CALLER)) == 100


@pytest.mark.parametrize("asked_by", ["function", "procedure"])
def test_a_function_of_a_contract_without_reserve_still_answers(chain: Host, asked_by: str) -> None:
    chain.set_reserve(QUIET, 0)
    output = chain.query(CALLER, 1, b"") if asked_by == "function" else run(chain, CALLER, 2)
    assert Seen.of(output[: SEEN.size]).invocator == contract_id(CALLER)
    assert output[SEEN.size] == NO_ERROR


@pytest.mark.parametrize(("index", "input_type"), [(QUIET, 99), (99, 1), (0, 1)])
def test_an_unknown_function_gives_nothing(chain: Host, index: int, input_type: int) -> None:
    assert chain.query(index, input_type, b"") == b""


def test_the_tick_is_the_same_from_its_begin_to_its_end(chain: Host) -> None:
    chain.end_tick()
    chain.begin_tick(FIRST_TICK + 3)
    within = Seen.of(run(chain, QUIET, 2))
    chain.end_tick()
    seen = counts(chain)
    assert {seen.begin_tick.tick, within.tick, seen.end_tick.tick, chain.tick} == {FIRST_TICK + 3}


def test_now_is_the_time_of_the_previous_tick(chain: Host) -> None:
    times = [START_MS + 5_432, START_MS + 9_000, START_MS + 10_000]
    seen = []
    for offset, ms in enumerate(times):
        chain.end_tick()
        chain.begin_tick(FIRST_TICK + 1 + offset, ms)
        seen.append(Seen.of(run(chain, QUIET, 2)).now)
    assert seen[1:] == [at(times[0]), at(times[1])]


def test_now_never_goes_backward(chain: Host) -> None:
    seen = []
    for tick, seconds in enumerate([60, 1, 2, 61, 62]):
        chain.begin_tick(FIRST_TICK + 1 + tick, START_MS + seconds * 1_000)
        seen.append(Seen.of(run(chain, QUIET, 2)).now)
    assert seen[1:] == [at(START_MS + seconds * 1_000) for seconds in (60, 60, 60, 61)]


def test_what_begins_runs_from_the_lowest_index_and_what_ends_from_the_highest(chain: Host) -> None:
    chain.end_tick()
    chain.begin_tick(FIRST_TICK + 1)
    chain.end_tick()
    chain.change_epoch()
    begun_ticks, ended_ticks, begun_epochs, ended_epochs = struct.unpack_from(
        "<4Q", chain.query(CALLER, 2, b"")
    )
    seen = counts(chain)
    assert (begun_ticks, begun_epochs) == (seen.begin_ticks, seen.begin_epochs), "QUIET ran before"
    assert (ended_ticks, ended_epochs) == (seen.end_ticks - 1, seen.end_epochs - 1), "QUIET ran after"


def test_initialize_runs_once_before_the_first_epoch_begins(chain: Host) -> None:
    seen = counts(chain)
    assert (seen.initialized, seen.begin_epochs_at_initialize, seen.begin_epochs) == (1, 0, 1)


def test_tick_and_state_go_on_over_an_epoch(chain: Host) -> None:
    run(chain, QUIET, 2)
    before = counts(chain)
    chain.end_tick()
    chain.change_epoch()
    assert (chain.epoch, chain.tick) == (EPOCH + 1, FIRST_TICK)
    assert counts(chain).last == before.last
    chain.begin_tick(FIRST_TICK + 1)
    assert Seen.of(run(chain, QUIET, 2)).epoch == EPOCH + 1


def test_without_reserve_a_contract_sleeps_through_ticks_but_not_epochs(chain: Host) -> None:
    chain.set_reserve(QUIET, 0)
    before = counts(chain)
    chain.end_tick()
    chain.begin_tick(FIRST_TICK + 1)
    chain.change_epoch()
    after = counts(chain)
    assert (after.begin_ticks, after.end_ticks) == (before.begin_ticks, before.end_ticks)
    assert (after.begin_epochs, after.end_epochs) == (before.begin_epochs + 1, before.end_epochs + 1)


def test_within_a_tick_transactions_run_in_the_order_given(chain: Host) -> None:
    whole = chain.balance(ALICE)
    assert chain.apply(ALICE, BOB, whole, 0, b"")
    assert not chain.apply(ALICE, contract_id(MONEY), 1, 0, b"")
    assert chain.apply(BOB, ALICE, whole, 0, b"")
    assert chain.apply(ALICE, contract_id(MONEY), 1, 0, b"")


def test_only_mut_marks_a_state_as_changed(chain: Host) -> None:
    chain.end_tick()
    chain.begin_tick(FIRST_TICK + 1)
    assert not chain.state_changed(MONEY)
    run(chain, MONEY, 2, struct.pack("<qI", 0, 0))
    assert not chain.state_changed(MONEY)
    run(chain, MONEY, 4, ALICE + bytes(8))
    assert chain.state_changed(MONEY)
