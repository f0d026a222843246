"""The market's form and its filter say the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import QueryInvalid
from protocol.query import FIELDS, Condition, Filter, parse_filter
from web.pages.market_form import FORM, chips, form_of, text_of, without, written

NUMBERS = [field for field in FIELDS.values() if field.units is not None]
NAMES = ("gpu", "region", "market", "name", "runner", "runtime", "arch")
number_conditions = st.builds(
    lambda field, operator, values: Condition(
        field.name, operator, tuple(values[: None if operator == "in" else 1])
    ),
    st.sampled_from(NUMBERS),
    st.sampled_from((">=", "<=", ">", "<", "=", "!=", "in")),
    st.lists(st.integers(0, 10**12) | st.floats(0, 10**6).map(lambda x: round(x, 6)), min_size=1, max_size=3),
)
name_conditions = st.builds(
    lambda field, operator, values: Condition(
        field, operator, tuple(values[: None if operator == "in" else 1])
    ),
    st.sampled_from(NAMES),
    st.sampled_from(("=", "!=", "in")),
    st.lists(st.sampled_from(("4090", "euwest", "é", "漢字", "and", "in", "0")), min_size=1, max_size=3),
)


@given(st.lists(number_conditions | name_conditions, max_size=8))
def test_a_filter_comes_back_from_the_form(conditions: list[Condition]) -> None:
    where = Filter(tuple(conditions))
    typed = parse_filter(" ".join(map(written, where.conditions)))
    assert _alike(parse_filter(form_of(typed).text())) == _alike(typed)
    for chip, condition in zip(chips(typed), typed.conditions, strict=True):
        assert _alike(parse_filter(chip.without)) == _alike(
            Filter(tuple(c for c in typed.conditions if c is not condition))
        )


def _alike(where: Filter) -> set[str]:
    return {str(condition) for condition in where.conditions}


def test_simple_conditions_have_fields_and_others_stay_words() -> None:
    form = form_of(
        parse_filter("gpu=RTX_4090 vram>=24GB reliability>=98.5% price<=20k price>=5 region in (eu, us)")
    )
    assert {name: text for name, text in form.values.items() if text} == {
        "gpu": "4090", "vram": "24", "reliability": "98.5", "price": "20000",
    }  # fmt: skip
    assert form.rest == ("price>=5", "region in (eu, us)")
    assert form.text(gpu="") == "price<=20000 vram>=24 reliability>=98.5% price>=5 region in (eu, us)"


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ({"vram": " 24 GB "}, "vram>=24 GB"),
        ({"reliability": "0.5"}, "reliability>=0.5%"),
        ({"region": "South Pole's"}, "region='South Poles'"),
        ({"price": "", "gpus": "2"}, "gpus>=2"),
    ],
)
def test_what_is_typed_becomes_a_condition(typed: dict[str, str], text: str) -> None:
    assert text_of(typed, ()) == text


def test_nonsense_is_left_to_the_parser() -> None:
    with pytest.raises(QueryInvalid):
        parse_filter(text_of({"price": "cheap"}, ()))


def test_a_facet_does_not_narrow_itself() -> None:
    where = parse_filter("gpu=4090 vram>=24 gpu!=3090")
    assert str(without(where, "gpu")) == "vram>=24"
    assert set(FORM) <= set(FIELDS)
