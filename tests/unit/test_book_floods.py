"""A book under attack: floods of fresh identities from one source or many, through directories, long offers.

Attackers here have as many keys as they like and every offer of theirs is valid by itself.
"""

from __future__ import annotations

import random

import pytest

from protocol.query import parse_filter
from protocol.signing import Signed
from protocol.units import PeerKey, UnixMs
from qubixd.book import ALIVE_MS, OfferBook
from qubixd.book_record import Rank, number_of
from qubixd.book_room import SETTLED_MS
from qubixd.wire import Verdict
from tests.support.crowd import offer_of, peer, sighting, take
from tests.support.deals import CONTRACT, NETWORK, NOW

PLACES = 1_000
MALLORY = peer("mallory")


@pytest.fixture
def known() -> OfferBook:
    return OfferBook(NETWORK, CONTRACT, places=PLACES, lots=random.Random(7))


def live(known: OfferBook, names: list[str], now: int = NOW) -> int:
    return sum(known.get(peer(name), UnixMs(now)) is not None for name in names)


def flood(
    known: OfferBook, count: int, now: int = NOW, source: PeerKey | None = MALLORY, tag: str = ""
) -> None:
    for number in range(count):
        assert take(known, f"sybil {tag}{number}", now, source) is Verdict.ACCEPT


def settle(known: OfferBook, names: list[str]) -> int:
    """They live, and are heard of, for ten minutes. The time then."""
    for name in names:
        take(known, name, expires_at=NOW + 3_600_000)
    for now in range(NOW, NOW + SETTLED_MS + ALIVE_MS, 30_000):
        known.heard(b"".join(map(sighting, names)), UnixMs(now))
        known.sweep(UnixMs(now))
    return now


def names(count: int, of: str = "honest") -> list[str]:
    return [f"{of} {number}" for number in range(count)]


def test_a_thousand_fresh_identities_cost_nobody_a_place() -> None:
    known = OfferBook(NETWORK, CONTRACT)
    for name in names(50):
        take(known, name)
    flood(known, 1_000)
    take(known, "late")
    assert live(known, [*names(50), "late"]) == 51


def test_those_known_before_a_flood_stay(known: OfferBook) -> None:
    now = settle(known, names(500))
    flood(known, 5 * PLACES, now)
    assert live(known, names(500), now) == 500
    assert len(known._records) <= PLACES


def test_whoever_floods_drives_out_its_own(known: OfferBook) -> None:
    """Newcomers that others brought are among the flood, but the draw finds the flooder's."""
    for number, name in enumerate(names(200)):
        take(known, name, source=peer(f"forwarder {number % 10}"))
    flood(known, 5 * PLACES)
    assert live(known, names(200)) >= 198


def test_honest_newcomers_get_in_during_a_flood_and_stay_while_it_lasts(known: OfferBook) -> None:
    flood(known, 2 * PLACES, tag="first ")
    for number, name in enumerate(names(100)):
        assert take(known, name, source=peer(f"forwarder {number % 10}")) is Verdict.ACCEPT
        flood(known, 20, tag=f"while {number} ")
    assert live(known, names(100)) >= 99


def test_a_flood_through_everybody_still_lets_newcomers_in(known: OfferBook) -> None:
    """No source stands out: newcomers are drawn by lot, are in for a while, and come again."""
    now = settle(known, names(500))
    for turn in range(20):
        for number in range(100):
            source = peer(f"forwarder {number % 50}")
            take(known, f"sybil {turn} {number}", now, source)
        assert take(known, f"late {turn}", now, peer("forwarder 1")) is Verdict.ACCEPT
        assert live(known, [f"late {turn}"], now) == 1
    assert live(known, names(500), now) == 500


def test_settled_sybils_leave_a_tenth_for_newcomers(known: OfferBook) -> None:
    now = settle(known, names(2 * PLACES, "sybil"))
    taken = known._room._taken
    assert sum(taken[Rank.SETTLED :]) <= 0.9 * PLACES
    for name in names(50):
        assert take(known, name, now) is Verdict.ACCEPT
    assert live(known, names(50), now) >= 40


