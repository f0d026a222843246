"""The filter language: what is understood, what is refused and where the mark stands, what a filter means."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.errors import QueryInvalid, UsageError
from protocol.query import (
    FIELDS,
    MAX_CHARACTERS,
    MAX_CONDITIONS,
    MAX_LIST,
    Filter,
    Known,
    SortKey,
    gpu_key,
    gpu_names,
    help_text,
    markdown_table,
    matches,
    order,
    parse_filter,
    parse_sort,
    provider_key,
)
from protocol.units import PeerKey
from qubixd.wire_libp2p import peer_id_of

HERE: dict[str, Known] = {
    "gpu": gpu_names("A100_80GB"), "gpus": 4, "vram": 80, "price": 50, "ram": 62.8, "cpus": 16.0,
    "disk": 900.5, "region": "euwest", "name": None, "reliability": 0.98, "rtt": 49.999, "score": None,
    "age": 61,
}  # fmt: skip

TRUE = [
    "", "vram>=80", "vram>=80GB vram<=80gib", "vram = 0.078125TB", "gpu=A100", "gpu='NVIDIA A100 80GB'",
    "gpu=a100_80gb", "gpu in (RTX_4090, A100_80GB)", "gpu != A100_40GB", "price<=50 and price>=50QU",
    "price<0.1k AND price<1M", "region=EU-West", 'region = "eu west"', "region!=us", "reliability>97.9%",
    "reliability>=0.98 reliability<=98%", "rtt<50ms rtt<0.05s rtt>49000us", "age>1min age<0.1h age<1d",
    "gpus in (2, 4)", "cpus>=16 ram>62 disk>0.8TB", "price>-1", "price<1_000", "  vram>=80   gpus=4 ",
]  # fmt: skip
FALSE = [
    "vram>80", "gpu=A100_40GB", "gpu=H100", "gpu!=A100", "gpu in (RTX_4090, H100)", "price<50",
    "region in (us, asia)", "reliability>98%", "rtt<49ms", "score>=0", "score<1", "score!=0.5", "name=alice",
    "name!=alice", "gpus in (1, 2, 8)", "vram>=80 gpus>=8", "ram>=64", "age<=1min",
]  # fmt: skip


@pytest.mark.parametrize("text", TRUE)
def test_what_holds(text: str) -> None:
    assert matches(parse_filter(text), HERE)


@pytest.mark.parametrize("text", FALSE)
def test_what_does_not_hold(text: str) -> None:
    assert not matches(parse_filter(text), HERE)


WRONG = [
    ("vrm>=24", 0, "did you mean vram"),
    ("price<5 colour=red", 8, "no field is called 'colour'; there are gpu, "),
    ("vram>=24ms", 8, "vram takes GB"),
    ("gpus>=2GB", 7, "gpus takes no unit"),
    ("price<=", 7, "a value is missing, such as price<=50"),
    ("price", 5, "one of >= <= > < = != in"),
    ("price 50", 6, "one of >= <= > < = != in"),
    ("price==50", 6, "a value is missing"),
    ("price<=cheap", 7, "price is a number"),
    ("gpu>=RTX_4090", 3, "gpu is a name"),
    ("gpu in RTX_4090", 7, "in brackets"),
    ("gpu in (a b)", 10, "a comma or a closing bracket"),
    ("gpu in (a, ", 10, "a value is missing"),
    ("gpu in ()", 8, "a value is missing"),
    ("price<5 or price>9", 8, "'or' is not known here"),
    ("price<5 and", 11, "missing after 'and'"),
    ("and price<5", 0, "no field is called 'and'"),
    ("price<1,000", 7, "a condition starts with a field"),
    ("(price<5)", 0, "a condition starts with a field"),
    ("name='rig", 5, "cannot stand here"),
    ("name='--'", 6, "at least one letter or digit"),
    ("provider=alice", 9, "by its peer id"),
    ("price<1e5", 7, "price takes QU"),
    ("price<1234567890123456", 6, "at most 15 digits"),
    ("price<999999999999999M", 6, "larger than"),
    ("price<5\t\x07 vram", 8, "no field is called"),
    ("x" * (MAX_CHARACTERS + 1), MAX_CHARACTERS, "longer than"),
    ("price<5 " * (MAX_CONDITIONS + 1), 8 * MAX_CONDITIONS, "more than 24 conditions"),
    (f"gpus in ({'1,' * MAX_LIST}1)", 9 + 2 * MAX_LIST - 1, "more than 64 values"),
]


@pytest.mark.parametrize("text,position,sentence", WRONG, ids=[text[:30] for text, *_ in WRONG])
def test_errors_point_at_the_character(text: str, position: int, sentence: str) -> None:
    with pytest.raises(QueryInvalid) as caught:
        parse_filter(text)
    said, shown, mark = str(caught.value).split("\n")
    assert sentence in said and caught.value.position == position and caught.value.text == text
    place = len(mark) - 1
    assert mark == " " * place + "^"
    if position < len(text) and text[position].isprintable():
        assert shown[place] == text[position]


def test_a_wrong_filter_is_a_usage_error() -> None:
    assert issubclass(QueryInvalid, UsageError) and (QueryInvalid.code, QueryInvalid.exit_code) == (
        "query.invalid",
        2,
    )


@given(st.text() | st.text("gpuvramprice<>=!in(),.'\" and0123456789%GBms-_", max_size=60))
@example("price<\u0663")
@example("name=\u00b2")
@example("\u2028price<5")
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        asked = parse_filter(text)
    except QueryInvalid as error:
        assert 0 <= error.position <= len(text)
    else:
        assert parse_filter(str(asked)) == asked
    try:
        parse_sort(text)
    except QueryInvalid as error:
        assert 0 <= error.position <= len(text)


def test_sort_keys() -> None:
    assert parse_sort("") == ()
    assert parse_sort("price, -score") == (SortKey("price"), SortKey("score", descending=True))
    assert parse_sort("-PRICE rtt") == (SortKey("price", True), SortKey("rtt"))
    for text, position in {"price,-pric": 7, "gpu": 0, "price,,-": 8, "rtt " * 5: 16}.items():
        with pytest.raises(QueryInvalid) as caught:
            parse_sort(text)
        assert caught.value.position == position


def test_the_unknown_comes_last_in_every_order() -> None:
    offers: list[dict[str, Known]] = [{"price": 3}, {}, {"price": 1}, {"price": None}, {"price": 2}]
    for text, prices in {"price": [1, 2, 3], "-price": [3, 2, 1]}.items():
        keys = parse_sort(text)
        found = [one.get("price") for one in sorted(offers, key=lambda one: order(keys, one))]
        assert found == [*prices, None, None]


def test_gpus_are_called_many_things() -> None:
    for name in ("RTX_4090", "NVIDIA GeForce RTX 4090", "rtx4090", "RTX-4090", "4090"):
        assert gpu_key(name) == "4090"
    assert gpu_key("Tesla V100") == "v100" and gpu_key("RTX") == "rtx"
    assert gpu_names("A100_80GB") == ("a10080gb", "a100")
    assert gpu_names("RTX_4090") == ("4090",)
    assert gpu_names("") == gpu_names("__") == ()


def test_providers_are_named_by_peer_id_or_key() -> None:
    for first in (0, 1, 255):
        key = PeerKey(bytes([first]) * 32)
        assert provider_key(peer_id_of(key)) == provider_key(key.hex().upper()) == key.hex()
    for wrong in ("", "12D3KooW", "Q" * 46, peer_id_of(PeerKey(bytes(32)))[:-1], "1" * 52, "z" * 60):
        with pytest.raises(ValueError, match="peer id"):
            provider_key(wrong)


def test_a_filter_is_made_of_conditions() -> None:
    asked = parse_filter("vram>=24 gpu in (RTX_4090, A100)")
    fewer = Filter(asked.conditions[:1])
    assert str(asked) == "vram>=24 gpu in (4090, a100)" and str(fewer) == "vram>=24"
    assert matches(fewer, HERE) and not matches(parse_filter("vram>=24 gpu=H100"), HERE)


def test_every_field_is_in_the_help_and_on_the_page() -> None:
    assert [line.split()[0] for line in help_text().splitlines()] == list(FIELDS)
    assert all(parse_filter(field.example) for field in FIELDS.values() if field.name != "provider")
    assert markdown_table() in (Path(__file__).parents[2] / "docs/market.md").read_text()
