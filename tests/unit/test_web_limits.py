"""Fifty times a minute, whoever asks and through whatever stands between."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from web import limits
from web.limits import AT_ONCE, MINUTE_S, Limiter, Limits, address_of


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


def test_65536_networks_of_one_site_are_not_65536_askers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SITE_TIMES", 3)
    limiter = Limiter(5, Clock())
    answers = [limiter.ask(f"2001:db8:1:{number:x}::") for number in range(100) for _ in range(5)]
    assert sum(not one.wait_s for one in answers) == 15 and max(one.remaining for one in answers) == 4
    for other in ("2001:db8:2:1::", "192.0.2.1", "", "::"):
        assert limiter.ask(other).wait_s == 0


@given(st.integers(0, 2**128 - 1))
def test_a_network_is_in_a_site(number: int) -> None:
    network = ipaddress.IPv6Network((number >> 80 << 80, 48))
    address = limits.network_of(str(ipaddress.IPv6Address(number)))
    if "." not in address:  # one of IPv4, in other clothes
        assert limits.site_of(address) == str(network)


def test_an_address_is_worked_on_a_few_at_a_time_and_others_come_between() -> None:
    async def check() -> None:
        under_way: Counter[str] = Counter()
        most = 0
        go_on = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal most
            under_way[scope["client"][0]] += 1
            most = max(most, *under_way.values())
            await go_on.wait()
            under_way[scope["client"][0]] -= 1
            if scope["path"] == "/breaks":
                raise ValueError
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await asyncio.sleep(0)
            await send({"type": "http.response.body"})

        door = Limits(app, 1_000, 0, lambda request, wait_s: Response(status_code=429))
        async with asyncio.TaskGroup() as group:
            for number in range(50):
                path = "/breaks" if number % 2 else "/"
                group.create_task(answered(door, "192.0.2.1", path))
            await asyncio.sleep(0)
            other = group.create_task(answered(door, "192.0.2.2", "/"))
            await asyncio.sleep(0)
            assert under_way == {"192.0.2.1": AT_ONCE, "192.0.2.2": 1}
            go_on.set()
        assert other.result() == 200 and door._lines == {} and most == AT_ONCE

    asyncio.run(check())


def test_a_trusted_proxy_says_how_it_was_asked() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(scope["scheme"])(scope, receive, send)

    for proxies, said, scheme in ((1, b"https", "https"), (1, b"gopher", "http"), (0, b"https", "http")):
        door = Limits(app, 9, proxies, lambda request, wait_s: Response())
        scope = asked("192.0.2.1", "/") | {"headers": [(b"x-forwarded-proto", said)]}
        asyncio.run(answer_of(door, scope))
        assert scope["scheme"] == scheme


def test_who_is_refused_is_not_listened_to_further() -> None:
    door = Limits(Response(), 1, 0, lambda request, wait_s: Response(status_code=429))
    first, second = (asyncio.run(answer_of(door, asked("192.0.2.1", "/"))) for _ in range(2))
    assert (first["status"], second["status"]) == (200, 429)
    assert (b"connection", b"close") in second["headers"] and (b"connection", b"close") not in first[
        "headers"
    ]


def asked(address: str, path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "scheme": "http",
        "client": (address, 1),
        "path": path,
        "method": "GET",
        "headers": [],
    }


async def answer_of(door: Limits, scope: Scope) -> Message:
    said: list[Message] = []

    async def send(message: Message) -> None:
        said.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    await door(scope, receive, send)
    return said[0]


async def answered(door: Limits, address: str, path: str) -> int:
    try:
        return int((await answer_of(door, asked(address, path)))["status"])
    except ValueError:
        return 500


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
