"""The offer book: what it takes, what it drops, and under which reason it counts that."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from protocol.messages import Ack, Capacity, Offer
from protocol.signing import NodeKey
from protocol.units import UnixMs
from qubixd.book import MAX_LIFE_MS, MAX_SKEW_MS, OfferBook
from qubixd.wire import Verdict
from tests.support.deals import CONTRACT, NETWORK, NOW, PROVIDER, gpu, offer


def key(number: int) -> NodeKey:
    return NodeKey(hashlib.sha256(b"peer %d" % number).digest())


def book() -> OfferBook:
    return OfferBook(NETWORK, CONTRACT)


def changed(**fields: object) -> bytes:
    return PROVIDER.sign(replace(offer(), **fields))  # type: ignore[arg-type]  # fields come from tests


def at(milliseconds: int) -> UnixMs:
    return UnixMs(NOW + milliseconds)


def test_a_good_offer_is_taken_and_found() -> None:
    known = book()
    assert known.consider(PROVIDER.sign(offer()), NOW) is Verdict.ACCEPT
    assert [entry.offer for entry in known.entries(NOW)] == [offer()]
    entry = known.get(PROVIDER.public, NOW)
    assert entry is not None and entry.provider == PROVIDER.public
    assert not known.dropped


def forged() -> bytes:
    raw = bytearray(PROVIDER.sign(offer()))
    raw[-1] ^= 1
    return bytes(raw)


def resigned_by_nobody() -> bytes:
    """The price inside is changed after signing."""
    raw = PROVIDER.sign(offer())
    spot = raw.index(b"alice")
    return raw[:spot] + b"mally" + raw[spot + 5 :]


REFUSED = {
    "bad signature": (forged(), "offer.forged", Verdict.REJECT),
    "changed inside": (resigned_by_nobody(), "offer.forged", Verdict.REJECT),
    "not msgpack": (b"\xc1junk", "offer.malformed", Verdict.REJECT),
    "empty": (b"", "offer.malformed", Verdict.REJECT),
    "truncated": (PROVIDER.sign(offer())[:-10], "offer.malformed", Verdict.REJECT),
    "padded": (PROVIDER.sign(offer()) + b"\0", "offer.malformed", Verdict.REJECT),
    "another message": (PROVIDER.sign(Ack()), "offer.malformed", Verdict.REJECT),
    "too long a name": (changed(name="x" * 65), "offer.malformed", Verdict.REJECT),
    "a negative price": (changed(price_qu_per_hour=-1), "offer.malformed", Verdict.REJECT),
    "too many GPUs": (
        changed(capacity=Capacity(tuple(gpu(n, model="") for n in range(17)), 1, 1, 1)),
        "offer.malformed",
        Verdict.REJECT,
    ),
    "oversized": (b"x" * 4_097, "offer.oversized", Verdict.REJECT),
    "oversized but signed": (changed(addresses=("/" + "a" * 600,) * 7), "offer.oversized", Verdict.REJECT),
    "another network": (changed(network="mainnet"), "offer.other_network", Verdict.REJECT),
    "another contract": (changed(contract_index=CONTRACT + 1), "offer.other_network", Verdict.REJECT),
    "expired": (changed(expires_at=NOW), "offer.stale", Verdict.IGNORE),
    "issued too far ahead": (
        changed(issued_at=NOW + MAX_SKEW_MS + 1, expires_at=NOW + MAX_SKEW_MS + 2),
        "offer.from_the_future",
        Verdict.REJECT,
    ),
    "living too long": (changed(expires_at=NOW + MAX_LIFE_MS + 1), "offer.from_the_future", Verdict.REJECT),
}


@pytest.mark.parametrize("raw,reason,verdict", REFUSED.values(), ids=REFUSED)
def test_a_bad_offer_is_dropped_and_counted(raw: bytes, reason: str, verdict: Verdict) -> None:
    known = book()
    assert known.consider(raw, NOW) is verdict
    assert dict(known.dropped) == {reason: 1}
    assert not list(known.entries(NOW)) and not known.take_fresh()


def test_limits_are_inclusive() -> None:
    """A provider's clock may be a minute ahead, an offer may live an hour and a minute."""
    known = book()
    ahead = changed(issued_at=NOW + MAX_SKEW_MS, expires_at=NOW + MAX_SKEW_MS + MAX_LIFE_MS)
    assert known.consider(ahead, NOW) is Verdict.ACCEPT