def test_what_a_chosen_directory_shows_goes_before_what_only_settled(known: OfferBook) -> None:
    now = settle(known, names(2 * PLACES, "sybil"))
    known.choose([peer("directory")])
    for name in names(800):
        take(known, name, now, peer("directory"))
    flood(known, 2 * PLACES, now, tag="later ")
    assert live(known, names(800), now) == 800


def test_one_lying_directory_does_not_fill_the_book(known: OfferBook) -> None:
    known.choose([MALLORY, peer("directory")])
    flood(known, 3 * PLACES)
    for name in names(400):
        take(known, name, source=peer("directory"))
        known.heard(sighting(name), NOW, MALLORY)  # showing them, too, does not make them its own
    flood(known, 3 * PLACES, tag="again ")
    assert live(known, names(400)) >= 396


def test_kept_providers_stay_whatever_comes(known: OfferBook) -> None:
    known.keep(map(peer, names(50, "early")))
    for name in (*names(50, "early"), *names(50)):
        take(known, name, expires_at=NOW + 3_600_000)
    known.keep(map(peer, names(50)))
    known.choose([MALLORY])
    known.sweep(UnixMs(NOW + ALIVE_MS))  # silent, even
    flood(known, 5 * PLACES, NOW + ALIVE_MS)
    assert all(number_of(peer(name)) in known._records for name in (*names(50, "early"), *names(50)))


def test_the_silent_and_the_withdrawn_leave_first(known: OfferBook) -> None:
    for name in names(300, "silent"):
        take(known, name, NOW - ALIVE_MS, expires_at=NOW + 600_000)
    for name in names(300, "withdrawn"):
        take(known, name, withdrawn=True)
    for name in names(400):
        take(known, name, source=peer("busy forwarder"))
    known.sweep(NOW)
    flood(known, 600, source=peer("another"))
    assert live(known, names(400)) == 400


def test_long_offers_take_more_places(known: OfferBook) -> None:
    long = ("/" + "a" * 255,) * 8
    for name in names(PLACES):
        take(known, name, source=MALLORY, addresses=long)
        assert sum(len(record.raw) for record in known._records.values()) <= PLACES * 1_536
    assert len(known._records) == PLACES // 2
    for name in names(PLACES):
        take(known, name, sequence=2, source=MALLORY)
    take(known, names(PLACES)[-1], sequence=3, addresses=long)
    assert known._room.free >= 0 and live(known, names(PLACES)[-1:]) == 1


def test_nothing_piles_up_behind_a_flood(known: OfferBook) -> None:
    """Deadlines, the log of changes, cards and words of those that were driven out are forgotten."""
    for turn in range(20):
        for name in names(PLACES, f"turn {turn}"):
            take(known, name, NOW, MALLORY, withdrawn=turn % 2 == 0, expires_at=NOW + 3_600_000)
        known.sweep(NOW)
    assert len(known._wheel) <= 2 * PLACES + 1_024
    assert len(known._log._all.changes) <= 2 * PLACES + 1_024
    assert len(known._gpus._holders) <= PLACES and len(known._fresh) <= PLACES
    words = known._index._words
    assert all(len(word._codes) <= PLACES + 1 for word in words) and len(known._index._numbers) <= PLACES
    assert sum(known._room._held.values()) <= PLACES


def test_a_provider_with_the_same_first_bytes_is_kept_out(known: OfferBook) -> None:
    """Sightings name providers by 8 bytes: a second one would live by the first one's heartbeats."""
    take(known, "alice")
    twin = PeerKey(peer("alice")[:8] + bytes(24))
    made = offer_of("alice's twin", sequence=9)
    assert known.take(Signed(twin, made, b"twin"), NOW) is Verdict.IGNORE
    assert dict(known.dropped) == {"offer.twin": 1} and known.get(twin, NOW) is None
    known.measure(twin, score=1.0)
    (values,) = known.query(parse_filter(""), (), 2, NOW).values
    assert values["score"] is None and known.clashes(twin) == ()
