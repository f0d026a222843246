"""The public mirror of a book: what is in its file after restarts, floods, a full disk and a power cut."""

from __future__ import annotations

import random
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from ledger import mirror, store
from ledger.mirror import KEEP_ENDED_MS, LEAP
from ledger.store import inline, open_store
from protocol.control_mirror import MirrorView
from protocol.messages import Offer
from protocol.signing import opened
from protocol.units import UnixMs
from qubixd.book import ALIVE_MS, OfferBook
from qubixd.control import open_control
from qubixd.mirror import RETRY_SECONDS
from qubixd.wire_libp2p import peer_id_of
from tests.support.crowd import peer, take
from tests.support.deals import CONTRACT, NETWORK, NOW
from tests.support.front_end import Failed, front_end
from tests.support.mirrors import Follower, live, meta, mirror_at, mirroring, rows
from tests.support.world import World

Clock = trio.testing.MockClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mirror.db"


@pytest.fixture
def book() -> OfferBook:
    return OfferBook(NETWORK, CONTRACT)


def now() -> UnixMs:
    return NOW


def at(milliseconds: int) -> Callable[[], UnixMs]:
    return lambda: UnixMs(NOW + milliseconds)


async def settled() -> None:
    """The mirror has looked."""
    await trio.sleep(1.5)


async def test_an_offer_stands_there_as_its_provider_signed_it(
    path: Path, book: OfferBook, autojump_clock: Clock
) -> None:
    name = "Alice's\0 rig"
    take(book, name, region="EU West", closes_at=UnixMs(NOW + 9), gpu_class="A100_80GB")
    book.measure(peer(name), score=0.5)
    async with mirroring(path, book, now):
        await settled()
    columns = "peer, peer_id, label, region, region_label, gpu, gpu_model, closes_ms, score, record"
    (row,) = rows(path, f"SELECT {columns} FROM offers")
    who, entry = peer(name), book.get(peer(name), NOW)
    assert entry is not None
    assert row[:4] == (who, peer_id_of(who), "Alice's\u2400 rig", "euwest")
    assert row[4:8] == ("EU West", "a10080gb", "a100", NOW + 9)
    assert row[8] > 0 and row[9] == entry.raw and isinstance(opened(row[9]).message, Offer)
    told = meta(path)
    assert (told["network"], told["tick"], told["peers"], told["schema"]) == (NETWORK, "77", "3", "1")
    assert told["updated_ms"] == str(NOW)


async def test_everybody_may_read_the_file_and_nobody_the_ledger(
    tmp_path: Path, path: Path, book: OfferBook, autojump_clock: Clock
) -> None:
    async with open_store(tmp_path / "ledger.sqlite", inline), mirroring(path, book, now):
        await settled()
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    public = {name for name, mode in modes.items() if mode & 0o004 and not name.endswith(".lock")}
    assert public == {"mirror.db", "mirror.db-wal", "mirror.db-shm"}
    assert not any(mode & 0o022 for mode in modes.values())
    assert [file.name for file in tmp_path.glob("mirror.db-*")] == []  # whoever may not write can read it


async def test_after_a_restart_nothing_is_alive_that_the_book_does_not_hold(
    path: Path, book: OfferBook, autojump_clock: Clock
) -> None:
    take(book, "alice")
    take(book, "bob")
    reader = Follower(path)
    async with mirroring(path, book, now):
        await settled()
        assert len(reader.live) == 2
    empty = OfferBook(NETWORK, CONTRACT)
    take(empty, "bob")
    async with mirroring(path, empty, at(5)):
        await settled()
        assert set(live(path)) == set(reader.live) == {peer("bob")}
    assert rows(path, "SELECT live, record, expires_ms FROM offers WHERE peer = ?", peer("alice")) == [
        (0, b"", NOW + 5)
    ]


async def test_changes_are_numbered_on_with_a_leap(
    path: Path, book: OfferBook, autojump_clock: Clock
) -> None:
    """A power cut takes the last commits back; nobody may have read their numbers for something else."""
    take(book, "alice")
    changes = []
    for sequence in (2, 3):
        async with mirroring(path, book, now):
            await settled()
            take(book, "alice", sequence=sequence)
            await settled()
        changes.append(int(meta(path)["change"]))
    assert changes[0] > LEAP and changes[1] > changes[0] + LEAP - 10


async def test_what_stands_there_already_is_not_written_again(
    path: Path, book: OfferBook, autojump_clock: Clock
) -> None:
    take(book, "alice")
    for _ in range(2):
        async with mirroring(path, book, now):
            await settled()
    assert rows(path, "SELECT change FROM offers") == [(LEAP + 1,)]


async def test_a_file_about_another_network_is_emptied(
    path: Path, book: OfferBook, autojump_clock: Clock
) -> None:
    take(book, "alice")
    async with mirroring(path, book, now):
        await settled()
    before = meta(path)
    async with open_store(path, inline, schema=mirror.SCHEMA) as file:
        await mirror.begin(file, {"network": "other", "contract_index": "1", "node": "n"})
    after = meta(path)
    assert live(path) == {} and after["network"] == "other" and after["book"] != before["book"]


async def test_ended_offers_go_and_who_missed_their_end_begins_anew(
    path: Path, book: OfferBook, autojump_clock: Clock
) -> None:
    for name in ("alice", "bob", "carol"):
        take(book, name)
    late = Follower(path)
    async with mirroring(path, book, now):
        await settled()
        assert len(late.live) == 3
        for name in ("alice", "bob"):
            take(book, name, sequence=2, withdrawn=True)
        await settled()
    async with open_store(path, inline, schema=mirror.SCHEMA) as file:
        assert await mirror.forget_ended(file, NOW + KEEP_ENDED_MS - 1) == 0
        assert await mirror.forget_ended(file, NOW, most=1) == 1
        assert await mirror.forget_ended(file, NOW + KEEP_ENDED_MS) == 1
    assert rows(path, "SELECT count(*) FROM offers") == [(1,)]
    assert set(late.live) == {peer("carol")}


