"""Finds offers among many: which match a filter, how many, and the first of them in any order.

Every fact of every live offer stands in a column of bit slices (book_bits.py); offers have slots, and a
freed slot is used again. Answers are those of `protocol.query.matches` and `order`, ties by the provider's
number, whatever the facts and the filter (tests/property/test_book_index.py).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from protocol.query import FIELDS, Condition, Filter, SortKey, Value
from protocol.units import PeerKey, UnixMs
from qubixd.book_bits import Column, Table, slots_of
from qubixd.book_facts import MEASURED, NAMES, NUMBERS, Names, Steps
from qubixd.book_record import number_of

_FLIPPED: Final = {">=": "<=", "<=": ">=", ">": "<", "<": ">"}
_TIE_BITS: Final = 32
"""Of a provider's number; so few share them that the rest is left to sorting."""
_ALL: Final = -1
"""The set of all slots there may ever be."""

Order = tuple[Column, int, bool]
"""What to sort by, the slots where it is known, and whether the largest comes first."""


class Ask(NamedTuple):
    """What a live offer asks."""

    provider: PeerKey
    gpu: str
    """Its class as `query.gpu_key` makes it."""
    price: int
    """QU an hour of each GPU, or of a machine without."""
    gpus: int


class Words:
    """Names as small numbers, as long as some offer has them. 0 stands for no name."""

    def __init__(self) -> None:
        self._codes = {"": 0}
        self._words = [""]
        self._uses = [0]
        self._free: list[int] = []

    def take(self, word: str) -> int:
        code = self._codes.get(word)
        if code is None:
            code = self._free.pop() if self._free else self._grow()
            self._codes[word], self._words[code] = code, word
        self._uses[code] += 1
        return code

    def give_back(self, code: int) -> None:
        if not code:
            return
        self._uses[code] -= 1
        if not self._uses[code]:
            del self._codes[self._words[code]]
            self._words[code] = ""
            self._free.append(code)

    def code(self, word: Value) -> int:
        """-1 if no offer has that name."""
        return self._codes.get(word, -1) if isinstance(word, str) and word else -1

    def word(self, code: int) -> str:
        return self._words[code]

    def _grow(self) -> int:
        self._words.append("")
        self._uses.append(0)
        return len(self._words) - 1


_TIE: Final = "tie"
_KNOWN: Final = {field: f"{field} is known" for field in MEASURED}
_COLUMNS: Final = {name: place for place, name in enumerate((*NUMBERS, *NAMES, *_KNOWN.values(), _TIE))}
_NOBODY: Final = PeerKey(b"")
_FIRST_NAME: Final = len(NUMBERS)
_MEASURED_PLACES: Final = tuple(map(NUMBERS.index, MEASURED))


