"""When a provider's shop is open, and what it asks then: `mon-fri 18:00-08:00 price 400000`. Pure.

A schedule is rules joined by `;`. A rule names days (`mon-fri`, `sat,sun`; none: every day), hours
(`18:00-08:00`, over midnight if they end before they begin; none: the whole day) and what holds then:
`closed`, `open` (at the usual price) or `price QU`. The last rule that holds at a moment decides; where none
does the shop is open at the usual price. `zone Europe/Berlin` in front says whose clock it is.

Hours are those of the wall clock in that zone: an hour that comes twice when summer time ends counts twice,
one that is left out when it begins does not come. Zones are the caller's to look up (`tzinfo`), since that
reads files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from itertools import pairwise
from typing import Final

from protocol.errors import ScheduleInvalid
from protocol.units import MAX_QU, Qu, UnixMs

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WEEK: Final = frozenset(range(7))
DAY_MINUTES: Final = 1_440
WEEK_MINUTES: Final = 7 * DAY_MINUTES
MAX_CHARACTERS: Final = 1_000
MAX_RULES: Final = 32
AHEAD_DAYS: Final = 15
"""How far changes are looked for: a rule of one day a week whose hours summer time leaves out comes again
then."""
_DAY: Final = "|".join(DAYS)
_TOKEN: Final = re.compile(r"[^\s,;]+|,")
_DAYS: Final = re.compile(f"({_DAY})(?:-({_DAY}))?")
_HOURS: Final = re.compile(r"(\d{1,2})(?::(\d\d))?-(\d{1,2})(?::(\d\d))?")
_ZONE: Final = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+){0,2}")
_EXAMPLE: Final = "as in `mon-fri 18:00-08:00 price 400000`"


@dataclass(frozen=True)
class State:
    """What holds at one moment."""

    open: bool = True
    price: Qu | None = None
    """QU an hour and GPU; None: the usual price."""

    def __str__(self) -> str:
        if not self.open:
            return "closed"
        return "open" if self.price is None else f"price {self.price}"


USUAL: Final = State()


@dataclass(frozen=True)
class Rule:
    """`begin` and `end` are minutes of the day; `end` <= `begin`: of the day after."""

    days: frozenset[int]
    """0 is Monday. On which it begins."""
    begin: int
    end: int
    state: State

    def holds(self, weekday: int, minute: int) -> bool:
        if self.begin < self.end:
            return weekday in self.days and self.begin <= minute < self.end
        late = weekday in self.days and minute >= self.begin
        return late or ((weekday - 1) % 7 in self.days and minute < self.end)

    def __str__(self) -> str:
        whole = (self.begin, self.end) == (0, DAY_MINUTES)
        hours = "" if whole else f"{_clock(self.begin)}-{_clock(self.end)}"
        return " ".join(word for word in (_days_text(self.days), hours, str(self.state)) if word)


@dataclass(frozen=True)
class Schedule:
    """`str` of one is its canonical text: `parse` gives the same again."""

    rules: tuple[Rule, ...]
    zone: str = ""
    """IANA name; "": not said."""

    def __str__(self) -> str:
        zone = (f"zone {self.zone}",) if self.zone else ()
        return "; ".join((*zone, *map(str, self.rules)))


@dataclass(frozen=True)
class Span:
    """Minutes of the week (0: Monday 00:00) in which one state holds."""

    begin: int
    end: int
    state: State


# --- reading ------------------------------------------------------------------------------------


def parse(text: str) -> Schedule:
    """ScheduleInvalid, which points at the character."""
    if len(text) > MAX_CHARACTERS:
        raise ScheduleInvalid(f"a schedule has at most {MAX_CHARACTERS} characters", text, MAX_CHARACTERS)
    zone, rules, start = "", [], 0
    for part in text.split(";"):
        words = [(match[0], start + match.start()) for match in _TOKEN.finditer(part)]
        if words and words[0][0].lower() == "zone":
            zone = _zone(words, text, taken=bool(zone))
        elif words:
            rules.append(_rule(words, text))
        start += len(part) + 1
    if not rules:
        raise ScheduleInvalid(f"there is no rule in it, {_EXAMPLE}", text, len(text))
    if len(rules) > MAX_RULES:
        raise ScheduleInvalid(f"a schedule has at most {MAX_RULES} rules", text, len(text))
    return Schedule(tuple(rules), zone)


_Words = list[tuple[str, int]]


def _zone(words: _Words, text: str, *, taken: bool) -> str:
    if taken:
        raise ScheduleInvalid("a schedule has one zone", text, words[0][1])
    if len(words) != 2 or not _ZONE.fullmatch(words[1][0]):
        at = words[1][1] if len(words) > 1 else words[0][1] + len(words[0][0])
        raise ScheduleInvalid("`zone` takes one name such as Europe/Berlin or UTC", text, at)
    return words[1][0]


def _rule(words: _Words, text: str) -> Rule:
    days: set[int] = set()
    hours: tuple[int, int] | None = None
    state: State | None = None
    rest = iter(words)
    for word, at in rest:
        low = word.lower()
        if found := _DAYS.fullmatch(low):
            days |= _days(found[1], found[2])
        elif found := _HOURS.fullmatch(low):
            hours = _hours(found, hours, text, at)
        elif low in ("closed", "open", "price"):
            if state is not None:
                raise ScheduleInvalid("one rule says one thing; join two by `;`", text, at)
            state = State(low == "open") if low != "price" else State(True, _price(rest, text, at))
        elif low not in (",", "daily"):
            raise ScheduleInvalid(_unknown(low), text, at)
    if state is None:
        end = words[-1][1] + len(words[-1][0])
        raise ScheduleInvalid("this rule does not say `closed`, `open` or `price QU`", text, end)
    begin, end = hours or (0, DAY_MINUTES)
    return Rule(frozenset(days) or WEEK, begin, end, state)


def _unknown(word: str) -> str:
    if any(char.isdigit() for char in word):
        return "this is neither hours such as 18:00-08:00 nor `price` and a number"
    return f"this is no day ({', '.join(DAYS)}), no hours and none of closed, open, price"


def _days(first: str, last: str | None) -> set[int]:
    """Over the end of the week, too: `sat-mon`."""
    begin = DAYS.index(first)
    count = 1 if last is None else (DAYS.index(last) - begin) % 7 + 1
    return {(begin + step) % 7 for step in range(count)}


def _hours(found: re.Match[str], before: tuple[int, int] | None, text: str, at: int) -> tuple[int, int]:
    if before is not None:
        raise ScheduleInvalid("one rule has hours once; join two by `;`", text, at)
    begin, end = (60 * int(found[part]) + int(found[part + 1] or 0) for part in (1, 3))
    minutes = [int(found[part] or 0) for part in (2, 4)]
    if begin >= DAY_MINUTES or end > DAY_MINUTES or max(minutes) > 59:
        raise ScheduleInvalid("hours are from 00:00 to 24:00", text, at)
    if begin == end:
        raise ScheduleInvalid("these hours end where they begin; leave them out for the whole day", text, at)
    return begin, end or DAY_MINUTES


def _price(rest: Iterator[tuple[str, int]], text: str, at: int) -> Qu:
    word, where = next(rest, ("", at + len("price")))
    digits = word.replace("_", "")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > len(str(MAX_QU)) or int(digits) > MAX_QU:
        raise ScheduleInvalid(f"`price` takes a whole number of QU an hour, at most {MAX_QU}", text, where)
    return Qu(int(digits))


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _days_text(days: frozenset[int]) -> str:
    """Rows of three days and more with a dash."""
    if days == WEEK:
        return ""
    runs: list[list[int]] = []
    for day in sorted(days):
        if runs and runs[-1][-1] == day - 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    parts = []
    for run in runs:
        short = len(run) <= 2  # a dash saves nothing
        parts.append(",".join(DAYS[day] for day in run) if short else f"{DAYS[run[0]]}-{DAYS[run[-1]]}")
    return ",".join(parts)


# --- what holds when ----------------------------------------------------------------------------


def at(schedule: Schedule, zone: tzinfo, now: UnixMs) -> State:
    """What holds at this moment."""
    local = datetime.fromtimestamp(now // 1_000, zone)
    return _at(schedule, local.weekday(), local.hour * 60 + local.minute)


def _at(schedule: Schedule, weekday: int, minute: int) -> State:
    return next((one.state for one in reversed(schedule.rules) if one.holds(weekday, minute)), USUAL)


def next_change(schedule: Schedule, zone: tzinfo, now: UnixMs) -> UnixMs | None:
    """When something else begins to hold; None if nothing does for AHEAD_DAYS."""
    before = at(schedule, zone, now)
    return _first(schedule, zone, now, lambda state: state != before)


def closes_at(schedule: Schedule, zone: tzinfo, now: UnixMs) -> UnixMs | None:
    """When it closes next, or `now` if it is closed; None if it does not for AHEAD_DAYS."""
    if not at(schedule, zone, now).open:
        return now
    return _first(schedule, zone, now, lambda state: not state.open)


def _first(schedule: Schedule, zone: tzinfo, now: UnixMs, wanted: Callable[[State], bool]) -> UnixMs | None:
    moments = sorted({*_boundaries(schedule, zone, now), *_shifts(zone, now)})
    return next((one for one in moments if one > now and wanted(at(schedule, zone, one))), None)


def _boundaries(schedule: Schedule, zone: tzinfo, now: UnixMs) -> Iterator[UnixMs]:
    """Every moment at which the clock shows the beginning or end of a rule; twice where it does so twice."""
    minutes = {minute % DAY_MINUTES for one in schedule.rules for minute in (one.begin, one.end)} | {0}
    today = datetime.fromtimestamp(now // 1_000, zone).date()
    for day in range(AHEAD_DAYS):
        for minute in minutes:
            clock = time(minute // 60, minute % 60)
            wall = datetime.combine(today + timedelta(days=day), clock, zone)
            for fold in (0, 1):
                yield UnixMs(round(wall.replace(fold=fold).timestamp() * 1_000))


def _shifts(zone: tzinfo, now: UnixMs) -> Iterator[UnixMs]:
    """When the clock is put forward or back: what holds may change without any rule's beginning or end."""
    begin = now // 60_000
    for day in range(AHEAD_DAYS):
        low, high = begin + day * DAY_MINUTES, begin + (day + 1) * DAY_MINUTES
        if _offset(zone, low) == _offset(zone, high):
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _offset(zone, middle) == _offset(zone, low) else (low, middle)
        yield UnixMs(high * 60_000)


def _offset(zone: tzinfo, minute: int) -> timedelta | None:
    return datetime.fromtimestamp(minute * 60, UTC).astimezone(zone).utcoffset()


def week(schedule: Schedule) -> list[Span]:
    """A usual week, without gaps, from Monday on."""
    minutes = {minute % DAY_MINUTES for one in schedule.rules for minute in (one.begin, one.end)} | {0}
    edges = [*(day * DAY_MINUTES + minute for day in range(7) for minute in sorted(minutes)), WEEK_MINUTES]
    spans: list[Span] = []
    for begin, end in pairwise(edges):
        state = _at(schedule, begin // DAY_MINUTES, begin % DAY_MINUTES)
        like = bool(spans) and spans[-1].state == state
        spans.append(Span(spans.pop().begin if like else begin, end, state))
    return spans
