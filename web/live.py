"""Who listens to the market: one look at the mirror a second for all of them.

Subscribers with the same filter are a group. What a look finds becomes pieces of server-sent events, made
once for each group; a subscriber only remembers how far it has read. Whoever falls behind what a group keeps
is cut off: its next connection tells the id it had (Last-Event-ID) and gets what it missed. `absent` of a
group are offers of which everybody in it knows that they do not match: each is said to be gone once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import msgspec

from protocol.errors import MirrorUnavailable
from protocol.query import FIELDS, Filter, Known, matches
from web.api.shapes import Gone
from web.api.views import offer_of
from web.store import Store, now_ms
from web.views import OfferView, Status

log = logging.getLogger("qubix.web.live")

LOOK_S: Final = 1.0
BEAT_S: Final = 15.0
"""A comment is sent so often, that nobody between takes the stream for dead."""
AT_ONCE: Final = 250
"""Changes read and told together."""
MAX_REPLAY: Final = 5_000
"""Changes that one look, or one who comes back, gets; whoever missed more begins anew."""
PIECE_BYTES: Final = 60_000
KEPT: Final = 64
"""Pieces that a group keeps for slow readers."""
MAX_FILTERS: Final = 100
"""Different ones at a time: each change is held against each of them."""
MAX_ABSENT: Final = 5_000
CUT: Final = "cut"
"""In the state of a request: what breaks its connection off (web/door.py)."""
BEAT: Final = b": still here\n\n"


class TooMany(Exception):
    """No room for one more subscriber; the sentence says of what there are too many."""


def at_of(book: str, change: int) -> str:
    """An event's id, and what answers call `at`."""
    return f"{book}-{change}"


def read_at(text: str) -> tuple[str, int] | None:
    book, _, change = text.rpartition("-")
    return (book, int(change)) if change.isascii() and change.isdigit() and len(change) < 19 else None


def event(name: str, at: str, data: object) -> bytes:
    return b"event: %b\nid: %b\ndata: %b\n\n" % (name.encode(), at.encode(), msgspec.json.encode(data))


class _Change:
    """One offer that changed; worked out for the first that asks."""

    def __init__(self, view: OfferView, book: str, now: int) -> None:
        self.peer = view.peer
        self._view, self._at, self._now = view, at_of(book, view.change), now

    def matches(self, where: Filter) -> bool:
        return bool(self._view.live) and (not where.conditions or matches(where, self._values))

    @cached_property
    def _values(self) -> dict[str, Known]:
        return {name: self._view.value(name, self._now) for name in FIELDS}

    @cached_property
    def told(self) -> bytes:
        return event("offer", self._at, offer_of(self._view))

    @cached_property
    def gone(self) -> bytes:
        return event("gone", self._at, Gone(self._view.peer_id, bool(self._view.live)))


@dataclass(eq=False)
class Subscriber:
    """`cut` breaks its connection off."""

    cut: Callable[[], None]
    read: int = 0
    """The number of the next piece."""
    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    lost: bool = False

    def lose(self) -> None:
        self.lost = True
        self.stirred.set()
        self.cut()


class _Group:
    """Those with one filter."""

    def __init__(self, where: Filter) -> None:
        self._where = where
        self._absent: set[bytes] = set()
        self._pieces: deque[bytes] = deque()
        self._first = 0
        """The number of the first piece that is kept."""
        self.subscribers: set[Subscriber] = set()

    @property
    def end(self) -> int:
        return self._first + len(self._pieces)

    def tell(self, changes: Sequence[_Change]) -> int:
        """How many subscribers were too slow for it."""
        return sum(map(self.put, pieces_of(self._where, changes, self._absent)))

    def put(self, piece: bytes) -> int:
        self._drop_what_is_read()
        self._pieces.append(piece)
        late = []
        if len(self._pieces) > KEPT:
            self._pieces.popleft()
            self._first += 1
            late = [one for one in self.subscribers if one.read < self._first]
        for one in late:
            self.subscribers.remove(one)
            one.lose()
        for one in self.subscribers:
            one.stirred.set()
        return len(late)

    def _drop_what_is_read(self) -> None:
        """By all: of a hundred groups of quick readers nothing is kept."""
        least = min((one.read for one in self.subscribers), default=self.end)
        while self._first < least:
            self._pieces.popleft()
            self._first += 1

    def take(self, one: Subscriber) -> bytes:
        """The next piece."""
        taken = self._pieces[one.read - self._first]
        one.read += 1
        return taken

    def forget(self) -> None:
        """What everybody knows: they begin anew."""
        self._absent.clear()


def pieces_of(where: Filter, changes: Sequence[_Change], absent: set[bytes]) -> Iterator[bytes]:
    """What to tell of these changes to those who know that `absent` do not match."""
    piece, size = list[bytes](), 0
    for change in changes:
        if change.matches(where):
            absent.discard(change.peer)
            told = change.told
        elif change.peer in absent:
            continue
        else:
            if len(absent) >= MAX_ABSENT:
                absent.clear()  # some hear again what they know
            absent.add(change.peer)
            told = change.gone
        piece.append(told)
        size += len(told)
        if size >= PIECE_BYTES:
            yield b"".join(piece)
            piece, size = [], 0
    if piece:
        yield b"".join(piece)