class Index:
    """Live offers by their provider's number."""

    def __init__(self) -> None:
        self._slots: dict[int, int] = {}
        self._free: list[int] = []
        self._numbers = array("q")
        self._providers: list[PeerKey] = []
        self._table = Table(len(_COLUMNS))
        self._alive = Table(1)
        """1 for slots in use; by itself, since nothing else changes when an offer goes."""
        self._words = tuple(Words() for _ in NAMES)

    def put(self, number: int, provider: PeerKey, numbers: Steps, names: Names) -> None:
        """A new offer, or another one of the same provider."""
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = self._free.pop() if self._free else self._grow()
            self._numbers[slot], self._providers[slot] = number, provider
            self._alive.write(slot, [1])
        else:
            self._forget_names(slot)
        row = [steps or 0 for steps in numbers]
        for words, name in zip(self._words, names, strict=True):
            row.append(words.take(name))
        for place in _MEASURED_PLACES:
            row.append(numbers[place] is not None)
        row.append((number + 2**63) >> (64 - _TIE_BITS))
        self._table.write(slot, row)

    def set(self, number: int, field: str, steps: int) -> None:
        """A figure that was measured."""
        slot = self._slots[number]
        row = self._table.row(slot)
        row[_COLUMNS[field]], row[_COLUMNS[_KNOWN[field]]] = steps, 1
        self._table.write(slot, row)

    def remove(self, number: int) -> None:
        slot = self._slots.pop(number)
        self._forget_names(slot)
        self._alive.write(slot, [0])
        self._free.append(slot)

    def search(
        self, filter: Filter, sort: Sequence[SortKey], start: int, limit: int, now: UnixMs
    ) -> tuple[list[int], int]:
        """(providers' numbers from place `start` on, how many match in all). Ties go by provider's number."""
        found = self._live()
        for condition in filter.conditions:
            found = self._holds(condition, found, now)
            if not found:
                return [], 0
        orders = [self._order(key) for key in sort]
        first = _first(found, [*orders, (self._column(_TIE), _ALL, False)], start + limit)
        slots = sorted(slots_of(first), key=lambda slot: self._place(slot, orders))
        return [self._numbers[slot] for slot in slots[start : start + limit]], found.bit_count()

    def asks(self) -> list[Ask]:
        """Of every live offer, in no particular order."""
        columns, word = self._table.columns(), self._words[NAMES.index("gpu")].word
        gpu, price, gpus = (columns[_COLUMNS[name]].codes for name in ("gpu", "price", "gpus"))
        slots = self._slots.values()
        return [Ask(self._providers[slot], word(gpu[slot]), price[slot], gpus[slot]) for slot in slots]

    def _live(self) -> int:
        return self._alive.columns()[0].equal(1, (1 << len(self._table)) - 1)

    def _column(self, name: str) -> Column:
        return self._table.columns()[_COLUMNS[name]]

    def _grow(self) -> int:
        self._numbers.append(0)
        self._providers.append(_NOBODY)
        self._alive.append()
        return self._table.append()

    def _forget_names(self, slot: int) -> None:
        row = self._table.row(slot)
        for words, code in zip(self._words, row[_FIRST_NAME:], strict=False):
            words.give_back(code)

    # --- conditions ---------------------------------------------------------------------------

    def _holds(self, condition: Condition, among: int, now: UnixMs) -> int:
        field = condition.field
        if condition.operator == "!=":
            return self._is_known(field, among) & ~self._any(field, condition.values, among, now)
        if condition.operator in ("=", "in"):
            return self._is_known(field, self._any(field, condition.values, among, now))
        return self._compared(field, condition.operator, condition.values[0], among, now)

    def _any(self, field: str, values: Sequence[Value], among: int, now: UnixMs) -> int:
        found = 0
        for value in values:
            if field == "provider":
                found |= self._of_provider(str(value)) & among
            elif FIELDS[field].units is None:
                for column in ("gpu", "gpu_model") if field == "gpu" else (field,):
                    code = self._words[NAMES.index(column)].code(value)
                    found |= self._column(column).equal(code, among)
            else:
                steps = _steps(field, value, now)
                if steps == int(steps):
                    found |= self._number(field).equal(int(steps), among)
        return found

    def _of_provider(self, hexadecimal: str) -> int:
        key = bytes.fromhex(hexadecimal)
        slot = self._slots.get(number_of(key))
        return 1 << slot if slot is not None and self._providers[slot] == key else 0

    def _compared(self, field: str, operator: str, value: Value, among: int, now: UnixMs) -> int:
        steps = _steps(field, value, now)
        if field == "age":  # the older, the earlier it was issued
            operator = _FLIPPED[operator]
        bound = math.ceil(steps) if operator in (">=", "<") else math.floor(steps) + 1
        known = self._is_known(field, among)
        above = self._number(field).at_least(bound, known)
        return above if operator in (">=", ">") else known ^ above

    def _is_known(self, field: str, among: int) -> int:
        if field in MEASURED:
            return self._column(_KNOWN[field]).equal(1, among)
        if field in NAMES:
            return among ^ self._column(field).equal(0, among)
        return among

    def _number(self, field: str) -> Column:
        return self._column("issued" if field == "age" else field)

    # --- order --------------------------------------------------------------------------------

    def _order(self, key: SortKey) -> Order:
        known = self._is_known(key.field, self._live())
        return self._number(key.field), known, key.descending != (key.field == "age")

    def _place(self, slot: int, orders: Sequence[Order]) -> tuple[tuple[bool, int], ...]:
        places = [
            (False, -column.codes[slot] if descending else column.codes[slot])
            if known >> slot & 1
            else (True, 0)
            for column, known, descending in orders
        ]
        return (*places, (False, self._numbers[slot]))


def _steps(field: str, value: Value, now: UnixMs) -> Decimal:
    """A number of a condition in the column's steps, exactly as it was written."""
    if field == "age":
        return now // 1_000 - Decimal(repr(value))
    return Decimal(repr(value)) * FIELDS[field].step


def _first(among: int, orders: Sequence[Order], most: int) -> int:
    """The first `most` of the slots `among`, and a few more if they are equal in every order."""
    if not orders or among.bit_count() <= most:
        return among
    (column, known, descending), later = orders[0], orders[1:]
    sure, ties = column.first(most, among & known, descending)
    left = most - sure.bit_count()
    if ties:
        return sure | _first(ties, later, left)
    return sure | _first(among & ~known, later, left) if left else sure
