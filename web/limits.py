"""How often one address may ask: 50 times a minute (L6), counted by minutes that slide into each other.

What counts is this minute's requests and, of the minute before, the share that is not over yet. So no more is
kept than two tables of numbers, and forgetting is throwing one away. An IPv6 customer has a whole /64, and
whoever has 65,536 of them (a /48, which is given to anybody) has no more than SITE_TIMES as much. What an
address asks at the same time is worked on a few at a time, so that others come in between.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MINUTE_S: Final = 60.0
MAX_ADDRESSES: Final = 50_000
"""Of a minute. All beyond share one allowance, OTHERS_TIMES as large as one address's."""
OTHERS: Final = "others"
SITE: Final = "/48"
OTHERS_TIMES: Final = 100
SITE_TIMES: Final = 20
"""Allowances of an address that a /48 of them has together."""
AT_ONCE: Final = 8
"""Requests of one address that are worked on; others of it wait. An answer that has begun counts no more."""
LONGEST_CHAIN: Final = 2_000
"""Characters of X-Forwarded-For that are looked at, from the right."""
UNLIMITED: Final = ("/healthz", "/readyz", "/static/", "/favicon.ico")
"""Answered from memory."""
Refuse = Callable[[Request, int], Response]
"""The answer to a request that has to wait so many seconds."""


@dataclass(frozen=True)
class Allowance:
    """What an address may still ask. `wait_s` is 0 if it was allowed now."""

    remaining: int
    reset_s: int
    """Until the minute is over."""
    wait_s: int


class Limiter:
    """Of one process."""

    def __init__(self, each: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._each = each
        self._clock = clock
        self._minute = 0
        self._now: dict[str, int] = {}
        self._before: dict[str, int] = {}

    def __len__(self) -> int:
        """Addresses that are remembered."""
        return len(self._now) + len(self._before)

    def ask(self, address: str) -> Allowance:
        """May this address ask now? If so it has."""
        gone_s = self._turn()
        names = {self._place(one) for one in (address, site_of(address)) if one is not None}
        left = [self._left(name, gone_s) for name in names]
        worst = min(left, key=lambda one: (not one.wait_s, one.remaining))
        if not worst.wait_s:
            for name in names:
                self._now[name] = self._now.get(name, 0) + 1
        return worst

    def _place(self, name: str) -> str:
        """Where it is counted."""
        return OTHERS if name not in self._now and len(self._now) >= MAX_ADDRESSES else name

    def _left(self, name: str, gone_s: float) -> Allowance:
        """If one asks now."""
        most = self._each * (OTHERS_TIMES if name == OTHERS else SITE_TIMES if name.endswith(SITE) else 1)
        now, before = self._now.get(name, 0), self._before.get(name, 0)
        left = math.floor(most - now - before * (1 - gone_s / MINUTE_S))
        wait_s = 0 if left >= 1 else _wait_s(most, now, before, gone_s)
        return Allowance(max(0, left - 1), math.ceil(MINUTE_S - gone_s), wait_s)

    def _turn(self) -> float:
        """Seconds of this minute that are gone."""
        minute, gone_s = divmod(self._clock(), MINUTE_S)
        if minute != self._minute:
            self._before = self._now if minute == self._minute + 1 else {}
            self._minute, self._now = int(minute), {}
        return gone_s


def _wait_s(most: int, now: int, before: int, gone_s: float) -> int:
    """Until one more is allowed, if nobody asks meanwhile."""
    if now < most:  # enough of the minute before must be over
        over = 1 - (most - 1 - now) / before
        return max(1, math.ceil(over * MINUTE_S - gone_s))
    return math.ceil(MINUTE_S - gone_s + (1 - (most - 1) / now) * MINUTE_S)


# --- who asks ---------------------------------------------------------------------------------------


def address_of(peer: str, forwarded: str, proxies: int) -> str:
    """Whom a request is counted for. `forwarded` is X-Forwarded-For: each proxy writes at its end whom it was
    asked by, so with N proxies of ours only the N-th from the right can be believed. What is no address
    there (or was not passed on) leaves `peer`, who is connected to us."""
    if proxies:
        named = forwarded[-LONGEST_CHAIN:].split(",")
        if len(named) >= proxies:
            return network_of(_bare(named[-proxies].strip())) or network_of(peer) or peer
    return network_of(peer) or peer


def _bare(text: str) -> str:
    """Without a port: "[::1]:80" and "10.0.0.1:80" are written too."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def network_of(text: str) -> str:
    """An IPv4 address, or an IPv6 address's /64; "" for anything else."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Address(int(address) >> 64 << 64))
    return str(address)


def site_of(address: str) -> str | None:
    """The /48 of a /64 as `network_of` writes it; None for anything else."""
    if not address.endswith("::"):
        return None
    return f"{ipaddress.IPv6Address(int(ipaddress.IPv6Address(address)) >> 80 << 80)}{SITE}"


# --- the door ---------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Line:
    """Of an address, for as long as it asks."""

    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    length: int = 0


class _Turn:
    """Of one request in the line of its address."""

    def __init__(self, lines: dict[str, _Line], address: str) -> None:
        self._lines, self._address = lines, address
        self._line = lines.setdefault(address, _Line())
        self._line.length += 1
        self._begun = self._ended = False

    async def come(self) -> None:
        await self._line.turns.acquire()
        self._begun = True

    def over(self) -> None:
        """May be said again."""
        if self._ended:
            return
        self._ended = True
        if self._begun:
            self._line.turns.release()
        self._line.length -= 1
        if not self._line.length:
            del self._lines[self._address]


class Limits:
    """Leaves the address in scope["state"], says the allowance in each answer, refuses with 429."""

    def __init__(self, app: ASGIApp, each: int, proxies: int, refuse: Refuse) -> None:
        self._app = app
        self._each = each
        self._proxies = proxies
        self._refuse = refuse
        self._limiter = Limiter(each)
        self._lines: dict[str, _Line] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        address = self._address(scope, headers)
        scope.setdefault("state", {})["address"] = address
        if self._proxies and (scheme := headers.get("x-forwarded-proto", "")) in ("http", "https"):
            scope["scheme"] = scheme
        if scope["path"].startswith(UNLIMITED):
            await self._app(scope, receive, send)
            return
        allowance = self._limiter.ask(address)
        turn = _Turn(self._lines, address)

        async def send_with(message: Message) -> None:
            if message["type"] == "http.response.start":
                turn.over()
                _say(MutableHeaders(scope=message), self._each, allowance)
            await send(message)

        try:
            if allowance.wait_s:
                await self._refuse(Request(scope), allowance.wait_s)(scope, receive, send_with)
            else:
                await turn.come()
                await self._app(scope, receive, send_with)
        finally:
            turn.over()

    def _address(self, scope: Scope, headers: Headers) -> str:
        client = scope.get("client")
        forwarded = ",".join(headers.getlist("x-forwarded-for")) if self._proxies else ""
        return address_of(client[0] if client else "", forwarded, self._proxies)


def _say(headers: MutableHeaders, each: int, allowance: Allowance) -> None:
    headers["ratelimit-limit"] = str(each)
    headers["ratelimit-remaining"] = str(allowance.remaining)
    headers["ratelimit-reset"] = str(allowance.reset_s)
    if allowance.wait_s:
        headers["connection"] = "close"  # what else has been sent is not even read
