"""Filters and sort keys as SQL, for SQLite and PostgreSQL: values travel as parameters, never in the text.

The columns come from whoever asks, for names in the text are theirs and not a stranger's. NULL stands for
what is not known, as it does in the filter language.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from protocol.query import COMPARE, Condition, Filter, SortKey, Value

Columns = Mapping[str, Sequence[str]]
"""Field -> SQL expressions of its value; several if it has several names (the GPU class and its model)."""


def question_mark(number: int) -> str:
    """SQLite's parameters."""
    return "?"


def dollar(number: int) -> str:
    """PostgreSQL's: $1, $2, ..."""
    return f"${number}"


def where(
    filter: Filter, columns: Columns, parameter: Callable[[int], str] = question_mark, first: int = 1
) -> tuple[str, tuple[Value, ...]]:
    """(what follows WHERE, its parameters). `first` is the number of the first of them."""
    values: list[Value] = []

    def marks(wanted: Sequence[Value]) -> str:
        values.extend(wanted)
        last = first + len(values)
        return ", ".join(parameter(number) for number in range(last - len(wanted), last))

    clauses = [_clause(condition, columns[condition.field], marks) for condition in filter.conditions]
    return " AND ".join(clauses) or "TRUE", tuple(values)


def _clause(condition: Condition, names: Sequence[str], marks: Callable[[Sequence[Value]], str]) -> str:
    if condition.operator == "!=":
        others = [f"({name} IS NULL OR {name} <> {marks(condition.values)})" for name in names]
        return f"({names[0]} IS NOT NULL AND {' AND '.join(others)})"
    if condition.operator in ("=", "in"):
        return f"({' OR '.join(f'{name} IN ({marks(condition.values)})' for name in names)})"
    if condition.operator not in COMPARE:
        raise ValueError(f"no operator {condition.operator!r}")
    return f"({' OR '.join(f'{name} {condition.operator} {marks(condition.values)}' for name in names)})"


def order_by(sort: Iterable[SortKey], columns: Columns, last: str) -> str:
    """What follows ORDER BY; `last` is the expression that decides between equals."""
    keys = [f"{columns[key.field][0]} {'DESC' if key.descending else 'ASC'} NULLS LAST" for key in sort]
    return ", ".join([*keys, last])
