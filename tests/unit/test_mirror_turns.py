"""What the mirror keeps beside the offers: hours of life, statistics, candles, scores, settled leases."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from ledger import mirror, mirror_history, prices, receipts
from ledger.mirror import HOUR_MS, SCHEMA
from ledger.mirror_history import KEEP_DAYS, SETTLED_MS, SettledRow
from ledger.mirror_schema import CANDLE_COLUMNS
from ledger.prices import DAY_MS, PriceRow
from ledger.store import Store, inline, open_store
from protocol.score import HALF_PAID
from protocol.units import UnixMs
from qubixd import mirror_turns
from qubixd.book import OfferBook
from qubixd.mirror_rows import offer_row, seen_of
from qubixd.mirror_turns import Turns
from qubixd.prices import tidy
from tests.support.crowd import peer, take
from tests.support.deals import CONTRACT, NETWORK, NOW
from tests.support.mirrors import WHOSE, meta, rows
from tests.support.offices import Office, Offices
from tests.support.receipt_deals import Town

Clock = trio.testing.MockClock
DAY = NOW // DAY_MS * DAY_MS
ALICE = peer("alice")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mirror.db"


@asynccontextmanager
async def file_at(path: Path) -> AsyncIterator[Store]:
    async with open_store(path, inline, schema=SCHEMA) as file:
        await mirror.begin(file, WHOSE)
        yield file


async def show(file: Store, *names: str, now: int = NOW, **fields: object) -> None:
    """As the mirror does with a book that has these alone."""
    book = OfferBook(NETWORK, CONTRACT)
    for name in names:
        take(book, name, now, **fields)  # type: ignore[arg-type]  # fields of an offer
    seen = [seen_of(sight) for sight in book.sights(map(peer, names))]
    await mirror.show(file, seen, (), offer_row, now)


# --- hours of life ----------------------------------------------------------------------------


async def test_every_hour_in_which_somebody_lived_is_a_bit_of_its_day(path: Path) -> None:
    async with file_at(path) as file:
        await show(file, "alice", now=DAY)
        for hour in (0, 1, 1, 23, 24):
            await mirror_history.note_life(file, DAY + hour * HOUR_MS + SETTLED_MS)
        before = int(meta(path)["change"])
        assert await mirror_history.note_life(file, DAY + 24 * HOUR_MS + SETTLED_MS) == 0
    assert rows(path, "SELECT peer, day, hours FROM days ORDER BY day") == [
        (ALICE, DAY // DAY_MS, 1 << 23 | 0b11),
        (ALICE, DAY // DAY_MS + 1, 0b1),
    ]
    assert rows(path, "SELECT max(change) FROM days") == [(before,)]


async def test_who_has_just_come_leaves_no_trace(path: Path) -> None:
    async with file_at(path) as file:
        await show(file, "alice")
        await mirror_history.note_life(file, NOW + SETTLED_MS - 1)
        assert rows(path, "SELECT count(*) FROM days") == [(0,)]


async def test_days_are_bounded_and_who_was_here_an_hour_goes_first(path: Path) -> None:
    names = [f"mallory {number}" for number in range(20)]
    async with file_at(path) as file:
        await show(file, "alice", now=DAY)
        await mirror_history.note_life(file, DAY + HOUR_MS)
        await mirror_history.note_life(file, DAY + 2 * HOUR_MS)
        await show(file, *names, now=DAY + 3 * HOUR_MS)
        await mirror_history.note_life(file, DAY + 4 * HOUR_MS)
        assert await mirror_history.forget_days(file, DAY + 5 * HOUR_MS, most=5) == 16
        assert rows(path, "SELECT hours FROM days WHERE peer = ?", ALICE) == [(0b10110,)]
        assert await mirror_history.forget_days(file, DAY + (KEEP_DAYS + 1) * DAY_MS) == 5


async def test_statistics_are_of_what_is_alive(path: Path) -> None:
    lease = SettledRow(b"l" * 32, ALICE, "4090", 700, 60, "completed", "ticket", 5, 6, b"d" * 32, NOW)
    claimed = SettledRow(b"c" * 32, ALICE, "4090", 10**12, 60, "completed", "claimed", 5, 0, b"", NOW)
    async with file_at(path) as file:
        await show(file, "alice", "bob")
        book = OfferBook(NETWORK, CONTRACT)
        take(book, "carol")
        await mirror.show(file, (), [peer("bob")], offer_row, NOW)
        await mirror_history.put_settled(file, [lease, claimed], ())
        await mirror_history.note_stats(file, NOW, peers=4)
    columns = "offers, providers, gpus, free_gpus, peers, settled_qu, leases"
    (row,) = rows(path, f"SELECT {columns} FROM stats WHERE hour = ?", NOW // HOUR_MS)
    assert row == (1, 1, 1, 1, 4, 700, 1)  # nobody's mere word is counted


# --- candles ----------------------------------------------------------------------------------


def candle(start: int, price: int, kind: prices.Kind = "gpu", subject: bytes = b"4090") -> PriceRow:
    return PriceRow(kind, subject, HOUR_MS, start, price, price, price, price, price, 1, 1)


def candles(path: Path) -> list[tuple[object, ...]]:
    return rows(path, f"SELECT {', '.join(CANDLE_COLUMNS[:-1])} FROM candles ORDER BY 1, 2, 3, 4")


async def in_ledger(ledger: Store) -> list[tuple[object, ...]]:
    sql = f"SELECT {', '.join(CANDLE_COLUMNS[:-1])} FROM prices ORDER BY 1, 2, 3, 4"
    return await ledger.read(lambda db: db.execute(sql).fetchall())


async def test_candles_are_the_ledgers_whatever_becomes_of_them_there(
    path: Path, town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "ROWS_AT_ONCE", 7)
    async with Offices(town) as offices, file_at(path) as file:
        office = await offices.open("library")
        turns = turns_of(office, file)
        hours = [candle(DAY + hour * HOUR_MS, hour) for hour in range(30)]
        await prices.note(office.store, [*hours, candle(DAY, 5, "provider", ALICE)])
        await turns.price()
        assert candles(path) == await in_ledger(office.store) != []
        await prices.note(office.store, [candle(DAY + 29 * HOUR_MS, 99), candle(DAY + 31 * HOUR_MS, 3)])
        await turns.price()
        assert candles(path) == await in_ledger(office.store)
        before = rows(path, "SELECT max(change) FROM candles")
        await turns.price()
        assert rows(path, "SELECT max(change) FROM candles") == before  # nothing was news
        await tidy(office.store, DAY + 2 * DAY_MS + prices.KEEP_HOURS_MS)
        await turns.price()
        assert candles(path) == await in_ledger(office.store) and len(candles(path)) == 3


# --- settled leases and scores ----------------------------------------------------------------


@pytest.fixture
def town() -> Town:
    return Town()


def turns_of(office: Office, file: Store) -> Turns:
    own = office.party.key.public
    return Turns(file, office.store, office.receipts, lambda: office.town.now, own, lambda: 4)


async def test_settled_leases_come_without_their_callers_and_get_better_known(
    path: Path, town: Town, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror_turns, "LEASES_AT_ONCE", 2)
    alice, bob = town.party("alice"), town.party("bob")
    town.register(alice)
    deals = [town.deal(alice, bob, paid=3 * HALF_PAID) for _ in range(3)]
    forged = town.deal(alice, bob, paid=70_000, opens=False)
    async with Offices(town) as offices, file_at(path) as file:
        library = await offices.open("library", keeps_for_others=True)
        turns = turns_of(library, file)
        await library.take(*deals, forged)
        await turns.settle()
        proofs = "SELECT proof, count(*) FROM settlements GROUP BY proof"
        assert rows(path, proofs) == [("claimed", 4)]
        town.now = UnixMs(town.now + 400_000)
        await library.score(alice)  # which looks some up on the chain
        for _ in range(4):
            await turns.settle()
        known = {
            row.lease_id: row
            for row, _ in await receipts.of_leases(library.store, [d.lease_id for d in deals])
        }
        assert {proof for proof, _ in rows(path, proofs)} <= {"ticket", "seen", "claimed"}
        columns = "provider, gpu, paid_qu, outcome, open_tick, close_tick, transaction_digest, proof"
        for deal in deals:
            (row,) = rows(path, f"SELECT {columns} FROM settlements WHERE lease_id = ?", deal.lease_id)
            assert row[0] == alice.key.public and row[2:4] == (3 * HALF_PAID, "completed")
            assert row[4:7] == (deal.said.open_tick, deal.settled.tick, deal.settled.transaction)
            assert row[7] == known[deal.lease_id].proof
        assert {known[deal.lease_id].proof for deal in deals} & {"ticket", "seen"}
        assert rows(path, "SELECT count(*) FROM settlements WHERE lease_id = ?", forged.lease_id) == [(0,)]
    everything = b"".join(one.read_bytes() for one in path.parent.glob("mirror.db*"))
    secrets: tuple[bytes, ...] = (bob.key.public, bob.wallet.public_key, b"python:3.12", deals[0].receipt)
    for secret in secrets:
        assert secret not in everything
    assert bytes(alice.key.public) in everything


async def test_what_was_read_of_the_ledger_is_not_read_again_after_a_restart(
    path: Path, town: Town, autojump_clock: Clock
) -> None:
    alice, bob = town.party("alice"), town.party("bob")
    async with Offices(town) as offices:
        library = await offices.open("library", keeps_for_others=True)
        await library.take(town.deal(alice, bob, paid=HALF_PAID))
        for _ in range(2):
            async with file_at(path) as file:
                await turns_of(library, file).settle()
        (once,) = rows(path, "SELECT change FROM settlements")
        await library.take(town.deal(alice, bob, paid=HALF_PAID))
        async with file_at(path) as file:
            await turns_of(library, file).settle()
        changes = rows(path, "SELECT change FROM settlements ORDER BY change")
        assert changes[0] == once and len(changes) == 2


async def test_settled_leases_are_bounded_and_mere_words_go_first(path: Path) -> None:
    def lease(number: int, proof: str) -> SettledRow:
        name = number.to_bytes(32, "big")
        return SettledRow(name, ALICE, "", 1, 1, "completed", proof, 1, 1, b"", NOW + number)

    async with file_at(path) as file:
        await mirror_history.put_settled(file, [lease(1, "ticket"), lease(2, "claimed")], (), most=3)
        await mirror_history.put_settled(file, [lease(3, "claimed"), lease(4, "seen")], (), most=3)
        ended = "SELECT ended_ms - ? FROM settlements ORDER BY 1"
        assert rows(path, ended, NOW) == [(1,), (3,), (4,)]
        await mirror_history.put_settled(file, [], [lease(3, "").lease_id])
        assert rows(path, ended, NOW) == [(1,), (4,)]


async def test_scores_are_of_those_with_receipts_and_of_the_first_pages(
    path: Path, town: Town, autojump_clock: Clock
) -> None:
    alice, bob = town.party("alice"), town.party("bob")
    town.register(alice)
    deals = [town.deal(alice, bob, paid=3 * HALF_PAID) for _ in range(3)]
    async with Offices(town) as offices, file_at(path) as file:
        library = await offices.open("library", keeps_for_others=True)
        await library.take(*deals)
        provider = alice.key.public
        await show(file, "newcomer")
        await file.write(lambda db: db.execute("UPDATE offers SET peer = ?", (provider,)))
        await show(file, "newcomer")
        await turns_of(library, file).score()
        found = dict(rows(path, "SELECT peer, newcomer FROM scores"))
        assert found == {provider: 0, peer("newcomer"): 1}
        (row,) = rows(path, "SELECT reasons, evidence, score, at_ms FROM scores WHERE peer = ?", provider)
    assert json.loads(row[0]) and row[2] > 0 and row[3] == town.now
    evidence = json.loads(row[1])
    assert {one["lease_id"] for one in evidence["leases"]} == {deal.lease_id.hex() for deal in deals}
    assert evidence["counters"]["completed"] == 3
    assert bob.key.public.hex() not in row[1]


async def test_scores_go_with_their_providers_and_are_bounded(path: Path) -> None:
    def score(name: str, at: int) -> mirror_history.ScoreRow:
        return mirror_history.ScoreRow(peer(name), 0.5, 1.0, 0.5, 1.0, 0.1, False, "[]", "{}", NOW + at)

    async with file_at(path) as file:
        await show(file, "alice", "bob")
        await mirror_history.put_scores(file, [score("alice", 1), score("gone", 2)])
        assert rows(path, "SELECT peer FROM scores") == [(ALICE,)]
        await mirror_history.put_scores(file, [score("bob", 2)], most=1)
        assert rows(path, "SELECT peer FROM scores") == [(peer("bob"),)]
