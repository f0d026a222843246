"""Opening hours: how they are written, what holds when, and what summer time does to them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from protocol import schedule
from protocol.errors import ScheduleInvalid
from protocol.schedule import DAY_MINUTES, Schedule, Span, State, parse
from protocol.units import Qu, UnixMs

BERLIN = ZoneInfo("Europe/Berlin")
WORKS = "mon-fri 18:00-08:00 price 400000; sat,sun price 300000; closed 12:00-13:00"
"""2026-03-29 and 2026-10-25 are the Sundays on which Berlin's clocks change; 2026-06-01 is a Monday."""


def moment(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> UnixMs:
    return UnixMs(round(datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp() * 1_000))


def said(plan: Schedule, text: str, zone: ZoneInfo = BERLIN) -> str:
    return str(schedule.at(plan, zone, moment(text, zone)))


# --- writing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (WORKS, "mon-fri 18:00-08:00 price 400000; sat,sun price 300000; 12:00-13:00 closed"),
        ("CLOSED", "closed"),
        ("zone Europe/Berlin; open mon", "zone Europe/Berlin; mon open"),
        ("sat-mon 8-18 price 1_000", "mon,sat,sun 08:00-18:00 price 1000"),
        ("daily 22:00-24:00 closed;", "22:00-24:00 closed"),
        ("22:00-0:00 closed", "22:00-24:00 closed"),
        ("mon , wed,fri closed", "mon,wed,fri closed"),
        ("mon tue thu closed", "mon,tue,thu closed"),
    ],
)
def test_a_schedule_has_one_spelling(text: str, canonical: str) -> None:
    assert str(parse(text)) == canonical
    assert parse(canonical) == parse(text)


@pytest.mark.parametrize(
    ("text", "mark", "words"),
    [
        ("", 0, "no rule"),
        ("zone UTC", 8, "no rule"),
        ("mon-fri 18:00-08:00", 19, "does not say"),
        ("mon closed; foo closed", 12, "no day"),
        ("mon 25:00-26:00 closed", 4, "00:00 to 24:00"),
        ("mon 10:75-11:00 closed", 4, "00:00 to 24:00"),
        ("mon 8-8 closed", 4, "end where they begin"),
        ("mon 8-9 9-10 closed", 8, "hours once"),
        ("mon 8:00 closed", 4, "neither hours"),
        ("closed open", 7, "one thing"),
        ("price", 5, "whole number"),
        ("price 1,5", 8, "neither hours"),
        ("price -1", 6, "whole number"),
        ("price ٣", 6, "whole number"),
        (f"price {10**15 + 1}", 6, "at most"),
        (f"price {'9' * 900}", 6, "at most"),
        ("zone; closed", 4, "one name"),
        ("zone ../../etc/passwd; closed", 5, "one name"),
        ("zone UTC; zone UTC; closed", 10, "one zone"),
        ("closed" + " " * 1_000, 1_000, "characters"),
        ("closed;" * 33, 231, "at most 32 rules"),
    ],
)
def test_mistakes_are_pointed_at(text: str, mark: int, words: str) -> None:
    with pytest.raises(ScheduleInvalid, match=words) as caught:
        parse(text)
    assert caught.value.position == mark


# --- what holds when ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("2026-06-01 17:59", "open"),
        ("2026-06-01 18:00", "price 400000"),
        ("2026-06-02 07:59", "price 400000"),
        ("2026-06-02 08:00", "open"),
        ("2026-06-01 07:00", "open"),  # Sunday night is no weekday's
        ("2026-06-05 23:59", "price 400000"),
        ("2026-06-06 00:00", "price 300000"),  # the later rule decides
        ("2026-06-06 12:00", "closed"),
        ("2026-06-07 23:59", "price 300000"),
        ("2026-06-02 12:59", "closed"),
    ],
)
def test_the_last_rule_that_holds_decides(text: str, state: str) -> None:
    assert said(parse(WORKS), text) == state


def test_changes_and_closings_are_seen_ahead() -> None:
    plan, now = parse(WORKS), moment("2026-06-01 09:00")
    assert schedule.next_change(plan, BERLIN, now) == moment("2026-06-01 12:00")
    assert schedule.next_change(plan, BERLIN, moment("2026-06-01 13:00")) == moment("2026-06-01 18:00")
    assert schedule.closes_at(plan, BERLIN, moment("2026-06-01 13:00")) == moment("2026-06-02 12:00")
    assert schedule.closes_at(plan, BERLIN, moment("2026-06-01 12:30")) == moment("2026-06-01 12:30")


