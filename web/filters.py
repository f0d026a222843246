"""The market's filter language as SQL, for SQLite and PostgreSQL alike. Pure.

Means what `protocol.query.matches` and `order` mean, for offers as ledger/mirror_schema.py keeps them
(tests/property/test_web_filters.py). Whole numbers are compared with whole numbers, as exactly as they were
written. Ties go by the provider's key, so that every order is a total one and can be gone on with anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from ledger.mirror_schema import NAMES, NUMBERS
from protocol.query import FIELDS, Condition, Filter, SortKey, Value

Param = int | str | bytes
Place = tuple[int | None, ...]
"""Where an offer stands in an order: its number in each of the columns, None where it is not known."""

NEVER: Final = "0 = 1"
UNMEASURED: Final = ("rtt",)
"""Fields that only a caller's own node knows: here they are not known of anybody."""
NULLABLE: Final = ("score", "reliability")
_FLIPPED: Final = {">=": "<=", "<=": ">=", ">": "<", "<": ">"}
_MOST: Final = 2**62
"""Beyond every number of an offer, within what databases count with."""

assert set(FIELDS) - {"provider", "age", *UNMEASURED} <= {*NUMBERS, *NAMES}


@dataclass(frozen=True)
class Column:
    """One thing to sort by."""

    name: str
    descending: bool

    @property
    def nullable(self) -> bool:
        return self.name in NULLABLE


@dataclass(frozen=True)
class Order:
    """A total order of offers; the smallest first, unknown last, then by provider's key."""

    columns: tuple[Column, ...]

    @property
    def sql(self) -> str:
        """What comes after ORDER BY."""
        keys = [
            f"{column.name}{' DESC' * column.descending}{' NULLS LAST' * column.nullable}"
            for column in self.columns
        ]
        return ", ".join([*keys, "peer"])

    def key(self, stands: tuple[Place, bytes]) -> tuple[tuple[tuple[bool, int], ...], bytes]:
        """Sorts (place, peer) in the same way."""
        place, peer = stands
        return tuple(map(_number_key, self.columns, place)), peer

    def after(self, place: Place, peer: bytes) -> tuple[str, tuple[Param, ...]]:
        """The condition of all that come after `peer`, which stands (or stood) at `place`."""
        sql: str = "peer > ?"
        params: list[Param] = [peer]
        for column, value in reversed(list(zip(self.columns, place, strict=True))):
            sql, params = _later(column, value, sql, params)
        return sql, tuple(params)


def where_of(filter: Filter, now_ms: int) -> tuple[str, tuple[Param, ...]]:
    """A condition on rows of `offers`, with its values; "1 = 1" for no conditions."""
    parts = [_condition(condition, now_ms // 1_000) for condition in filter.conditions]
    sql = " AND ".join(sql for sql, _ in parts)
    return sql or "1 = 1", tuple(param for _, params in parts for param in params)


def order_of(sort: Iterable[SortKey]) -> Order:
    """The order that sort keys say. What is not known of anybody, or was said before, sorts nothing."""
    columns: dict[str, Column] = {}
    for key in sort:
        if key.field not in UNMEASURED:
            name = "issued" if key.field == "age" else key.field
            columns.setdefault(name, Column(name, key.descending != (key.field == "age")))
    return Order(tuple(columns.values()))


def _number_key(column: Column, value: int | None) -> tuple[bool, int]:
    if value is None:
        return True, 0
    return False, -value if column.descending else value


def _later(column: Column, value: int | None, rest: str, params: list[Param]) -> tuple[str, list[Param]]:
    """After `value` in this column, or equal in it and `rest` holds."""
    name, beyond = column.name, "<" if column.descending else ">"
    if value is None:
        return f"({name} IS NULL AND {rest})", params
    unknown = f" OR {name} IS NULL" if column.nullable else ""
    # The first half is contained in the second; an index finds its place by it.
    within = f"({name} {beyond}= ?{unknown})"
    return (
        f"({within} AND ({name} {beyond} ?{unknown} OR ({name} = ? AND {rest})))",
        [value, value, value, *params],
    )


# --- conditions -----------------------------------------------------------------------------------

_Sql = tuple[str, list[Param]]


def _condition(condition: Condition, now_s: int) -> _Sql:
    field = condition.field
    if field in UNMEASURED:
        return NEVER, []
    if field == "provider":
        return _listed(
            ["peer"], [bytes.fromhex(str(value)) for value in condition.values], condition.operator
        )
    if FIELDS[field].units is None:
        columns = ["gpu", "gpu_model"] if field == "gpu" else [field]
        return _named(columns, [str(value) for value in condition.values], condition.operator)
    return _number(condition, now_s)


def _named(columns: Sequence[str], words: Sequence[str], operator: str) -> _Sql:
    sql, params = _listed(columns, [word for word in words if word], operator)
    if operator == "!=":  # no name is no name that differs
        known = " OR ".join(f"{column} <> ''" for column in columns)
        return f"({known}) AND {sql}", params
    return sql, params


def _listed(columns: Sequence[str], values: Sequence[Param], operator: str) -> _Sql:
    if not values:
        return ("1 = 1" if operator == "!=" else NEVER), []
    marks = ", ".join("?" * len(values))
    found = " OR ".join(f"{column} IN ({marks})" for column in columns)
    sql = f"NOT ({found})" if operator == "!=" else f"({found})"
    return sql, [*values] * len(columns)


def _number(condition: Condition, now_s: int) -> _Sql:
    field, operator = condition.field, condition.operator
    column = "issued" if field == "age" else field
    wanted = [_steps(field, value, now_s) for value in condition.values]
    if operator in ("=", "in", "!="):
        whole: list[Param] = [_bounded(int(steps)) for steps in wanted if steps == int(steps)]
        sql, params = _listed([column], whole, operator)
        known = f" AND {column} IS NOT NULL" if operator == "!=" and column in NULLABLE else ""
        return sql + known, params
    if field == "age":  # the older, the earlier it was issued
        operator = _FLIPPED[operator]
    rounded = math.ceil(wanted[0]) if operator in (">=", "<") else math.floor(wanted[0])
    return f"{column} {operator} ?", [_bounded(rounded)]


def _steps(field: str, value: Value, now_s: int) -> Decimal:
    """A number of a condition in the column's steps, exactly as it was written."""
    number = Decimal(repr(value))
    return now_s - number if field == "age" else number * FIELDS[field].step


def _bounded(number: int) -> int:
    return max(-_MOST, min(number, _MOST))
