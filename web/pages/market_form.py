"""The market's filter as a form: simple conditions stand in fields of their own, the rest stays words. Pure.

The filter is the truth and stands in the address. A form that comes back is written as a filter again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from protocol.query import FIELDS, Condition, Filter, Value
from web.commands import quoted

FORM: Final[Mapping[str, str]] = {
    "gpu": "=", "price": "<=", "vram": ">=", "gpus": ">=", "region": "=", "ram": ">=", "reliability": ">=",
    "internet": "=",
}  # fmt: skip
"""Fields of the form and how each compares."""
PERCENT: Final = ("reliability",)


@dataclass(frozen=True)
class Form:
    """`values`: text of each field of FORM, "" where it says nothing; `rest`: conditions that have none."""

    values: Mapping[str, str]
    rest: tuple[str, ...]

    def text(self, **changes: str) -> str:
        """The filter that it says, with some fields changed."""
        return text_of({**self.values, **changes}, self.rest)


@dataclass(frozen=True)
class Chip:
    """One condition, and the filter without it."""

    text: str
    without: str


def form_of(where: Filter) -> Form:
    """Each field has the first condition of its kind."""
    values = dict.fromkeys(FORM, "")
    rest: list[str] = []
    for condition in where.conditions:
        if FORM.get(condition.field) == condition.operator and not values[condition.field]:
            values[condition.field] = _field_text(condition.field, condition.values[0])
        else:
            rest.append(written(condition))
    return Form(values, tuple(rest))


def text_of(values: Mapping[str, str], rest: Sequence[str]) -> str:
    """The filter's text; what somebody typed into a number's field is left for the parser to judge."""
    parts = [
        f"{name}{operator}{_typed(name, values[name].strip())}"
        for name, operator in FORM.items()
        if values.get(name, "").strip()
    ]
    return " ".join([*parts, *(part for part in rest if part)])


def written(condition: Condition) -> str:
    """A condition as it could be typed."""
    texts = [_plain(value) for value in condition.values]
    if condition.operator == "in":
        return f"{condition.field} in ({', '.join(texts)})"
    return f"{condition.field}{condition.operator}{texts[0]}"


def chips(where: Filter) -> list[Chip]:
    texts = [written(condition) for condition in where.conditions]
    return [Chip(text, " ".join(texts[:number] + texts[number + 1 :])) for number, text in enumerate(texts)]


def without(where: Filter, field: str) -> Filter:
    """What remains if a field does not matter."""
    return Filter(tuple(one for one in where.conditions if one.field != field))


def _field_text(name: str, value: Value) -> str:
    if name in PERCENT and not isinstance(value, str):
        return _number(Decimal(repr(value)) * 100)
    return _plain(value).strip("'")


def _typed(name: str, text: str) -> str:
    if name in PERCENT and text.replace(".", "", 1).isdecimal():
        return text + "%"
    return quoted(text) if FIELDS[name].units is None else text


def _plain(value: Value) -> str:
    return quoted(value) if isinstance(value, str) else _number(Decimal(repr(value)))


def _number(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