def test_what_never_changes_has_no_next_change() -> None:
    now = moment("2026-06-01 09:00")
    for text, closes in (("price 5", None), ("closed", now), ("closed 8-9; open", None)):
        assert schedule.next_change(parse(text), BERLIN, now) is None
        assert schedule.closes_at(parse(text), BERLIN, now) == closes


def test_another_zone_is_another_moment() -> None:
    plan, tokyo = parse("closed 12:00-13:00"), ZoneInfo("Asia/Tokyo")
    now = moment("2026-06-01 12:30", tokyo)
    assert not schedule.at(plan, tokyo, now).open
    assert schedule.at(plan, BERLIN, now).open


# --- summer time --------------------------------------------------------------------------------


def test_an_hour_that_is_left_out_does_not_come() -> None:
    plan = parse("sun 02:00-03:00 closed")
    before = moment("2026-03-28 12:00")
    assert schedule.closes_at(plan, BERLIN, before) == moment("2026-04-05 02:00")


def test_hours_that_begin_in_the_hour_left_out_begin_behind_it() -> None:
    plan = parse("sun 02:30-04:00 closed")
    closes = schedule.closes_at(plan, BERLIN, moment("2026-03-28 12:00"))
    assert closes == moment("2026-03-29 03:00")
    opens = schedule.next_change(plan, BERLIN, closes)
    assert opens == moment("2026-03-29 04:00") == closes + 3_600_000


def test_an_hour_that_comes_twice_counts_twice() -> None:
    plan = parse("sun 02:00-02:30 closed")
    first = moment("2026-10-25 02:00")
    again = moment("2026-10-25 02:00", fold=1)
    assert again - first == 3_600_000
    now, seen = moment("2026-10-24 12:00"), []
    for _ in range(4):
        now = schedule.next_change(plan, BERLIN, now) or now
        seen.append(now)
    assert seen == [first, first + 1_800_000, again, again + 1_800_000]


def test_a_day_of_25_hours_is_closed_for_25() -> None:
    plan = parse("sun closed")
    closes = schedule.closes_at(plan, BERLIN, moment("2026-10-24 12:00"))
    assert closes == moment("2026-10-25 00:00")
    opens = schedule.next_change(plan, BERLIN, closes)
    assert opens is not None
    assert timedelta(milliseconds=opens - closes) == timedelta(hours=25)


@pytest.mark.parametrize(
    "zone", ["Australia/Lord_Howe", "America/St_Johns", "Pacific/Apia", "Asia/Kathmandu"]
)
@pytest.mark.parametrize("begin", ["2026-03-27", "2026-04-03", "2026-10-02", "2026-10-30"])
def test_next_change_is_what_a_clock_would_show(zone: str, begin: str) -> None:
    """Compared with looking at the clock every minute, over a clock change of half an hour, too."""
    plan, here = parse(f"{WORKS}; sun 01:45-02:15 closed"), ZoneInfo(zone)
    now = moment(f"{begin} 00:00", here)
    expected = [now + minute * 60_000 for minute in range(3 * DAY_MINUTES)]
    states = [schedule.at(plan, here, UnixMs(one)) for one in expected]
    changes = [one for one, was, state in zip(expected[1:], states, states[1:], strict=False) if was != state]
    seen = []
    while (now := schedule.next_change(plan, here, now) or now) < expected[-1]:
        seen.append(now)
    assert seen == changes


# --- a week -------------------------------------------------------------------------------------


def test_a_week_without_gaps() -> None:
    spans = schedule.week(parse("mon 18:00-08:00 price 7; tue 12:00-13:00 closed"))
    day = DAY_MINUTES
    assert spans == [
        Span(0, 1_080, State()),
        Span(1_080, day + 480, State(True, Qu(7))),
        Span(day + 480, day + 720, State()),
        Span(day + 720, day + 780, State(False)),
        Span(day + 780, 7 * day, State()),
    ]


def test_utc_needs_no_tables() -> None:
    plan = parse("zone UTC; 12:00-13:00 closed")
    now = UnixMs(round(datetime(2026, 6, 1, 12, 30, tzinfo=UTC).timestamp() * 1_000))
    assert not schedule.at(plan, UTC, now).open
