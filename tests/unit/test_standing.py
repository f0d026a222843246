"""Back-off and denial: who is not asked again at once, for how long, and what is remembered of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ledger import standing as ledger_standing
from ledger.standing import StandingRow
from ledger.store import Store, inline, open_store
from protocol.faults import PROVIDER_FAULTS, Outcome, outcome_of
from protocol.units import PeerKey, UnixMs
from qubixd.standing import FIRST_WAIT_MS, FORGIVEN_AFTER_MS, LONGEST_WAIT_MS, MAX_WHY_CHARS, Standings
from tests.unit.test_docs import code_of, page, rows

ALICE, BOB = PeerKey(b"a" * 32), PeerKey(b"b" * 32)
NOW = UnixMs(1_800_000_000_000)
LOST = "lease.provider_lost"


def at(ms: int) -> UnixMs:
    return UnixMs(NOW + ms)


@asynccontextmanager
async def standings(path: Path | None = None) -> AsyncIterator[Standings]:
    async with open_store(path or ":memory:", inline) as store:
        yield await loaded(store)


async def loaded(store: Store) -> Standings:
    made = Standings(store)
    await made.load()
    return made


async def test_after_a_failure_it_is_left_alone_and_asked_again_later() -> None:
    async with standings() as known:
        assert known.allowed(ALICE, NOW) is None
        await known.failed(ALICE, LOST, NOW)
        assert known.allowed(ALICE, NOW) == f"it failed the last time ({LOST}) and is asked again in 1 min"
        assert known.allowed(BOB, NOW) is None
        assert known.allowed(ALICE, at(FIRST_WAIT_MS - 1)) is not None
        assert known.allowed(ALICE, at(FIRST_WAIT_MS)) is None


async def test_the_wait_doubles_up_to_a_cap() -> None:
    async with standings() as known:
        now, waits = NOW, []
        for _ in range(40):
            await known.failed(ALICE, LOST, now)
            until = known.all(now)[0].until_ms
            waits.append(until - now)
            now = until
        assert waits[:4] == [FIRST_WAIT_MS, 2 * FIRST_WAIT_MS, 4 * FIRST_WAIT_MS, 8 * FIRST_WAIT_MS]
        assert waits[-1] == max(waits) == LONGEST_WAIT_MS
        assert "40 times in a row" in (known.allowed(ALICE, UnixMs(now - 1)) or "")


async def test_a_success_forgives_and_so_does_time() -> None:
    async with standings() as known:
        for number in range(6):
            await known.failed(ALICE, LOST, at(number))
        await known.succeeded(ALICE)
        assert known.allowed(ALICE, at(7)) is None
        assert known.all(NOW) == []
        for number in range(6):
            await known.failed(ALICE, LOST, at(number))
        await known.failed(ALICE, LOST, at(FORGIVEN_AFTER_MS + 10))
        assert known.all(NOW)[0].failures == 1


async def test_what_is_not_its_fault_is_not_held_against_it() -> None:
    async with standings() as known:
        for code in (
            "quote.capacity_taken",
            "quote.price_above_limit",
            "job.failed",
            "disk.full",
            "nonsense",
        ):
            await known.failed(ALICE, code, NOW)
        assert known.allowed(ALICE, NOW) is None


async def test_it_is_remembered_across_restarts(tmp_path: Path) -> None:
    async with standings(tmp_path / "l.sqlite") as known:
        await known.failed(ALICE, LOST, NOW)
        await known.deny(BOB, "it mines", NOW)
    async with standings(tmp_path / "l.sqlite") as known:
        assert known.allowed(ALICE, NOW) is not None
        assert known.allowed(BOB, at(10**12)) == "you have denied it: it mines"
        await known.succeeded(BOB)
        assert known.allowed(BOB, NOW) is not None
        await known.forgive(BOB)
        await known.forgive(ALICE)
    async with standings(tmp_path / "l.sqlite") as known:
        assert known.all(NOW) == []


async def test_a_clock_that_was_put_back_locks_nobody_out() -> None:
    async with standings() as known:
        await known.failed(ALICE, LOST, at(10**10))
        assert known.allowed(ALICE, NOW) is None


async def test_reasons_are_short_and_empty_ones_read_well() -> None:
    async with standings() as known:
        await known.deny(ALICE, "x" * 9_999, NOW)
        assert len(known.allowed(ALICE, NOW) or "") < MAX_WHY_CHARS + 40
        await known.deny(ALICE, "", NOW)
        assert known.allowed(ALICE, NOW) == "you have denied it"


async def test_only_so_many_failures_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_standing, "MAX_FAILED", 3)
    async with open_store(":memory:", inline) as store:
        await ledger_standing.put(store, StandingRow(b"d" * 32, 0, "", 0, True, ""))
        for number in range(6):
            await ledger_standing.put(store, StandingRow(bytes([number]) * 32, 1, LOST, number, False, ""))
        kept = {row.provider[:1] for row in await ledger_standing.all_rows(store)}
        assert kept == {b"d", bytes([3]), bytes([4]), bytes([5])}


def test_faults_are_codes_that_exist() -> None:
    text = page("errors.md")
    codes = {code_of(row[0]) for row in [*rows(text, 3), *rows(text, 2)]}
    assert codes >= PROVIDER_FAULTS


def test_the_word_on_a_lease_follows_from_why_it_ended() -> None:
    assert outcome_of("job.completed") is outcome_of("job.failed") is Outcome.COMPLETED
    assert outcome_of("lease.stopped_by_caller") is Outcome.STOPPED
    assert outcome_of(LOST) is outcome_of("job.lost") is Outcome.FAILED
