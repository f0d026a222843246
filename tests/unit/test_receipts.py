"""Receipts between nodes: given, refused, bounded, fetched; evidence files made again without a daemon."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import trio.testing

from ledger import receipts
from protocol.errors import PeerRefused, UsageError
from protocol.messages import Ack
from protocol.score import HALF_PAID
from protocol.units import UnixMs
from qubixd import evidence, receipt_shelf
from qubixd.receipt_door import verify
from qubixd.receipt_shelf import MAX_PER_MINUTE
from tests.support.offices import Offices
from tests.support.receipt_deals import Town

Clock = trio.testing.MockClock


@pytest.fixture
def town() -> Town:
    return Town()


async def test_a_directory_keeps_what_both_sides_say_and_others_fetch_it(
    town: Town, autojump_clock: Clock
) -> None:
    alice, bob = town.party("alice"), town.party("bob")
    town.register(alice)
    deals = [town.deal(alice, town.party(f"caller {n}"), paid=3 * HALF_PAID) for n in range(3)]
    async with Offices(town) as offices:
        offices.advertise(alice)
        library = await offices.open("library", keeps_for_others=True)
        judge = await offices.open("judge", directories=[library])
        caller, provider = await offices.open("some caller"), await offices.open("alice")
        before = await judge.score(alice)
        for deal in deals:
            sender = await offices.open(deal.caller.name)
            await sender.tell(library, deal.caller, deal.said)
            await provider.tell(library, alice, deal.settled)
        town.now = UnixMs(town.now + 400_000)
        after = await judge.score(alice)
        assert after.confidence > before.confidence == 0
        assert after.g > before.g
        assert caller.party != bob


async def test_only_directories_keep_what_is_not_their_affair(town: Town, autojump_clock: Clock) -> None:
    alice, bob = town.party("alice"), town.party("bob")
    deal = town.deal(alice, bob, paid=50_000)
    async with Offices(town) as offices:
        nobody, sender = await offices.open("nobody"), await offices.open("bob")
        provider = await offices.open("alice")
        with pytest.raises(PeerRefused, match="about itself only"):
            await sender.tell(nobody, bob, deal.said)
        with pytest.raises(PeerRefused, match="its own leases only"):
            await provider.tell(nobody, alice, deal.settled)
        await sender.tell(provider, bob, deal.said)
        assert len(await receipts.of_provider(provider.store, alice.key.public, 10, b"")) == 1


async def test_nonsense_is_refused_with_a_reason(town: Town, autojump_clock: Clock) -> None:
    bob = town.party("bob")
    async with Offices(town) as offices:
        library, sender = await offices.open("library", keeps_for_others=True), await offices.open("bob")
        with pytest.raises(PeerRefused, match="for receipts"):
            await sender.tell(library, bob, Ack())


async def test_so_much_from_one_peer_and_no_more(town: Town, autojump_clock: Clock) -> None:
    alice, bob = town.party("alice"), town.party("bob")
    deal = town.deal(alice, bob, paid=50_000)
    async with Offices(town) as offices:
        library, sender = await offices.open("library", keeps_for_others=True), await offices.open("bob")
        for _ in range(MAX_PER_MINUTE):
            await sender.tell(library, bob, deal.said)
        with pytest.raises(PeerRefused, match="too many"):
            await sender.tell(library, bob, deal.said)
        town.now = UnixMs(town.now + 60_000)
        await sender.tell(library, bob, deal.said)


async def test_new_identities_of_one_network_keep_nobody_else_out(
    town: Town, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipt_shelf, "MAX_PER_MINUTE_IN_ALL", 8)
    monkeypatch.setattr(receipt_shelf, "MAX_PER_MINUTE_OF_A_NETWORK", 3)
    deal = town.deal(town.party("alice"), town.party("bob"), paid=50_000)
    async with Offices(town) as offices:
        library, refused = await offices.open("library", keeps_for_others=True), 0
        for number in range(12):
            mallory = await offices.open(f"mallory-{number}")
            offices.net.ips[mallory.party.key.public] = f"66.6.0.{number}"
            try:
                await mallory.tell(library, mallory.party, deal.said)
            except PeerRefused as error:
                refused += "too many" in str(error)
        honest = await offices.open("bob")
        offices.net.ips[honest.party.key.public] = "7.7.0.1"
        await honest.tell(library, deal.caller, deal.said)
        assert refused == 12 - 4


async def test_what_is_kept_is_bounded_and_praise_does_not_drive_out_complaints(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "MAX_PER_PROVIDER", 8)
    alice = town.party("alice")
    callers = [town.party(f"caller {n}") for n in range(12)]
    complaint = town.deal(alice, callers[0], paid=0, outcome="failed", closes=False)
    praise = [town.deal(alice, one, paid=50_000, opens=False, closes=False) for one in callers]
    async with Offices(town) as offices:
        library = await offices.open("library", keeps_for_others=True)
        await library.take(complaint)
        for deal in praise:
            await library.take(deal)
        kept = await receipts.of_provider(library.store, alice.key.public, 100, b"")
        assert len(kept) == 5
        assert sum(row.failed for row, _ in kept) == 1


async def test_in_all_so_many_are_kept_and_what_the_chain_bears_out_longest(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "MAX_IN_ALL", 4)
    monkeypatch.setattr(receipts, "LOOK_EVERY", 1)
    providers, bob = [town.party(f"p{n}") for n in range(10)], town.party("bob")
    async with Offices(town) as offices:
        library = await offices.open("library", keeps_for_others=True)
        for number, provider in enumerate(providers):
            deal = town.deal(provider, bob, paid=50_000, opens=not number, closes=not number)
            await library.take(deal)
            if not number:
                await library.score(provider)
            town.now = UnixMs(town.now + 60_000)
        kept = [await receipts.of_provider(library.store, one.key.public, 9, b"") for one in providers]
        assert [number for number, rows in enumerate(kept) if rows] == [0, 7, 8, 9]
        assert kept[0][0][0].proof == "seen"


async def test_settlements_of_nothing_do_not_drive_out_those_of_proven_leases(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "MAX_IN_ALL", 4)
    monkeypatch.setattr(receipts, "LOOK_EVERY", 1)
    alice, mallory, bob = town.party("alice"), town.party("mallory"), town.party("bob")
    async with Offices(town) as offices:
        library = await offices.open("library", keeps_for_others=True)
        await library.take(town.deal(alice, bob, paid=50_000))
        await library.score(alice)
        for _ in range(10):
            town.now = UnixMs(town.now + 60_000)
            junk = town.deal(mallory, bob, paid=50_000, opens=False, closes=False)
            await library.shelf.take(verify(junk.settlement))
        ((row, settlement),) = await receipts.of_provider(library.store, alice.key.public, 9, b"")
        assert row.proof == "seen"
        assert settlement


async def test_one_sender_cannot_fill_the_shelf(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "MAX_PER_SOURCE", 3)
    bob = town.party("bob")
    deals = [town.deal(town.party(f"p{n}"), bob, paid=50_000, opens=False, closes=False) for n in range(4)]
    async with Offices(town) as offices:
        library = await offices.open("library", keeps_for_others=True)
        for deal in deals[:3]:
            await library.shelf.take(verify(deal.receipt))
        with pytest.raises(Exception, match="no place"):
            await library.shelf.take(verify(deals[3].receipt))


async def test_a_page_is_cached_and_the_chain_asked_about_each_receipt_once(town: Town) -> None:
    alice, bob = town.party("alice"), town.party("bob")
    town.register(alice)
    deal = town.deal(alice, bob, paid=50_000)
    async with Offices(town) as offices:
        offices.advertise(alice)
        judge = await offices.open("judge", keeps_for_others=True)
        await judge.take(deal)
        first = await judge.score(alice)
        town.chain.reachable = False
        assert await judge.score(alice) == first
        assert judge.receipts.cached(alice.key.public) == first


async def test_a_directory_that_answers_with_lies_changes_nothing(town: Town, autojump_clock: Clock) -> None:
    """Records about others, forged ones, junk: what was right before them is kept, the rest dropped."""
    alice, eve, bob = town.party("alice"), town.party("eve"), town.party("bob")
    deal = town.deal(eve, bob, paid=50_000)
    async with Offices(town) as offices:
        offices.advertise(alice)
        library = await offices.open("library", keeps_for_others=True)
        judge = await offices.open("judge", directories=[library])
        await library.take(deal)
        await library.store.write(
            lambda db: db.execute("UPDATE receipts SET provider = ?", (alice.key.public,))
        )
        assert (await judge.score(alice)).confidence == 0
        for provider in (alice, eve):
            assert await receipts.of_provider(judge.store, provider.key.public, 10, b"") == ()


# --- evidence ---------------------------------------------------------------------------------


async def written(town: Town, path: Path) -> dict[str, object]:
    alice, judge_party = town.party("alice"), town.party("judge")
    town.register(alice)
    deals = [town.deal(alice, town.party(f"caller {n}"), paid=3 * HALF_PAID) for n in range(3)]
    deals.append(town.deal(alice, judge_party, paid=1_000))
    deals.append(town.deal(alice, town.party("angry"), paid=0, outcome="failed", closes=False))
    async with Offices(town) as offices:
        offices.advertise(alice, price=40)
        judge = await offices.open("judge", keeps_for_others=True)
        await judge.take(*deals)
        score = await judge.score(alice)
        file = await judge.receipts.evidence(alice.key.public)
        again = await judge.score(alice)
        assert file["score"]["g"] == again.g
        assert score.g <= 1
        path.write_text(json.dumps(file))
        return file


async def test_the_file_alone_gives_exactly_the_same_number(town: Town, tmp_path: Path) -> None:
    file = await written(town, tmp_path / "evidence.json")
    report = evidence.report_on(tmp_path / "evidence.json")
    assert report["same"]
    assert report["recomputed"]["g"] == file["score"]["g"]  # type: ignore[index]  # JSON
    assert len(file["leases"]) == 5  # type: ignore[arg-type]  # JSON
    assert file["leases"][0]["readable"]["outcome"]  # type: ignore[index]  # JSON


async def test_it_works_without_a_daemon(town: Town, tmp_path: Path) -> None:
    await written(town, tmp_path / "evidence.json")
    command = [sys.executable, "-m", "qubixd.evidence", str(tmp_path / "evidence.json")]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["same"] is True


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("settlement", "00", "does not hold"),
        ("receipt", "zz", "does not hold"),
        ("proof", "certain", "not an"),
    ],
)
async def test_a_file_that_was_changed_is_refused(
    town: Town, tmp_path: Path, field: str, value: str, words: str
) -> None:
    file = await written(town, tmp_path / "evidence.json")
    file["leases"][0][field] = value  # type: ignore[index]  # JSON
    (tmp_path / "evidence.json").write_text(json.dumps(file))
    with pytest.raises(UsageError, match=words):
        evidence.report_on(tmp_path / "evidence.json")


async def test_a_settlement_by_somebody_else_is_refused(town: Town, tmp_path: Path) -> None:
    file = await written(town, tmp_path / "evidence.json")
    lease: dict[str, str] = file["leases"][0]  # type: ignore[index]  # JSON
    settled = verify(bytes.fromhex(lease["settlement"])).message
    lease["settlement"] = town.party("eve").key.sign(settled).hex()
    (tmp_path / "evidence.json").write_text(json.dumps(file))
    with pytest.raises(UsageError, match="not the provider's word"):
        evidence.report_on(tmp_path / "evidence.json")


async def test_leases_of_a_wallet_the_provider_has_left_count_nothing(town: Town) -> None:
    """What the contract has counted belongs to the wallet."""
    alice, other = town.party("alice"), town.party("other wallet")
    town.register(alice)
    old = [
        town.deal(alice, town.party(f"c{n}"), paid=3 * HALF_PAID, provider_id=other.wallet.public_key)
        for n in range(3)
    ]
    async with Offices(town) as offices:
        judge = await offices.open("judge", keeps_for_others=True)
        await judge.take(*old)
        assert (await judge.score(alice)).confidence > 0
        offices.advertise(alice)
        assert (await judge.score(alice)).confidence == 0


async def test_a_number_that_was_changed_is_noticed(town: Town, tmp_path: Path) -> None:
    file = await written(town, tmp_path / "evidence.json")
    file["score"]["g"] = 0.99  # type: ignore[index]  # JSON
    (tmp_path / "evidence.json").write_text(json.dumps(file))
    assert evidence.report_on(tmp_path / "evidence.json")["same"] is False


def test_what_is_no_evidence_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for content in (b"", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(UsageError):
            evidence.report_on(path)
    with pytest.raises(UsageError, match="cannot be read"):
        evidence.report_on(tmp_path / "missing")