def test_only_the_highest_sequence_counts() -> None:
    known = book()
    second, third = PROVIDER.sign(offer(2)), PROVIDER.sign(replace(offer(3), name="new"))
    assert known.consider(second, NOW) is Verdict.ACCEPT
    assert known.consider(second, NOW) is Verdict.IGNORE
    assert known.consider(third, NOW) is Verdict.ACCEPT
    assert known.consider(second, NOW) is Verdict.IGNORE
    assert known.consider(PROVIDER.sign(replace(offer(3), name="other")), NOW) is Verdict.IGNORE
    assert dict(known.dropped) == {"offer.known": 2, "offer.replayed": 1}
    assert [entry.offer.name for entry in known.entries(NOW)] == ["new"]


def test_a_dropped_offer_uses_up_no_sequence() -> None:
    known = book()
    known.consider(changed(sequence=9, network="mainnet"), NOW)
    known.consider(changed(sequence=9, issued_at=NOW - 1, expires_at=NOW), NOW)
    assert known.consider(PROVIDER.sign(offer(1)), NOW) is Verdict.ACCEPT


def test_a_withdrawn_offer_hides_the_one_before() -> None:
    known = book()
    known.consider(PROVIDER.sign(offer(1)), NOW)
    known.consider(changed(sequence=2, withdrawn=True), NOW)
    assert not list(known.entries(NOW))
    assert known.get(PROVIDER.public, NOW) is None
    assert known.consider(PROVIDER.sign(offer(1)), NOW) is Verdict.IGNORE
    assert known.consider(PROVIDER.sign(offer(3)), NOW) is Verdict.ACCEPT
    assert len(list(known.entries(NOW))) == 1


def test_an_expired_offer_is_gone_at_once_and_forgotten_by_the_sweep() -> None:
    known = book()
    end = at(10_000)
    known.consider(changed(expires_at=end), NOW)
    assert len(list(known.entries(UnixMs(end - 1)))) == 1
    assert not list(known.entries(end)) and known.get(PROVIDER.public, end) is None
    known.sweep(UnixMs(end - 1))
    assert len(known) == 1
    known.sweep(end)
    assert len(known) == 0


def test_a_replay_is_refused_after_the_newer_offer_has_been_swept() -> None:
    """The newer one lived shorter than the older, which is still alive when it is played back."""
    known = book()
    old = changed(sequence=1, expires_at=NOW + MAX_LIFE_MS)
    known.consider(old, NOW)
    known.consider(changed(sequence=2, expires_at=NOW + 1_000), NOW)
    known.sweep(at(MAX_LIFE_MS - 1))
    assert len(known) == 0
    assert known.consider(old, at(MAX_LIFE_MS - 1)) is Verdict.IGNORE
    assert known.dropped["offer.replayed"] == 1


def test_fresh_entries_are_handed_out_once_and_only_the_newest() -> None:
    known = book()
    known.consider(PROVIDER.sign(offer(1)), NOW)
    known.consider(PROVIDER.sign(offer(2)), NOW)
    assert [fresh.sequence for fresh in known.take_fresh()] == [2]
    assert known.take_fresh() == ()


def test_the_largest_offer_a_machine_can_make_fits() -> None:
    """Sixteen cards with long names, every word full, and eight addresses as they look in practice."""
    address = "/ip6/2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff/tcp/65535/p2p/" + "1" * 52
    largest: Offer = replace(
        offer(2**53),
        network=NETWORK,
        name="n" * 64,
        region="r" * 64,
        gpu_class="c" * 64,
        runner="docker",
        capacity=Capacity(tuple(gpu(n, model="m" * 64) for n in range(16)), 2**32 - 1, 2**32 - 1, 2**32 - 1),
        addresses=(address,) * 8,
    )
    assert book().consider(PROVIDER.sign(largest), NOW) is Verdict.ACCEPT


def test_a_long_sweep_can_be_done_in_parts() -> None:
    known = book()
    for number in range(10):
        assert known.consider(key(number).sign(offer()), NOW) is Verdict.ACCEPT
    late = at(1_000_000)
    assert known.sweep(late, 4) and known.sweep(late, 4)
    assert not known.sweep(late, 4)
    assert not list(known.signs())
