"""The host against facts of a genuine node: the hash containers, slot by slot."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

import pytest
from Crypto.Hash import KangarooTwelve

from escrow_bridge.devnet.host import Host
from tests.support.probes import MAPS, NULL_ID, new_chain, run

SET, GET, REMOVE, NEXT, CLEANUP, KEY_AT, REPLACE, RESET, ADD_TO_SET, REMOVE_FROM_SET, SET_HASHED = range(11)
CAPACITY = 8


def key(first_word: int, tail: int = 1) -> bytes:
    """A key whose slot is first_word & 7."""
    return first_word.to_bytes(8, "little") + tail.to_bytes(24, "little")


@dataclass(frozen=True)
class Result:
    index: int
    value: int
    key: bytes
    population: int
    found: bool
    needs_cleanup: bool


class Map:
    """The probe's containers, operated one procedure call at a time."""

    def __init__(self) -> None:
        self.chain: Host = new_chain()

    def do(self, what: int, key: bytes = NULL_ID, value: int = 0, index: int = 0) -> Result:
        payload = struct.pack("<I4xQq32s", what, value, index, key)
        return Result(*struct.unpack("<qQ32sQ??6x", run(self.chain, MAPS, 1, payload)))

    def set(self, key: bytes, value: int = 0) -> int:
        return self.do(SET, key, value).index

    def remove(self, key: bytes) -> int:
        return self.do(REMOVE, key).index

    def indexes(self) -> list[int]:
        found, index = [], -1
        while (index := self.do(NEXT, index=index).index) != -1:
            found.append(index)
        return found


@pytest.fixture
def table() -> Map:
    return Map()


def test_set_gives_the_slot(table: Map) -> None:
    assert [table.set(key(word)) for word in (3, 7, 8 + 3)] == [3, 7, 4]


def test_probing_goes_round(table: Map) -> None:
    assert [table.set(key(7, tail)) for tail in range(3)] == [7, 0, 1]


def test_the_full_capacity_is_usable_and_then_only_new_keys_fail(table: Map) -> None:
    assert sorted(table.set(key(5, tail), tail) for tail in range(CAPACITY)) == list(range(CAPACITY))
    assert table.set(key(5, 99)) == -1
    slot = table.set(key(5, 2), 1_000)
    assert slot == 7
    assert table.do(GET, key(5, 2)).value == 1_000
    assert table.do(GET, key(5, 2)).population == CAPACITY


def test_a_miss_leaves_the_value_untouched(table: Map) -> None:
    missed = table.do(GET, key(1), value=4_321)
    assert (missed.found, missed.value, missed.index) == (False, 4_321, -1)


def test_the_zero_id_is_a_legal_key(table: Map) -> None:
    assert table.set(NULL_ID, 6) == 0
    assert table.do(GET, NULL_ID).value == 6
    assert table.remove(NULL_ID) == 0
    assert not table.do(GET, NULL_ID).found


def test_remove_gives_the_slot_and_zeroes_it(table: Map) -> None:
    table.set(key(3), 77)
    assert table.remove(key(3)) == 3
    assert table.remove(key(3)) == -1
    slot = table.do(KEY_AT, index=3)
    assert (slot.key, slot.value, slot.found) == (NULL_ID, 0, True)
    assert table.chain.state(MAPS)[3 * 40 : 4 * 40] == bytes(40)


def test_a_removed_slot_is_probed_over_and_taken_again(table: Map) -> None:
    for tail in range(3):
        table.set(key(2, tail), tail)
    table.remove(key(2, 0))
    assert table.do(GET, key(2, 2)).index == 4, "the search does not stop at the gap"
    assert table.set(key(2, 1)) == 3, "a key that is there is overwritten where it is"
    assert table.set(key(2, 9)) == 2, "a new one takes the gap"


def test_indexes_come_in_slot_order(table: Map) -> None:
    assert table.indexes() == []
    for word in (7, 1, 4, 1 + 8):
        table.set(key(word))
    assert table.indexes() == [1, 2, 4, 7]
    table.remove(key(4))
    assert table.indexes() == [1, 2, 7]


@pytest.mark.parametrize(("percent", "cleaned"), [(50, False), (49, True)])
def test_cleanup_needs_more_removals_than_the_percentage(table: Map, percent: int, cleaned: bool) -> None:
    for tail in range(5):
        table.set(key(0, tail))
    for tail in range(4):
        table.remove(key(0, tail))
    table.do(CLEANUP, value=percent)
    assert table.indexes() == ([0] if cleaned else [4])


def test_taking_a_removed_slot_again_does_not_lower_the_count_of_removals(table: Map) -> None:
    for _ in range(5):
        table.set(key(0))
        table.remove(key(0))
    assert table.do(GET).needs_cleanup
    table.do(CLEANUP, value=50)
    assert not table.do(GET).needs_cleanup


def test_replace_only_replaces(table: Map) -> None:
    assert not table.do(REPLACE, key(1), 5).found
    table.set(key(1), 4)
    assert table.do(REPLACE, key(1), 5).found
    assert table.do(GET, key(1)).value == 5


def test_reset_empties(table: Map) -> None:
    table.set(key(1), 4)
    assert table.do(RESET).population == 0
    assert table.chain.state(MAPS) == bytes(len(table.chain.state(MAPS)))


def test_a_set_is_a_map_without_values(table: Map) -> None:
    assert [table.do(ADD_TO_SET, key(3, tail)).index for tail in (1, 2, 1)] == [3, 4, 3]
    assert [table.do(REMOVE_FROM_SET, key(3, tail)).index for tail in (1, 9)] == [3, -1]


def test_keys_other_than_ids_are_hashed(table: Map) -> None:
    digest = KangarooTwelve.new(data=(12_345).to_bytes(8, "little")).read(8)
    slot = int.from_bytes(digest, "little") & (CAPACITY - 1)
    assert table.do(SET_HASHED, key(12_345)).index == slot


@pytest.mark.parametrize("seed", range(4))
def test_any_sequence_does_what_a_dict_does(table: Map, seed: int) -> None:
    dice, expected = random.Random(seed), dict[bytes, int]()
    keys = [key(dice.randrange(12), tail) for tail in range(12)]
    for step in range(300):
        chosen = dice.choice(keys)
        match dice.randrange(5):
            case 0 | 1:
                fits = chosen in expected or len(expected) < CAPACITY
                assert (table.set(chosen, step) != -1) == fits
                if fits:
                    expected[chosen] = step
            case 2 | 3:
                assert (table.remove(chosen) != -1) == (expected.pop(chosen, None) is not None)
            case _:
                table.do(CLEANUP, value=dice.randrange(100))
        got = table.do(GET, chosen)
        assert (got.found, got.population) == (chosen in expected, len(expected))
        assert not got.found or got.value == expected[chosen]
        assert len(table.indexes()) == len(expected)