async def test_a_flood_of_identities_leaves_little_behind(path: Path, autojump_clock: Clock) -> None:
    book = OfferBook(NETWORK, CONTRACT, places=20, lots=random.Random(1))

    async def forgetting(file: store.Store) -> None:
        while True:
            await trio.sleep(0.5)
            while await mirror.forget_ended(file, NOW, most=30):
                pass

    async with mirroring(path, book, now, beside=forgetting):
        for wave in range(10):
            for number in range(40):
                take(book, f"mallory {wave} {number}")
            await settled()
        assert rows(path, "SELECT count(*) FROM offers")[0][0] <= 20 + 30
        assert len(live(path)) == len(book)


async def test_a_full_disk_is_told_of_and_waited_for(
    path: Path, book: OfferBook, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, connect = [45], store._connect

    def connected(where: Path | str) -> sqlite3.Connection:
        db = connect(where)
        db.execute(f"PRAGMA max_page_count = {room[0]}")
        return db

    monkeypatch.setattr(store, "_connect", connected)
    for number in range(100):
        take(book, f"rig {number}")
    async with mirroring(path, book, now) as made:
        await settled()
        view = await made.view()
        assert view.on and view.updated_ms == 0 and "is full" in view.trouble
        take(book, "rig 5", sequence=2, withdrawn=True)
        room[0] = 10_000
        await trio.sleep(RETRY_SECONDS + 1)
        view = await made.view()
        assert (view.offers, view.trouble, view.updated_ms) == (99, "", NOW)
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


async def test_a_damaged_file_ends_nothing(path: Path, book: OfferBook, autojump_clock: Clock) -> None:
    path.write_bytes(b"something else" * 1_000)
    take(book, "alice")
    async with mirroring(path, book, now) as made:
        await settled()
        assert "damaged" in (await made.view()).trouble
        path.unlink()
        await trio.sleep(RETRY_SECONDS + 1)
        assert set(live(path)) == {peer("alice")}


@pytest.mark.parametrize("name", ["mirror.db", "mirror.db-wal", "mirror.db.lock"])
@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
async def test_it_is_led_to_no_other_file(
    path: Path, book: OfferBook, autojump_clock: Clock, name: str, link: Callable[[Path, Path], None]
) -> None:
    """Whoever may write in its directory must not have a file opened to everybody, or written over."""
    secret = path.with_name("secret")
    secret.write_bytes(b"")
    secret.chmod(0o600)
    link(path.with_name(name), secret)
    take(book, "alice")
    async with mirroring(path, book, now) as made:
        await settled()
        assert "is a link" in (await made.view()).trouble
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600 and secret.read_bytes() == b""
        path.with_name(name).unlink()
        await trio.sleep(RETRY_SECONDS + 1)
        assert set(live(path)) == {peer("alice")}


async def test_it_is_switched_on_and_off_for_good(path: Path, book: OfferBook, autojump_clock: Clock) -> None:
    take(book, "alice")
    async with open_store(":memory:", inline) as ledger:
        for begun, then in ((False, True), (True, False), (False, False)):
            async with trio.open_nursery() as nursery:
                made = mirror_at(path, book, now, ledger, always=False)
                await nursery.start(made.run)
                await settled()
                assert (await made.view()).on is begun is made.complete
                await made.switch(on=then)
                await settled()
                assert (await made.view()).offers == then
                nursery.cancel_scope.cancel()


async def test_nothing_is_noted_for_a_mirror_that_is_off(
    path: Path, book: OfferBook, autojump_clock: Clock
) -> None:
    async with mirroring(path, book, now) as made:
        await settled()
        take(book, "alice")
    assert made.path == path
    take(book, "bob")
    assert set(book.stir.take()) == {peer("alice"), peer("bob")}  # everybody, as at a first look


async def test_a_daemon_mirrors_when_it_is_told_to(tmp_path: Path, autojump_clock: Clock) -> None:
    async with World(tmp_path) as world:
        anna = await world.start("anna", provider=True, price=3_000_000)
        bob = await world.start("bob")
        file = tmp_path / "bob" / "mirror.db"
        await world.until_offered(bob, 1)
        async with open_control(bob.up) as path, front_end(path) as front:
            view: MirrorView = await front.ask("mirror")
            assert (view.on, view.path, view.updated_ms) == (False, str(file), 0) and not file.exists()
            assert (await front.ask("mirror", on=True)).on
            await settled()
            view = await front.ask("mirror")
            assert view.offers == 1 and view.newest_change and view.updated_ms
            assert set(live(file)) == {anna.peer}
            await world.kill(anna)
            await trio.sleep(ALIVE_MS / 1_000 + 30)
            assert live(file) == {}
            assert not (await front.ask("mirror", on=False)).on


async def test_who_was_started_to_mirror_does(tmp_path: Path, autojump_clock: Clock) -> None:
    elsewhere = tmp_path / "public"
    async with World(tmp_path) as world:
        bob = await world.start("bob", mirror=True, mirror_dir=str(elsewhere))
        async with open_control(bob.up) as path, front_end(path) as front:
            with pytest.raises(Failed, match="started with --mirror"):
                await front.ask("mirror", on=False)
            await settled()
            assert (await front.ask("mirror")).path == str(elsewhere / "mirror.db")
            assert stat.S_IMODE(elsewhere.stat().st_mode) & 0o055 == 0o055
