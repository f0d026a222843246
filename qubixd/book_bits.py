"""A column of whole numbers as bit slices: one Python integer for each binary digit, a bit in it a slot.

A comparison of all slots with a number is one AND or OR of such integers a digit, some microseconds each for
100,000 slots; the smallest so many are found digit by digit as well. (P. O'Neil and D. Quass, "Improved
query performance with variant indexes", 1997.) Sets of slots are integers, too: bit n is slot n.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence
from typing import Final

BATCH: Final = 2_048
"""So many rows are worked in at once; it takes some milliseconds."""
DENSE: Final = 4
"""Changes that are no further apart than that on average are worked in as one run of slots."""
FEW: Final = 4
_DIGITS: Final = tuple(bytes(48 + (byte >> bit & 1) for byte in range(256)) for bit in range(8))
"""For each bit of a byte, what it is as a digit: "0" or "1"."""


class Column:
    """Numbers from 0 to 2^63 - 1, one a slot."""

    def __init__(self) -> None:
        self.codes = array("q")
        self._slices: list[int] = []

    def change(self, slots: Sequence[int], codes: Sequence[int]) -> None:
        """Give these slots, each named once, these numbers."""
        low, high = min(slots), max(slots)
        if high - low >= DENSE * len(slots):
            self._change_scattered(slots, codes)
        elif isinstance(slots, range) and slots.step == 1:
            self._change_run(low, array("q", codes))
        else:
            new = self.codes[low : high + 1]
            for slot, code in zip(slots, codes, strict=True):
                new[slot - low] = code
            self._change_run(low, new)
        while self._slices and not self._slices[-1]:
            self._slices.pop()

    def at_least(self, bound: int, among: int) -> int:
        """Those of the slots `among` whose number is that or more."""
        slices = self._slices
        if bound <= 0:
            return among
        if bound.bit_length() > len(slices):
            return 0
        found = among
        for digit, ones in enumerate(slices):  # from the lowest: what is decided there is overruled later
            found = found & ones if bound >> digit & 1 else found | ones
        return found & among

    def equal(self, code: int, among: int) -> int:
        """Those of the slots `among` that have exactly this number."""
        slices = self._slices
        if code < 0 or code.bit_length() > len(slices):
            return 0
        for digit, ones in enumerate(slices):
            with_one = among & ones
            among = with_one if code >> digit & 1 else among ^ with_one
            if not among:
                break
        return among

    def first(self, most: int, among: int, descending: bool) -> tuple[int, int]:
        """The smallest (or largest) of the slots `among`: (some, fewer than `most`, that are surely among the
        first `most`; others that are all equal, from which the rest is to be taken). If there are no more
        than `most`, all are sure."""
        if among.bit_count() <= most:
            return among, 0
        sure, room = 0, most
        for ones in reversed(self._slices):
            with_one = among & ones
            near, far = (with_one, among ^ with_one) if descending else (among ^ with_one, with_one)
            count = near.bit_count()
            if count > room:
                among = near
            else:
                sure, room, among = sure | near, room - count, far
                if not room:
                    return sure, 0
        return sure, among

    def _change_run(self, low: int, new: array[int]) -> None:
        """Slots from `low` on, one behind the other. Of all their numbers' bytes of one significance, one bit
        each is made a binary digit in text, which Python reads as a number."""
        changes = _packed(self.codes[low : low + len(new)]) ^ _packed(new)
        self.codes[low : low + len(new)] = new
        packed = changes.to_bytes(8 * len(new), "little")
        for place in range(8):
            plane = packed[place::8][::-1]
            if plane.count(0) < len(plane):
                self._change_plane(low, 8 * place, plane)

    def _change_plane(self, low: int, first: int, plane: bytes) -> None:
        for bit, digits in enumerate(_DIGITS):
            ones = plane.translate(digits)
            if b"1" in ones:
                self._widen(1 << first + bit)
                self._slices[first + bit] ^= int(ones, 2) << low

    def _change_scattered(self, slots: Sequence[int], codes: Sequence[int]) -> None:
        by_digit: list[list[int]] = [[] for _ in range(64)]
        for slot, code in zip(slots, codes, strict=True):
            left = self.codes[slot] ^ code
            self.codes[slot] = code
            while left:
                lowest = left & -left
                by_digit[lowest.bit_length() - 1].append(slot)
                left ^= lowest
        self._widen(sum(1 << digit for digit, changed in enumerate(by_digit) if changed))
        for digit, changed in enumerate(by_digit):
            if changed:
                self._slices[digit] ^= set_of(changed)

    def _widen(self, most: int) -> None:
        self._slices.extend([0] * (most.bit_length() - len(self._slices)))


class Table:
    """Columns side by side. A row's numbers are written at once; they reach the columns together with those
    of other rows, when somebody looks or when there are many."""

    def __init__(self, width: int) -> None:
        self._columns = tuple(Column() for _ in range(width))
        self._waiting: dict[int, list[int]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self) -> int:
        """One more slot, all 0; its number."""
        if self._length == len(self._columns[0].codes):
            for column in self._columns:
                column.codes.frombytes(bytes(column.codes.itemsize * BATCH))
        self._length += 1
        return self._length - 1

    def row(self, slot: int) -> list[int]:
        """What was written last."""
        waiting = self._waiting.get(slot)
        return list(waiting) if waiting is not None else [column.codes[slot] for column in self._columns]

    def write(self, slot: int, row: list[int]) -> None:
        self._waiting[slot] = row
        if len(self._waiting) >= BATCH:
            self.columns()

    def columns(self) -> tuple[Column, ...]:
        """All columns, with everything that was written."""
        if self._waiting:
            slots: Sequence[int] = list(self._waiting)
            if slots == list(run := range(slots[0], slots[-1] + 1)):  # new ones, as a rule
                slots = run
            for column, codes in zip(self._columns, zip(*self._waiting.values(), strict=True), strict=True):
                column.change(slots, codes)
            self._waiting.clear()
        return self._columns


def _packed(codes: array[int]) -> int:
    """All of them as one number, 64 binary digits each, the first one lowest."""
    if sys.byteorder == "big":
        codes = codes[:]
        codes.byteswap()
    return int.from_bytes(codes.tobytes(), "little")


def set_of(slots: list[int]) -> int:
    """The set of these slots, each of which is named once."""
    if len(slots) <= FEW:
        found = 0
        for slot in slots:
            found |= 1 << slot
        return found
    packed = bytearray((max(slots) >> 3) + 1)
    for slot in slots:
        packed[slot >> 3] |= 1 << (slot & 7)
    return int.from_bytes(packed, "little")


def slots_of(found: int) -> Iterator[int]:
    """The slots of a set, in rising order."""
    text = format(found, "b")[::-1]
    slot = text.find("1")
    while slot >= 0:
        yield slot
        slot = text.find("1", slot + 1)
