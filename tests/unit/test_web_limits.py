"""Fifty times a minute, whoever asks and through whatever stands between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web import limits
from web.limits import MINUTE_S, Limiter, address_of


class Clock:
    def __init__(self) -> None:
        self.now = 1_000 * MINUTE_S

    def __call__(self) -> float:
        return self.now


def test_so_many_in_a_minute_and_no_more() -> None:
    clock = Clock()
    limiter = Limiter(50, clock)
    assert [limiter.ask("a").remaining for _ in range(50)] == list(range(49, -1, -1))
    refused = limiter.ask("a")
    assert refused.remaining == 0 and refused.wait_s > 0
    assert limiter.ask("b").wait_s == 0


@given(st.lists(st.floats(0, 40), min_size=1, max_size=300), st.integers(1, 30))
def test_who_waits_as_told_is_answered_and_others_do_not_profit(pauses: list[float], each: int) -> None:
    clock = Clock()
    limiter = Limiter(each, clock)
    granted: list[float] = []
    for pause in pauses:
        clock.now += pause
        allowance = limiter.ask("a")
        if allowance.wait_s:
            clock.now += allowance.wait_s
            assert not limiter.ask("a").wait_s
        granted.append(clock.now)
    minutes = [now // MINUTE_S for now in granted]
    assert max(map(minutes.count, minutes)) <= each
    for begin in granted:  # whatever minute one looks at
        assert sum(begin <= now < begin + MINUTE_S for now in granted) <= 2 * each


def test_a_flood_of_addresses_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ADDRESSES", 100)
    monkeypatch.setattr(limits, "OTHERS_TIMES", 3)
    clock = Clock()
    limiter = Limiter(5, clock)
    assert limiter.ask("early").wait_s == 0
    answers = [limiter.ask(f"flood {number}") for number in range(10_000)]
    assert len(limiter) <= 101
    assert sum(not one.wait_s for one in answers) == 99 + 3 * 5
    assert limiter.ask("early").wait_s == 0  # who was here before does not suffer
    clock.now += 2 * MINUTE_S
    assert limiter.ask("late").wait_s == 0
    assert len(limiter) == 1


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "address"),
    [
        ("192.0.2.1", "", 0, "192.0.2.1"),
        ("192.0.2.1", "198.51.100.7", 0, "192.0.2.1"),  # nobody said that there is a proxy
        ("127.0.0.1", "198.51.100.7", 1, "198.51.100.7"),
        ("127.0.0.1", "6.6.6.6, 198.51.100.7", 1, "198.51.100.7"),  # what the asker made up is to the left
        ("127.0.0.1", "6.6.6.6, 198.51.100.7, 10.0.0.1", 2, "198.51.100.7"),
        ("127.0.0.1", "198.51.100.7", 2, "127.0.0.1"),  # it has not come through both
        ("127.0.0.1", "198.51.100.7:4711", 1, "198.51.100.7"),
        ("127.0.0.1", "[2001:db8::7]:443", 1, "2001:db8::"),
        ("2001:db8:1:2:3:4:5:6", "", 0, "2001:db8:1:2::"),
        ("::ffff:192.0.2.1", "", 0, "192.0.2.1"),
        ("127.0.0.1", "unknown", 1, "127.0.0.1"),
        ("127.0.0.1", "a" * 100_000, 1, "127.0.0.1"),
        ("127.0.0.1", "," * 100_000, 1, "127.0.0.1"),
        ("", "", 0, ""),
    ],
)
def test_whom_a_request_is_counted_for(peer: str, forwarded: str, proxies: int, address: str) -> None:
    assert address_of(peer, forwarded, proxies) == address


@given(st.text(max_size=80), st.integers(0, 4))
def test_no_header_breaks_it(forwarded: str, proxies: int) -> None:
    assert len(address_of("192.0.2.1", forwarded, proxies)) <= 45
