"""The policy that clears away jobs' images, whatever images there are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from protocol.units import UnixMs
from qubixd.runner.image_tidy import DAY_MS, LEAST_IDLE_MS, Brought, ImageBook, Policy, to_remove

NOW = UnixMs(1_000 * DAY_MS)
DISK = 10_000
KEPT = "kept:latest"

IDS = [f"sha256:{number}" for number in range(8)]
policies = st.builds(Policy, st.floats(0, 1), st.floats(0, 40), st.sampled_from([(), ("kept",), ("other",)]))
ages = st.integers(0, 60 * DAY_MS) | st.integers(LEAST_IDLE_MS - 2, LEAST_IDLE_MS + 2)
images = st.builds(
    Brought,
    st.sampled_from(IDS),
    st.lists(st.sampled_from([KEPT, "a:1", "b:2"]), max_size=2).map(tuple),
    st.integers(0, DISK),
    ages.map(lambda age: UnixMs(NOW - age)),
)
lists = st.lists(images, max_size=8, unique_by=lambda one: one.image_id)
uses = st.sets(st.sampled_from(IDS))


def free(one: Brought, in_use: set[str], policy: Policy) -> bool:
    kept = "kept" in policy.keep and KEPT in one.names
    return one.image_id not in in_use and not kept and NOW - one.used >= LEAST_IDLE_MS


@given(lists, uses, policies)
def test_only_what_may_go_goes_and_the_limit_holds_if_it_can(
    found: list[Brought], in_use: set[str], policy: Policy
) -> None:
    by_id = {one.image_id: one for one in found}
    gone = to_remove(found, in_use, policy, DISK, NOW)
    assert len(set(gone)) == len(gone) and all(free(by_id[one], in_use, policy) for one in gone)
    left = [one for one in found if one.image_id not in gone]
    still_free = [one for one in left if free(one, in_use, policy)]
    assert sum(one.size for one in left) <= int(policy.share * DISK) or not still_free
    assert all(NOW - one.used <= policy.idle_days * DAY_MS for one in still_free)


@given(lists, uses, policies)
def test_the_longest_unused_go_first_and_none_for_nothing(
    found: list[Brought], in_use: set[str], policy: Policy
) -> None:
    by_id = {one.image_id: one for one in found}
    gone = [by_id[one] for one in to_remove(found, in_use, policy, DISK, NOW)]
    assert gone == sorted(gone, key=lambda one: (one.used, one.image_id))
    left = [one for one in found if one not in gone]
    for one in gone:
        newer_kept = [other for other in left if other.used < one.used and free(other, in_use, policy)]
        assert not newer_kept
    if gone and NOW - gone[-1].used <= policy.idle_days * DAY_MS:
        before_last = sum(one.size for one in (*left, gone[-1]))
        assert before_last > int(policy.share * DISK)


@given(lists, uses, policies)
def test_the_order_in_which_images_are_told_does_not_matter(
    found: list[Brought], in_use: set[str], policy: Policy
) -> None:
    assert to_remove(found, in_use, policy, DISK, NOW) == to_remove(found[::-1], in_use, policy, DISK, NOW)


# The book --------------------------------------------------------------------------------------


def test_the_book_outlives_the_daemon(tmp_path: Path) -> None:
    book = ImageBook(tmp_path / "state" / "images.json")
    book.bring("sha256:a", "one:1", 7, UnixMs(5))
    book.bring("sha256:b", "two:1", 8, UnixMs(6))
    book.use("sha256:a", UnixMs(9), "alias:1")
    book.use("sha256:stranger", UnixMs(9))
    book.forget("sha256:b")
    expected = [Brought("sha256:a", ("one:1", "alias:1"), 7, UnixMs(9))]
    assert ImageBook(tmp_path / "state" / "images.json").all() == book.all() == expected


def test_a_use_that_is_told_late_does_not_make_an_image_older(tmp_path: Path) -> None:
    book = ImageBook(tmp_path / "images.json")
    book.bring("sha256:a", "one:1", 7, UnixMs(5))
    book.use("sha256:a", UnixMs(3))
    assert book.all() == [replace(book.all()[0], used=UnixMs(5))]


def test_a_book_that_cannot_be_read_names_nothing(tmp_path: Path) -> None:
    half = b'{"brought": [{"image_id": 1}], "expected": {}}'
    for number, broken in enumerate((b"", b"{", half, b"\xff", b"[1]", b'{"brought": [], "expected": 1}')):
        path = tmp_path / str(number)
        path.write_bytes(broken)
        assert ImageBook(path).all() == []


def test_a_pull_whose_end_nobody_saw_is_told_of_later(tmp_path: Path) -> None:
    book = ImageBook(tmp_path / "images.json")
    for name in ("came:1", "cut:1", "gone:1"):
        book.expect(name, UnixMs(5))
    book.bring("sha256:a", "came:1", 7, UnixMs(6))
    book.no_more_expect("gone:1")
    again = ImageBook(tmp_path / "images.json")
    assert again.overdue(UnixMs(4 + LEAST_IDLE_MS)) == []
    assert again.overdue(UnixMs(5 + LEAST_IDLE_MS)) == ["cut:1"]


def test_a_book_that_cannot_be_written_still_holds(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    book = ImageBook(tmp_path / "file" / "images.json")
    book.bring("sha256:a", "one:1", 7, UnixMs(5))
    assert [one.image_id for one in book.all()] == ["sha256:a"]
