"""The register of directories: whom it takes, whom it keeps, whom it would use."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from protocol import signing
from protocol.messages import Directory
from protocol.signing import NodeKey
from protocol.units import PeerKey, UnixMs
from qubixd.places import Buckets, Places, network_of
from qubixd.register import FORGET_AFTER, FULL_MS, MAX_KNOWN, MAX_LIFE_MS, MAX_REMEMBERED, Register
from qubixd.wire import Verdict
from tests.support.deals import CONTRACT, NETWORK, NOW
from tests.support.discovery import key_of

ME = key_of("me").public


def register(**configured: str) -> Register:
    use = {key_of(name).public: (address,) for name, address in configured.items()}
    return Register(NETWORK, CONTRACT, ME, use, random.Random(1))


def record(ip: str = "8.1.0.1", sequence: int = 1, **changes: object) -> Directory:
    made = Directory(
        sequence=sequence,
        issued_at=NOW,
        expires_at=UnixMs(NOW + 1_800_000),
        withdrawn=False,
        network=NETWORK,
        contract_index=CONTRACT,
        region="eu",
        places=10,
        addresses=(f"/ip4/{ip}/tcp/4001",),
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # fields of a record


def told(into: Register, key: NodeKey, made: Directory) -> Verdict:
    return into.consider(key.sign(made), NOW)


def chosen(of: Register, count: int, taken: tuple[PeerKey, ...] = (), now: UnixMs = NOW) -> list[PeerKey]:
    return [known.peer for known in of.choose(count, taken, now)]


def test_a_record_is_taken_once_and_the_newest_counts() -> None:
    book, dora = register(), key_of("dora")
    assert told(book, dora, record()) is Verdict.ACCEPT
    assert told(book, dora, record()) is Verdict.IGNORE
    assert told(book, dora, record("9.9.0.7", 2)) is Verdict.ACCEPT
    known = book.get(dora.public)
    assert known is not None and known.addresses == ("/ip4/9.9.0.7/tcp/4001",)
    assert known.network == "9.9.0.0/16"
    assert told(book, dora, record(sequence=3, withdrawn=True)) is Verdict.ACCEPT
    assert len(book) == 0
    assert told(book, dora, record(sequence=2)) is Verdict.IGNORE, "no older one after the goodbye"
    assert told(book, key_of("me"), record()) is Verdict.IGNORE


@pytest.mark.parametrize(
    ("changes", "counter"),
    [
        ({"network": "other"}, "directory.other_network"),
        ({"contract_index": CONTRACT + 1}, "directory.other_network"),
        ({"issued_at": UnixMs(NOW + 600_000)}, "directory.from_the_future"),
        ({"expires_at": UnixMs(NOW + MAX_LIFE_MS + 1)}, "directory.from_the_future"),
    ],
)
def test_what_no_honest_directory_says(changes: dict[str, object], counter: str) -> None:
    book = register()
    assert told(book, key_of("dora"), record(**changes)) is Verdict.REJECT  # type: ignore[arg-type]  # fields of a record
    assert book.counters[counter] == 1 and len(book) == 0
    assert book.consider(b"junk", NOW) is Verdict.REJECT


def test_configured_ones_first_then_as_many_networks_as_possible() -> None:
    book = register(mine="/ip4/7.1.0.1/tcp/1")
    for number in range(50):
        told(book, key_of(f"crowd-{number}"), record("66.1.0.1"))
    told(book, key_of("else"), record("66.2.0.1"))
    told(book, key_of("home"), record("192.168.0.2"))
    told(book, key_of("neighbour"), record("192.168.0.3"))
    mine, home = key_of("mine").public, key_of("home").public
    others = {key_of(name).public for name in ("else", "home", "neighbour")}
    first = chosen(book, 5)
    assert first[0] == mine and others <= set(first), "each address of a private network counts"
    assert book.has_another_network((mine, home), NOW)
    assert not book.has_another_network(first, NOW)


def test_proven_ones_are_found_again_without_keeping_others_out() -> None:
    book = register()
    for number in range(50):
        told(book, key_of(f"other-{number}"), record(f"66.{number}.0.1"))
    proven = key_of("other-7").public
    book.served(proven, 30_000)
    first = [chosen(book, 1)[0] for _ in range(200)]
    assert 60 < first.count(proven) < 140 and len(set(first)) > 20


def test_a_flood_pushes_out_its_own_network_only() -> None:
    book = register(mine="/ip4/7.1.0.1/tcp/1")
    told(book, key_of("proven"), record("66.1.0.9"))
    told(book, key_of("honest"), record("8.1.0.1"))
    book.served(key_of("proven").public, 1)
    verdicts = [told(book, key_of(f"fake-{n}"), record("66.1.0.1")) for n in range(MAX_KNOWN + 500)]
    assert len(book) == MAX_KNOWN
    assert all(book.get(key_of(name).public) for name in ("mine", "proven", "honest"))
    assert verdicts.count(Verdict.ACCEPT) == MAX_KNOWN - 2, "more are neither taken nor passed on"
    later = UnixMs(NOW + FULL_MS)
    assert book.consider(key_of("late").sign(record("9.9.0.1")), later) is Verdict.ACCEPT
    assert len(book) == MAX_KNOWN and book.get(key_of("honest").public)


def test_where_one_was_met_counts_more_than_what_it_says() -> None:
    book = register()
    for number in range(3):
        told(book, key_of(f"pretender-{number}"), record(f"66.{number}.0.1"))
    for known in book.known():
        known.meet("7.7.0.1")
        told(book, key_of("pretender-0"), record("9.9.0.1", sequence=2))
        for nowhere in (None, "192.168.0.1", "nonsense"):
            known.meet(nowhere)
    assert {known.network for known in book.known()} == {"7.7.0.0/16"}
    assert not book.has_another_network((key_of("pretender-1").public,), NOW)


def test_those_who_come_and_go_are_not_all_remembered() -> None:
    book = register()
    for number in range(MAX_REMEMBERED + 100):
        key = key_of(f"gone-{number}")
        told(book, key, record())
        assert told(book, key, record(sequence=2, withdrawn=True)) is Verdict.ACCEPT
    assert len(book) == 0 and len(book._sequences) == MAX_REMEMBERED


def test_records_are_told_of_all_networks() -> None:
    book = register()
    for number in range(50):
        told(book, key_of(f"crowd-{number}"), record("66.1.0.1"))
    told(book, key_of("else"), record("66.2.0.1"))
    told(book, key_of("useful"), record("66.1.0.9"))
    book.served(key_of("useful").public, 1)
    signers = {signing.verify(raw).signer for raw in book.records(2)}
    assert signers == {key_of("else").public, key_of("useful").public}
    assert len(book.records(32)) == 32


def test_who_fails_rests_longer_each_time_and_is_forgotten_in_the_end() -> None:
    book, dora = register(), key_of("dora").public
    told(book, key_of("dora"), record())
    rests = []
    for _ in range(FORGET_AFTER - 1):
        book.failed(dora, NOW)
        known = book.get(dora)
        assert known is not None and not chosen(book, 1)
        rests.append(known.rests_until - NOW)
    assert rests == sorted(rests)
    assert chosen(book, 1, now=UnixMs(NOW + 2_000_000)) == [dora]
    book.failed(dora, NOW)
    assert book.get(dora) is None


def test_a_configured_one_is_never_forgotten() -> None:
    book, mine = register(mine="/ip4/7.1.0.1/tcp/1"), key_of("mine").public
    for _ in range(50):
        book.failed(mine, NOW)
    book.sweep(UnixMs(NOW + 10 * MAX_LIFE_MS))
    assert chosen(book, 1, now=UnixMs(NOW + 10 * MAX_LIFE_MS)) == [mine]


def test_a_proven_one_outlives_its_record_but_is_not_passed_on() -> None:
    book = register()
    told(book, key_of("dora"), record())
    told(book, key_of("dave"), record())
    assert len(book.records(10)) == 2
    book.served(key_of("dora").public, 1)
    book.sweep(UnixMs(NOW + MAX_LIFE_MS))
    assert [known.peer for known in book.known()] == [key_of("dora").public]
    assert book.records(10) == []


def test_networks() -> None:
    assert network_of("10.1.2.3") == "10.1.0.0/16"
    assert network_of("2001:db8:1:2::3") == "2001:db8::/32"
    assert network_of(None) == network_of("nowhere") == ""


async def test_places_and_buckets() -> None:
    places = Places(4, each=2)
    with (
        places.hold(ME, "10.0.0.1") as first,
        places.hold(ME, None) as second,
        places.hold(ME, None) as third,
    ):
        assert (first, second, third) == (True, True, False)
        with places.hold(key_of("a").public, "10.0.0.2") as crowded:
            assert not crowded and places.free == 2
        with places.hold(key_of("a").public, "66.1.0.2") as other:
            assert other and places.free == 1
    assert places.free == 4
    buckets = Buckets(rate=0.001, burst=2)
    assert [buckets.take(ME) for _ in range(3)] == [True, True, False]
    assert buckets.take(key_of("a").public)
