"""The pure parts of the area Instances: the view of a lease, the calculator, graphs, the log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import UsageError
from tests.support.views import HOSTILE, lease
from tui.safe import safe_text
from tui.screens import instances_graph as graph
from tui.screens import instances_log as logs
from tui.screens import instances_model as model

RUNNING = lease(
    phase="running", settled=False, promised=6_000, paid=0, refunded=0, seconds=60, max_seconds=300,
    ended_at_ms=0, sentence="", detail="the job is running", frozen=False,
)  # fmt: skip


# --- a lease ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "word", "tone"),
    [("running", "running", "running"), ("done", "completed", "completed"), ("failed", "failed", "failed"),
     ("cancelled", "cancelled", "cancelled"), ("provisioning", "preparing", "busy"),
     ("paused", "waiting", "waiting")],
)  # fmt: skip
def test_a_phase_has_a_word_and_a_tone(phase: str, word: str, tone: str) -> None:
    status = model.status_of(lease(phase=phase))
    assert (status.word, status.tone) == (word, tone)


def test_marks_tell_good_from_bad_without_colour() -> None:
    marks = {phase: model.status_of(lease(phase=phase)).mark for phase in ("running", "done", "failed")}
    assert len(set(marks.values())) == 3


def test_a_frozen_job_is_paused_and_a_newer_phase_is_shown_as_it_is() -> None:
    assert model.status_of(lease(phase="running", frozen=True)).word == "paused"
    assert "\x1b" not in model.status_of(lease(phase=HOSTILE)).word


def test_what_the_chain_says_otherwise_is_said() -> None:
    status = model.status_of(lease(differences=["chain.paid_less"]))
    assert "differs" in status.word and "chain.paid_less" in status.sentence


def test_costs_are_what_is_signed_for_until_it_is_settled() -> None:
    assert (model.spent(RUNNING), model.money_left(RUNNING), model.seconds_left(RUNNING)) == (
        6_000,
        24_000,
        240,
    )
    assert (model.spent(lease()), model.money_left(lease()), model.seconds_left(lease())) == (900, 29_100, 0)
    assert model.share_used(RUNNING) == 0.2


def test_statistics_count_what_was_rented_and_not_what_was_served() -> None:
    found = model.statistics([RUNNING, lease(), lease(role="provider", phase="running")])
    assert (found.active, found.spent_qu, found.seconds, found.qu_per_hour) == (1, 6_900, 69, 360_000)
    assert "1 active" in found.words()


def test_what_goes_on_comes_first_and_the_newest_first() -> None:
    old = lease(lease_id="a" * 64, opened_at_ms=1)
    new = lease(lease_id="b" * 64, opened_at_ms=2)
    assert model.ordered([old, new, RUNNING]) == [RUNNING, new, old]


@given(st.floats(0, 1), st.integers(1, 40))
def test_a_bar_is_as_wide_as_it_should_be(share: float, width: int) -> None:
    assert len(model.bar(share, width)) == width


# --- the calculator ---------------------------------------------------------------------------


def test_a_bill_follows_the_price_and_ends_with_the_deposit() -> None:
    bill = model.bill_after(RUNNING, 60)
    assert (bill.seconds, bill.cost, bill.fee, bill.comes_back, bill.capped) == (
        120,
        12_000,
        600,
        18_000,
        False,
    )
    assert model.bill_after(RUNNING, 1_000_000) == model.Bill(300, 30_000, 1_500, 0, True)


@given(st.integers(0, 10**7), st.integers(0, 10**6), st.integers(1, 10**6), st.integers(0, 10**6))
def test_a_bill_never_leaves_the_deposit(more: int, price: int, rented: int, used: int) -> None:
    deposit = max(1, price * rented // 3_600)
    seconds = min(used, rented)
    one = lease(
        phase="running", settled=False, price_qu_per_hour=price, max_seconds=rented, deposit=deposit,
        seconds=seconds, promised=min(deposit, price * seconds // 3_600),
    )  # fmt: skip
    bill = model.bill_after(one, more)
    assert one.promised <= bill.cost <= deposit
    assert bill.cost + bill.comes_back == deposit


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5_400), ("1h30m", 5_400), ("2", 7_200), ("2.5 h", 9_000), ("45s", 45)]
)
def test_spans_as_people_write_them(text: str, seconds: int) -> None:
    assert model.parse_span(text) == seconds


@given(st.text(max_size=30))
def test_any_span_is_taken_or_refused(text: str) -> None:
    try:
        assert 0 < model.parse_span(text) <= model.MAX_SECONDS
    except UsageError as error:
        assert safe_text(str(error)) == str(error)


@pytest.mark.parametrize("text", ["12000", "12,000", "12_000", "12 000", "12000 QU"])
def test_amounts_as_people_write_them(text: str) -> None:
    assert model.parse_qu(text) == 12_000


@pytest.mark.parametrize("text", ["", "-1", "1.5", "١٢", "1e3", HOSTILE])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        model.parse_qu(text)


# --- graphs -----------------------------------------------------------------------------------

VALUES = st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), max_size=50)


@given(VALUES, st.integers(-1, 120), st.integers(-1, 20), st.floats(0, 1e6))
def test_a_plot_is_never_larger_than_its_room(
    values: list[float | None], width: int, height: int, top: float
) -> None:
    series = graph.Series("x", "MB", [(at * 1_000, value) for at, value in enumerate(values)], top)
    made = graph.plot(series, 0, 50_000, width, height)
    assert len(made.rows) <= max(0, height - 1)
    assert {len(row.label + row.dots) for row in made.rows} | {len(made.below)} <= {width, 0}


def test_a_full_and_an_empty_half() -> None:
    series = graph.Series("use", "%", [(0, 100.0), (1_000, 100.0), (2_000, 0.0), (3_000, 0.0)], 100)
    rows = graph.plot(series, 0, 4_000, 9 + 5, 3).rows
    assert [row.label for row in rows] == ["100 %│", "    0│"]
    assert rows[0].dots[1] == "⣿" and rows[0].dots[-1] == " "
    assert rows[1].dots[-2] == "⣀"


def test_where_nothing_was_measured_nothing_is_drawn() -> None:
    series = graph.Series("use", "%", [(at * 1_000, 50.0) for at in range(10)], 100)
    assert graph.resampled(series.points, 0, 100_000, 10)[2:] == [None] * 8
    assert graph.plot(series, 0, 100_000, 30, 4).rows[-1].dots.rstrip() != ""


def test_only_what_is_too_hot_is_marked() -> None:
    series = graph.Series("temperature", "°C", [(0, 60.0), (1_000, 95.0)], 100, 87)
    top, low = graph.plot(series, -1_000, 1_000, 7 + 4, 3).rows
    assert top.hot == (False, False, False, True) and low.hot == ()


@pytest.mark.parametrize(
    ("highest", "unit", "top"),
    [
        (15_900, "MB", "20 GB"),
        (330, "W", "400 W"),
        (0, "W", "1 W"),
        (900, "MB", "1,000 MB"),
        (1e6, "B/s", "1.0 MB/s"),
    ],
)
def test_an_axis_ends_at_a_round_number(highest: float, unit: str, top: str) -> None:
    series = graph.Series("x", unit, [(1, highest)])
    assert graph.number(graph.top_of(series, 0, 2), unit) == top


def test_a_curve_in_words() -> None:
    series = graph.Series("temperature", "°C", [(1, 60.0), (2, 90.0), (3, None)], hot=85)
    assert graph.summary(series, 0, 10) == "90 °C, mean 75 °C, most 90 °C, HOT"
    assert graph.summary(graph.Series("x", "", []), 0, 10) == "not told"


# --- the log ----------------------------------------------------------------------------------


def fed(*chunks: bytes) -> logs.LogBuffer:
    buffer = logs.LogBuffer()
    for chunk in chunks:
        buffer.feed(chunk)
    return buffer


def test_lines_come_whole_and_a_character_may_be_split() -> None:
    euro = "€".encode()
    buffer = fed(b"one\ntw", b"o " + euro[:1], euro[1:] + b"\nthree")
    assert buffer.tail(9) == ["one", "two €", "three"]
    buffer.feed(b"", final=True)
    assert buffer.text() == "one\ntwo €\nthree"


def test_a_progress_bar_is_one_line_as_it_ends_up() -> None:
    assert fed(b"start\r\n 10 %\r 50 %\r", b"100 %\r\nend\n").tail(9) == ["start", "100 %", "end"]
    assert fed(b" 10 %\r 50 %").tail(9) == [" 50 %"]


def test_colours_go_and_other_sequences_are_written_out() -> None:
    buffer = fed(b"\x1b[1;31mred\x1b[0m \x1b[2J\x1b]0;owned\x07\n\x1b[3", b"2mgreen\n")
    assert buffer.tail(2) == ["red \\x1b[2J\\x1b]0;owned\\x07", "green"]


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_no_bytes_reach_the_terminal_raw(chunks: list[bytes]) -> None:
    buffer = fed(*chunks)
    buffer.feed(b"", final=True)
    for line in buffer.tail(10_000):
        assert safe_text(line) == line and "\n" not in line and "\t" not in line


@given(st.binary(max_size=300), st.integers(1, 20))
def test_it_does_not_matter_how_a_log_is_cut(data: bytes, size: int) -> None:
    whole = fed(data)
    pieces = fed(*(data[at : at + size] for at in range(0, len(data), size)))
    whole.feed(b"", final=True)
    pieces.feed(b"", final=True)
    assert whole.text() == pieces.text()


def test_a_log_does_not_grow_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_LINES", 10)
    buffer = fed(b"".join(b"%d\n" % number for number in range(25)))
    assert (len(buffer), buffer.dropped, buffer.line(0)) == (10, 15, "15")


def test_a_line_without_end_is_cut_and_kept_small() -> None:
    buffer = logs.LogBuffer()
    for _ in range(200):
        buffer.feed(b"x" * 10_000)
    assert buffer.line(0) == "x" * logs.MAX_LINE_CHARS
    assert len(buffer._pending) <= logs.MAX_PENDING_CHARS


def test_words_are_found_wherever_they_stand() -> None:
    buffer = fed(b"Epoch 1\nloss 0.5\nepoch 2\n[a-z]\n")
    assert buffer.find("EPOCH") == [0, 2]
    assert buffer.find("[a-z]") == [3]
    assert buffer.find("") == []
    assert list(logs.places("aXbxa", "x")) == [(1, 2), (3, 4)]
