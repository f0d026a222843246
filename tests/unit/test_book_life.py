"""How long an offer counts, what a book tells its readers, and whom they are told by."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.query import parse_filter, parse_sort
from protocol.units import MAX_QU, UnixMs
from qubixd.book import ALIVE_MS, MAX_LIFE_MS, MAX_SKEW_MS, OfferBook
from qubixd.book_rules import BURST, PACE_MS
from qubixd.wire import Verdict
from tests.support.crowd import offer_of, peer, sighting, take
from tests.support.deals import CONTRACT, NETWORK, NOW

ALL: frozenset[str] = frozenset()


def book(own: str | None = None) -> OfferBook:
    return OfferBook(NETWORK, CONTRACT, own=peer(own) if own else None)


def at(milliseconds: int) -> UnixMs:
    return UnixMs(NOW + milliseconds)


def live(known: OfferBook, now: int = NOW) -> set[str]:
    """Names of the live offers, which are the same by whatever door one asks."""
    names = {entry.offer.name for entry in known.entries(UnixMs(now))}
    page = known.query(parse_filter(""), (), 1_000, UnixMs(now))
    assert {entry.offer.name for entry in page.entries} == names and page.total == len(names)
    assert all(known.get(peer(name), UnixMs(now)) for name in names)
    assert len(known.sightings(UnixMs(now))) == 9 * len(names)
    return names


def told(known: OfferBook, cursor: int = 0, markets: frozenset[str] = ALL, limit: int = 1_000) -> list[str]:
    return [entry.offer.name for entry in known.changes(cursor, markets, limit)[0]]


# --- life -----------------------------------------------------------------------------------------


def test_an_offer_counts_for_75_seconds_after_it_was_issued() -> None:
    known = book()
    take(known, "alice")
    assert live(known, NOW + ALIVE_MS - 1) == {"alice"} and live(known, NOW + ALIVE_MS) == set()


def test_a_heartbeat_counts_from_when_it_was_heard_by_whoever_heard_it() -> None:
    known = book()
    take(known, "alice")
    known.heard(sighting("alice", 20), at(60_000))
    assert live(known, NOW + 40_000 + ALIVE_MS - 1) == {"alice"} and not live(known, NOW + 40_000 + ALIVE_MS)


def test_an_older_sighting_shortens_no_life() -> None:
    known = book()
    take(known, "alice")
    known.heard(sighting("alice", 5), at(60_000))
    known.heard(sighting("alice", 30), at(61_000))
    assert live(known, NOW + 55_000 + ALIVE_MS - 1) == {"alice"}


def test_a_silent_provider_comes_back_with_a_heartbeat_and_readers_hear_of_it() -> None:
    known = book()
    take(known, "alice")
    take(known, "bob")
    assert not live(known, NOW + ALIVE_MS)
    before = known.cursor
    calls: list[int] = []
    known.on_change.append(lambda: calls.append(known.cursor))
    known.heard(sighting("alice", 1) + sighting("nobody"), at(ALIVE_MS + 10))
    assert live(known, NOW + ALIVE_MS + 10) == {"alice"}
    assert told(known, before) == ["alice"] and calls == [before + 1]


def test_no_heartbeat_brings_back_what_was_withdrawn_or_has_expired() -> None:
    known = book()
    take(known, "alice")
    take(known, "alice", sequence=2, withdrawn=True)
    take(known, "bob", expires_at=NOW + 1_000)
    known.heard(sighting("alice") + sighting("bob"), at(1_000))
    assert not live(known, NOW + 1_000)


def test_a_clock_ahead_lengthens_no_life() -> None:
    known = book()
    ahead = offer_of("alice", NOW + MAX_SKEW_MS)
    take(known, "alice", issued_at=ahead.issued_at, expires_at=ahead.expires_at)
    assert live(known, NOW + ALIVE_MS - 1) == {"alice"} and not live(known, NOW + ALIVE_MS)


def test_ones_own_offer_is_alive_until_it_expires() -> None:
    known = book(own="me")
    take(known, "me", expires_at=NOW + 600_000)
    assert live(known, NOW + 599_999) == {"me"} and not live(known, NOW + 600_000)


def test_a_sighting_tells_its_age_rounded_up() -> None:
    known = book()
    take(known, "alice", gpu_class="RTX_4090")
    assert known.sightings(NOW) == sighting("alice", 0)
    assert known.sightings(at(1)) == known.sightings(at(1_000)) == sighting("alice", 1)
    assert known.sightings(at(1_001), [peer("alice"), peer("nobody")]) == sighting("alice", 2)
    assert known.sightings(at(0), [peer("nobody")]) == b""
    assert list(known.signs()) == [(peer("alice"), "RTX_40", NOW)]


@given(st.binary(max_size=100))
def test_junk_for_sightings_does_no_harm(junk: bytes) -> None:
    known = book()
    take(known, "alice")
    known.heard(junk, at(1))
    assert live(known, NOW + 1) == {"alice"}


def test_what_was_measured_outlives_a_silence() -> None:
    known = book()
    take(known, "alice")
    known.measure(peer("alice"), rtt_ms=20.0004, score=0.5)
    known.sweep(at(ALIVE_MS))
    known.measure(peer("alice"), reliability=2e-7)
    known.measure(peer("nobody"), score=1.0)
    known.heard(sighting("alice"), at(ALIVE_MS))
    (values,) = known.query(parse_filter("rtt=20 score=50%"), (), 1, at(ALIVE_MS)).values
    assert (values["rtt"], values["score"], values["reliability"]) == (20.0, 0.5, 0.0)


def test_a_provider_that_changes_all_the_time_is_slowed_down() -> None:
    known = book()
    for sequence in range(1, BURST + 1):
        assert take(known, "alice", sequence=sequence) is Verdict.ACCEPT
    assert take(known, "alice", sequence=BURST + 1) is Verdict.IGNORE
    assert dict(known.dropped) == {"offer.too_often": 1}
    assert take(known, "alice", NOW + PACE_MS, sequence=BURST + 1) is Verdict.ACCEPT


# --- what changed ---------------------------------------------------------------------------------


def test_changes_come_in_order_each_provider_once_from_where_one_stopped() -> None:
    known = book()
    for name in "abcde":
        take(known, name)
    take(known, "b", sequence=2)
    assert told(known) == ["a", "c", "d", "e", "b"]
    entries, cursor = known.changes(0, ALL, 2)
    assert [entry.offer.name for entry in entries] == ["a", "c"]
    assert told(known, cursor) == ["d", "e", "b"]
    assert known.changes(known.cursor, ALL, 9) == ([], known.cursor)
    assert known.changes(0, ALL, 5)[1] == known.changes(0, ALL, 9)[1] == known.cursor


def test_readers_hear_of_withdrawn_offers_and_not_of_silent_or_expired_ones() -> None:
    known = book()
    take(known, "silent")
    take(known, "brief", expires_at=NOW + 1_000)
    take(known, "gone", expires_at=NOW + 600_000)
    take(known, "gone", sequence=2, withdrawn=True, expires_at=NOW + 600_000)
    take(known, "new", NOW + 70_000)
    known.sweep(at(ALIVE_MS))
    assert told(known) == ["gone", "new"]
    known.sweep(at(600_000))
    assert told(known) == []


def test_readers_of_a_market_hear_of_those_who_leave_it() -> None:
    known = book()
    ampere, hopper = frozenset({"A100"}), frozenset({"HOPPER"})
    take(known, "alice", gpu_class="A100_80GB")
    take(known, "bob", gpu_class="H100_80GB")
    assert told(known, 0, ampere) == ["alice"] and told(known, 0, hopper) == ["bob"]
    assert told(known, 0, ampere | hopper | {"nowhere"}) == ["alice", "bob"]
    before = known.cursor
    take(known, "alice", sequence=2, gpu_class="H100_80GB")
    assert told(known, before, ampere) == told(known, before, hopper) == ["alice"]
    assert told(known, before, ampere | hopper) == ["alice"]
    before = known.cursor
    take(known, "alice", sequence=3, gpu_class="H100_80GB")
    assert told(known, before, ampere) == ["alice"], "who slept through the move hears of it still"


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=60), st.integers(1, 5))
def test_a_follower_ends_up_with_the_same_offers(steps: list[tuple[int, bool]], limit: int) -> None:
    known, copy, cursor = book(), {}, 0
    for sequence, (number, withdrawn) in enumerate(steps, 1):
        take(known, str(number), NOW + sequence * PACE_MS // 10, sequence=sequence, withdrawn=withdrawn)
        if sequence % 3 == 0:
            entries, cursor = known.changes(cursor, ALL, limit)
            copy.update({entry.provider: entry for entry in entries})
    while cursor != known.cursor:
        entries, cursor = known.changes(cursor, ALL, limit)
        copy.update({entry.provider: entry for entry in entries})
    kept = {entry.offer.name for entry in copy.values() if not entry.offer.withdrawn}
    assert kept == live(known, NOW + len(steps) * PACE_MS // 10)


def test_the_log_forgets_what_has_been_overtaken() -> None:
    known = book()
    for sequence in range(1, 5_001):
        take(known, str(sequence % 10), NOW + sequence * PACE_MS, sequence=sequence)
    assert len(known._log._all.changes) < 1_100
    assert told(known, 4_990) == [str(number % 10) for number in range(4_991, 5_001)]


# --- one card, two names --------------------------------------------------------------------------


def test_a_card_under_two_names_is_seen_on_both_while_both_live() -> None:
    known = book()
    cards = offer_of("alice").capacity
    take(known, "alice")
    take(known, "bob", capacity=cards)
    assert known.clashes(peer("alice")) == (peer("bob"),) and known.clashes(peer("bob")) == (peer("alice"),)
    take(known, "carol", capacity=cards)
    assert set(known.clashes(peer("alice"))) == {peer("bob"), peer("carol")}
    take(known, "bob", sequence=2)
    take(known, "carol", sequence=2, withdrawn=True)
    assert known.clashes(peer("alice")) == known.clashes(peer("bob")) == known.clashes(peer("nobody")) == ()
    take(known, "bob", sequence=3, capacity=cards)
    known.sweep(at(ALIVE_MS))
    assert known.clashes(peer("alice")) == () and not known._gpus._holders


# --- directories ----------------------------------------------------------------------------------


def test_what_a_directory_leaves_out_is_counted() -> None:
    known = book()
    one, two = peer("directory one"), peer("directory two")
    known.choose([one, two])
    for name in "abc":
        take(known, name, source=one)
    take(known, "d")
    known.heard(sighting("a"), NOW, two)
    assert take(known, "b", source=two) is Verdict.IGNORE, "known, but shown"
    assert known.sources() == {one: (3, 1), two: (1, 3)}
    raw = next(entry.raw for entry in known.entries(NOW) if entry.offer.name == "b")
    known.consider(raw, NOW, two)
    assert known.sources()[two] == (2, 2)
    assert known.missing(peer("c")) == (two,) and known.missing(peer("d")) == (one, two)
    take(known, "c", sequence=2, withdrawn=True)
    assert known.sources() == {one: (2, 1), two: (2, 1)}
    known.choose([two])
    assert known.sources() == {two: (2, 1)}
    known.choose([two, one])
    assert known.sources() == {two: (2, 1), one: (0, 3)}
    known.sweep(at(ALIVE_MS))
    assert known.sources() == {two: (0, 0), one: (0, 0)}


def test_the_page_after_goes_on() -> None:
    known = book()
    for number in range(7):
        take(known, str(number), price_qu_per_hour=number)
    asked, sort, after, seen = parse_filter("price>0"), parse_sort("-price"), None, []
    while True:
        page = known.query(asked, sort, 2, NOW, after)
        seen += [values["price"] for values in page.values]
        assert page.total == 6
        if (after := page.next) is None:
            break
    assert seen == [6, 5, 4, 3, 2, 1]


def test_age_is_counted_to_the_moment_of_asking() -> None:
    known = book()
    for age in (10, 20, 30):
        take(known, f"{age}", NOW - age * 1_000, price_qu_per_hour=age)

    def found(text: str, sort: str = "price") -> list[str]:
        page = known.query(parse_filter(text), parse_sort(sort), 9, at(5_000))
        return [entry.offer.name for entry in page.entries]

    assert found("age<25") == ["10"] and found("age<=25") == ["10", "20"]
    assert found("age>25") == ["30"] and found("age>=25") == ["20", "30"]
    assert found("age=25") == ["20"] and found("age!=25") == found("age in (15, 35)") == ["10", "30"]
    assert found("", "age") == ["10", "20", "30"] and found("", "-age") == ["30", "20", "10"]


@pytest.mark.parametrize("name", ["price", "storage"])
def test_the_largest_numbers_are_searched(name: str) -> None:
    known = book()
    take(known, "dear", price_qu_per_hour=MAX_QU, storage_qu_per_tib_hour=MAX_QU)
    assert known.query(parse_filter(f"{name}>=1_000_000_000M"), (), 1, NOW).total == 1
    assert known.query(parse_filter(f"{name}<1_000_000_000M"), (), 1, NOW).total == 0


def test_a_replay_after_the_longest_life_is_stale() -> None:
    known = book()
    take(known, "alice", expires_at=NOW + MAX_LIFE_MS)
    known.sweep(at(MAX_LIFE_MS))
    assert not known._records
    old = replace(offer_of("alice"), expires_at=at(MAX_LIFE_MS))
    assert take(known, "alice", NOW + MAX_LIFE_MS, issued_at=NOW, expires_at=old.expires_at) is Verdict.IGNORE
    assert dict(known.dropped) == {"offer.stale": 1}
