"""Bit slices against lists: changes of every size and place, comparisons, and the first so many."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qubixd.book_bits import BATCH, DENSE, Column, Table, set_of, slots_of

SLOTS = 40
codes = st.integers(0, 5) | st.sampled_from([127, 128, 255, 256, 2**32 - 1, 2**53, 2**63 - 1])


def column_of(numbers: list[int]) -> Column:
    column = Column()
    column.codes.extend([0] * len(numbers))
    column.change(range(len(numbers)), numbers)
    return column


@settings(max_examples=200)
@given(
    st.lists(st.dictionaries(st.integers(0, SLOTS - 1), codes, min_size=1), max_size=6),
    st.sets(st.integers(0, SLOTS - 1)),
    codes,
    st.integers(1, SLOTS),
    st.booleans(),
)
def test_a_column_answers_as_a_list(
    changes: list[dict[int, int]], among: set[int], bound: int, most: int, descending: bool
) -> None:
    column, numbers = column_of([0] * SLOTS), [0] * SLOTS
    for change in changes:
        column.change(list(change), list(change.values()))
        for slot, code in change.items():
            numbers[slot] = code
    chosen = set_of(list(among))
    assert list(column.codes) == numbers
    assert set(slots_of(column.at_least(bound, chosen))) == {s for s in among if numbers[s] >= bound}
    assert set(slots_of(column.equal(bound, chosen))) == {s for s in among if numbers[s] == bound}
    sure, ties = (set(slots_of(found)) for found in column.first(most, chosen, descending))
    right = sorted(among, key=lambda slot: -numbers[slot] if descending else numbers[slot])[:most]
    assert sure <= set(slots_of(chosen)) and len(sure) <= most and not sure & ties
    assert len({numbers[slot] for slot in ties}) <= 1 and len(sure | ties) >= len(right)
    taken = sorted([numbers[slot] for slot in sure] + [numbers[slot] for slot in ties][: most - len(sure)])
    assert taken == sorted(numbers[slot] for slot in right)


@pytest.mark.parametrize("spread", [1, DENSE - 1, DENSE + 1])
@pytest.mark.parametrize("upwards", [True, False])
def test_thousands_of_changes_at_once(spread: int, upwards: bool) -> None:
    lots = random.Random(spread)
    column = column_of([lots.getrandbits(40) for _ in range(8 * BATCH)])
    slots = list(range(5, 5 + spread * BATCH, spread))[:: 1 if upwards else -1]
    column.change(slots, [lots.getrandbits(45) for _ in slots])
    everything = (1 << len(column.codes)) - 1
    for bound in (0, 1, 2**39, 2**44, 2**45):
        right = [slot for slot, code in enumerate(column.codes) if code >= bound]
        assert list(slots_of(column.at_least(bound, everything))) == right


def test_numbers_below_and_beyond_all_digits() -> None:
    column = column_of([3, 0])
    assert column.at_least(-1, 0b11) == 0b11 and column.at_least(4, 0b11) == 0
    assert column.equal(-1, 0b11) == column.equal(4, 0b11) == 0
    assert column_of([0]).equal(0, 1) == 1


def test_a_row_is_what_was_written_last() -> None:
    table = Table(2)
    for slot in range(3 * BATCH):
        assert table.append() == slot
        table.write(slot, [slot, 1])
        assert table.row(slot) == [slot, 1]
    table.write(7, [9, 0])
    assert table.row(7) == [9, 0] and len(table) == 3 * BATCH
    first, second = table.columns()
    assert table.row(7) == [9, 0] and table.row(8) == [8, 1]
    assert list(slots_of(first.equal(9, (1 << 20) - 1))) == [7, 9]
    assert second.at_least(1, (1 << len(table)) - 1).bit_count() == 3 * BATCH - 1


@given(st.sets(st.integers(0, 5_000)))
def test_sets_of_slots(slots: set[int]) -> None:
    assert list(slots_of(set_of(list(slots)))) == sorted(slots)