class Hub:
    """Of one process. `run` looks at the mirror until cancelled, `try_look` once."""

    def __init__(self, store: Store, most: int, each: int, clock: Callable[[], int] = now_ms) -> None:
        """At most `most` subscribers, and `each` of one address."""
        self._store, self._most, self._each, self._clock = store, most, each, clock
        self._groups: dict[str, _Group] = {}
        self._by_address: Counter[str] = Counter()
        self._status: Status | None = None
        self._book, self._told = "", 0
        """The newest change that was told."""
        self.events = self.lost = 0
        """Counted since the start: changes told, subscribers that were too slow."""

    def __len__(self) -> int:
        return self._by_address.total()

    @property
    def status(self) -> Status | None:
        """As of the last look; None if there is no mirror to be read."""
        return self._status

    async def at(self) -> str:
        """As of a look no longer ago than LOOK_S. MirrorUnavailable."""
        status = self._status or await self._store.status()
        return at_of(status.book, status.change)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        beat = loop.time() + BEAT_S
        while True:
            await asyncio.sleep(LOOK_S)
            await self.try_look()
            if loop.time() >= beat:
                beat += BEAT_S
                self.lost += sum(group.put(BEAT) for group in self._groups.values())

    async def try_look(self) -> None:
        """As `look`; trouble waits for the next one."""
        try:
            await self.look()
        except MirrorUnavailable as error:
            self._lose_sight(error)
        except Exception:
            log.exception("a look at the mirror failed; the next one comes")

    def _lose_sight(self, error: MirrorUnavailable) -> None:
        if self._status is not None:
            log.warning("live changes wait: %s", error)
        self._status = None

    async def look(self) -> None:
        """Tell everybody what is new. MirrorUnavailable."""
        status = await self._store.status()
        if status.book != self._book:
            self._begin(status)
        elif status.change != self._told:
            await self._follow(self._book, self._told)
            self._told = max(self._told, status.change)
        self._status = status

    def _begin(self, status: Status) -> None:
        if self._book:
            self._reset(status.book, status.change)
        self._book, self._told = status.book, status.change

    def _reset(self, book: str, change: int) -> None:
        """Nobody can go on from what they have."""
        for group in self._groups.values():
            group.forget()
            self.lost += group.put(event("reset", at_of(book, change), {}))

    async def _follow(self, book: str, change: int) -> None:
        for _ in range(MAX_REPLAY // AT_ONCE):
            page = await self._store.changes(change, AT_ONCE)
            now = self._clock()
            changes = [_Change(view, book, now) for view in page.offers]
            self.events += len(changes)
            self._told = change = page.newest  # first: who joins between hears twice rather than not
            for group in list(self._groups.values()):
                self.lost += group.tell(changes)
                await asyncio.sleep(0)
            if page.complete:
                return
        self._told = (await self._store.status()).change
        self._reset(book, self._told)

    # --- subscribers --------------------------------------------------------------------------

    @contextmanager
    def joined(
        self, where: Filter, address: str, cut: Callable[[], None]
    ) -> Iterator[tuple[Subscriber, str]]:
        """A subscriber for as long as the block lasts, and what it goes on from. TooMany."""
        if len(self) >= self._most:
            raise TooMany(f"{self._most} streams are open here already; try again later")
        if self._by_address[address] >= self._each:
            raise TooMany(f"{self._each} streams of this address are open already; close one of them")
        name = str(where)
        if name not in self._groups and len(self._groups) >= MAX_FILTERS:
            raise TooMany(f"{MAX_FILTERS} filters are being followed already; follow without one, or later")
        group = self._groups.setdefault(name, _Group(where))
        one = Subscriber(cut, group.end)
        group.subscribers.add(one)
        self._by_address[address] += 1
        try:
            yield one, at_of(self._book, self._told)
        finally:
            self._leave(name, address, one)

    def _leave(self, name: str, address: str, one: Subscriber) -> None:
        group = self._groups[name]
        group.subscribers.discard(one)
        if not group.subscribers:
            del self._groups[name]
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    async def stream(self, where: Filter, one: Subscriber, since: str, at: str) -> AsyncIterator[bytes]:
        """All that a subscriber gets: what it missed, then what comes, until it is lost."""
        yield b"retry: 3000\n\n"
        async for piece in self._missed(where, since, at):
            yield piece
        yield event("ready", at, {})
        group = self._groups[str(where)]
        while not one.lost:
            if one.read < group.end:
                yield group.take(one)
            else:
                one.stirred.clear()
                await one.stirred.wait()

    async def _missed(self, where: Filter, since: str, at: str) -> AsyncIterator[bytes]:
        """Between two ids; `reset` if that cannot be said any more."""
        begin, end = read_at(since), read_at(at)
        if not since or end is None or since == at:
            return
        if begin is None or begin[0] != end[0] or begin[1] < (await self._store.status()).forgotten:
            yield event("reset", at, {})
            return
        if begin[1] >= end[1]:  # another process looked later
            return
        change, absent = begin[1], set[bytes]()
        for _ in range(MAX_REPLAY // AT_ONCE):
            page = await self._store.changes(change, AT_ONCE)
            now = self._clock()
            old = [_Change(view, end[0], now) for view in page.offers if view.change <= end[1]]
            for piece in pieces_of(where, old, absent):
                yield piece
            change = page.newest
            if page.complete or change >= end[1]:
                return
        yield event("reset", at, {})
