"""The filter language of the market: `gpu=RTX_4090 vram>=24 price<=50 and region in (eu, us)`. Pure.

A filter is conditions that must all hold, joined by spaces or `and`; a condition is a field, an operator
and a value, or a field, `in` and values in brackets. Numbers may carry a unit: `vram>=24GB`, `rtt<50ms`.
Names are compared without case, spaces and separators. A value that is not known (a round trip that was
never measured) meets no condition, as NULL does in SQL, and comes last in every order.

`matches` and `order` are the meaning of a filter and of sort keys; an index answers the same, faster.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from typing import Final

from protocol.errors import QueryInvalid

Value = int | float | str
"""A number in the field's unit, or a name as `name_key`, `gpu_key` or `provider_key` makes it."""
Known = int | float | str | tuple[str, ...] | None
"""What an offer has in a field: a value, several names of one thing, or None where it is not known."""
Values = Mapping[str, Known]

MAX_CHARACTERS: Final = 1_000
MAX_CONDITIONS: Final = 24
MAX_LIST: Final = 64
MAX_SORT_KEYS: Final = 4
MAX_DIGITS: Final = 15
"""What every double tells apart, so that a number means the same in Python and in any database."""
MAX_NUMBER: Final = 10**15

COMPARE: Final[Mapping[str, Callable[[Value, Value], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
    "in": operator.eq,
}
"""Every operator but `!=`, which asks that no name of the offer is the one given."""


@dataclass(frozen=True)
class Field:
    """One thing to search for. `units` are what one of each is in the first of them, the field's own; names
    have none and know only `=`, `!=` and `in`."""

    name: str
    description: str
    example: str
    units: Mapping[str, Decimal] | None = None
    step: int = 1
    """Numbers are kept in whole steps: 1,000 means thousandths of the unit."""
    key: Callable[[str], str] | None = None
    """Of a name: what is compared. ValueError if it cannot be one."""

    @property
    def unit(self) -> str:
        return next(iter(self.units), "") if self.units else ""


@dataclass(frozen=True)
class Condition:
    """`operator` is one of `>= <= > < = != in`; only `in` may have more values than one."""

    field: str
    operator: str
    values: tuple[Value, ...]

    def __str__(self) -> str:
        shown = ", ".join(str(value) for value in self.values)
        return (
            f"{self.field} in ({shown})" if self.operator == "in" else f"{self.field}{self.operator}{shown}"
        )


@dataclass(frozen=True)
class Filter:
    """Conditions that must all hold; none lets everything pass."""

    conditions: tuple[Condition, ...] = ()

    def __str__(self) -> str:
        return " ".join(str(condition) for condition in self.conditions)


@dataclass(frozen=True)
class SortKey:
    field: str
    descending: bool = False


# --- names ----------------------------------------------------------------------------------------

_BRANDS: Final = re.compile(r"^(?:nvidia|geforce|tesla|quadro|rtx|gtx)+(?=.)")
_MEMORY: Final = re.compile(r"[^0-9a-z]\d{1,3} ?gb$", re.IGNORECASE)
BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
PEER_ID_HEAD: Final = bytes.fromhex("002408011220")
"""Of an Ed25519 peer id: identity multihash, 36 bytes, of a protobuf with the key's type and 32 bytes."""


def name_key(text: str) -> str:
    """A name without case, spaces and separators: "EU-West" -> "euwest". ValueError if nothing is left."""
    key = "".join(filter(str.isalnum, text.casefold()))
    if not key:
        raise ValueError("a name has at least one letter or digit")
    return key


def gpu_key(text: str) -> str:
    """A GPU's name without maker and brand as well: "NVIDIA GeForce RTX 4090", "RTX_4090" -> "4090"."""
    return _BRANDS.sub("", name_key(text))


def gpu_names(gpu_class: str) -> tuple[str, ...]:
    """What a GPU class answers to: itself and, if its name ends with a memory size, the model without it."""
    spellings = dict.fromkeys((gpu_class, _MEMORY.sub("", gpu_class)))
    return tuple(gpu_key(name) for name in spellings if any(map(str.isalnum, name)))


def provider_key(text: str) -> str:
    """A provider's peer id ("12D3KooW...") or its key in hexadecimal -> the 64 hexadecimal digits."""
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return text.lower()
    number = 0
    for char in text if len(text) <= 60 else "":
        number = number * 58 + BASE58.index(char) if char in BASE58 else 0
    raw = number.to_bytes(45, "big")[-38:]
    if not raw.startswith(PEER_ID_HEAD) or number >> 8 * 38:
        raise ValueError("a provider is named by its peer id, as `qubix market` shows it")
    return raw[len(PEER_ID_HEAD) :].hex()


def arch_key(text: str) -> str:
    """A processor's name as container images have it: "x86_64" -> "amd64"."""
    key = name_key(text)
    return {"x8664": "amd64", "x64": "amd64", "aarch64": "arm64"}.get(key, key)


def yes_key(text: str) -> str:
    """ "yes" or "no". ValueError for anything else."""
    for word, others in (("yes", ("true", "on", "1")), ("no", ("false", "off", "0"))):
        if text.casefold() in (word, *others):
            return word
    raise ValueError("this field is yes or no")


# --- fields ---------------------------------------------------------------------------------------

_ONE: Final = Decimal(1)
_MEMORY_UNITS: Final = {
    "GB": _ONE, "GiB": _ONE, "MB": _ONE / 1024, "MiB": _ONE / 1024, "TB": Decimal(1024), "TiB": Decimal(1024),
}  # fmt: skip
_MONEY: Final = {"QU": _ONE, "k": Decimal(1_000), "M": Decimal(1_000_000)}
_SHARE: Final = {"": _ONE, "%": _ONE / 100}
_MILLISECONDS: Final = {"ms": _ONE, "us": _ONE / 1000, "s": Decimal(1_000)}
_SECONDS: Final = {"s": _ONE, "min": Decimal(60), "h": Decimal(3_600), "d": Decimal(86_400)}
_COUNT: Final = {"": _ONE}

FIELDS: Final[Mapping[str, Field]] = {
    field.name: field
    for field in (
        Field("gpu", "model of GPU; A100 means its every memory size", "gpu=RTX_4090", key=gpu_key),
        Field("gpus", "number of GPUs", "gpus>=2", _COUNT),
        Field("vram", "memory of the largest GPU, as sold (rounded up)", "vram>=24", _MEMORY_UNITS),
        Field("price", "what each GPU (or a machine without) costs an hour", "price<=50", _MONEY),
        Field("storage", "what 1 TB of disk costs an hour", "storage<=5", _MONEY),
        Field("ram", "main memory for jobs", "ram>=64GB", _MEMORY_UNITS, 1024),
        Field("cpus", "processor cores for jobs", "cpus>=8", _COUNT, 1_000),
        Field("disk", "disk for jobs", "disk>=1TB", _MEMORY_UNITS, 1024),
        Field("region", "where the provider says it is", "region in (eu, us)", key=name_key),
        Field("market", "the catalogue's market of the GPU", "market=HOPPER", key=name_key),
        Field("name", "what the provider calls itself", "name='my rig'", key=name_key),
        Field("provider", "its peer id", "provider=12D3KooW...", key=provider_key),
        Field("runner", "how jobs run there: docker or process", "runner=docker", key=name_key),
        Field("runtime", "what separates jobs from its machine", "runtime=runsc", key=name_key),
        Field("internet", "whether jobs may have it there", "internet=yes", key=yes_key),
        Field("arch", "its processor, as images name it", "arch=amd64", key=arch_key),
        Field("cuda", "newest CUDA its driver supports, 0 without", "cuda>=12.4", _COUNT, 10),
        Field("score", "G-Score, where known here", "score>=0.5", _SHARE, 1_000_000),
        Field("reliability", "part of its leases that ended well", "reliability>98%", _SHARE, 1_000_000),
        Field("rtt", "round trip from here, where measured", "rtt<50ms", _MILLISECONDS, 1_000),
        Field("age", "since the offer was issued", "age<10min", _SECONDS),
    )
}


def help_text() -> str:
    """All fields with unit, example and meaning, one a line."""
    rows = [(f.name, f.unit, f.example, f.description) for f in FIELDS.values()]
    name, unit, example = (max(len(row[column]) for row in rows) for column in range(3))
    lines = (f"{row[0]:{name}}  {row[1]:{unit}}  {row[2]:{example}}  {row[3]}" for row in rows)
    return "\n".join(lines)


def markdown_table() -> str:
    """The same for docs/market.md."""
    head = "| Field | Units | Example | Meaning |\n|---|---|---|---|\n"
    return head + "".join(
        f"| `{f.name}` | {', '.join(u for u in f.units or () if u)} | `{f.example}` | {f.description} |\n"
        for f in FIELDS.values()
    )


# --- meaning --------------------------------------------------------------------------------------


def matches(filter: Filter, values: Values) -> bool:
    """Do all conditions hold for what an offer has?"""
    return all(_holds(condition, values.get(condition.field)) for condition in filter.conditions)


def _holds(condition: Condition, value: Known) -> bool:
    if value is None or value == ():
        return False
    held = value if isinstance(value, tuple) else (value,)
    if condition.operator == "!=":
        return condition.values[0] not in held
    compare = COMPARE[condition.operator]
    return any(compare(one, wanted) for one in held for wanted in condition.values)


def order(sort: Iterable[SortKey], values: Values) -> tuple[tuple[bool, int | float], ...]:
    """Sorts as the keys say, smallest first, unknown last."""
    return tuple(_place(key, values.get(key.field)) for key in sort)


def _place(key: SortKey, value: object) -> tuple[bool, int | float]:
    if not isinstance(value, int | float):
        return (True, 0)
    return (False, -value if key.descending else value)


# --- reading --------------------------------------------------------------------------------------

_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<op>>=|<=|!=|[<>=])|(?P<mark>[(),])|(?P<quoted>"[^"]*"|'[^']*')|(?P<word>[^\s<>=!(),"']+))"""
)
_NUMBER: Final = re.compile(r"(-?\d[\d_]*(?:\.\d+)?)(.*)", re.DOTALL)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int

    def is_word(self, word: str) -> bool:
        return self.kind == "word" and self.text.lower() == word


def parse_filter(text: str) -> Filter:
    """The filter that `text` says; QueryInvalid, with the position of the first wrong character."""
    return _Reader(text).filter()


def parse_sort(text: str) -> tuple[SortKey, ...]:
    """ "price,-score" -> sort keys; "-" puts the largest first. QueryInvalid."""
    keys: list[SortKey] = []
    for word in re.finditer(r"[^,\s]+", _bounded(text)):
        if len(keys) == MAX_SORT_KEYS:
            raise QueryInvalid(f"more than {MAX_SORT_KEYS} sort keys", text, word.start())
        name = word[0].removeprefix("-")
        field = _field(name, text, word.start() + len(word[0]) - len(name))
        if field.units is None:
            raise QueryInvalid(f"{field.name} is a name; sort by a number", text, word.start())
        keys.append(SortKey(field.name, name != word[0]))
    return tuple(keys)


def _bounded(text: str) -> str:
    if len(text) > MAX_CHARACTERS:
        raise QueryInvalid(f"longer than {MAX_CHARACTERS} characters", text, MAX_CHARACTERS)
    return text


def _field(name: str, text: str, position: int) -> Field:
    field = FIELDS.get(name.lower())
    if field is not None:
        return field
    near = get_close_matches(name.lower(), FIELDS, 1)
    hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(FIELDS)}"
    raise QueryInvalid(f"no field is called {name[:40]!r}{hint}", text, position)


class _Reader:
    """Tokens of one text, read from left to right."""

    def __init__(self, text: str) -> None:
        self._text = _bounded(text)
        self._tokens = self._split()
        self._next = 0

    def filter(self) -> Filter:
        found: list[Condition] = []
        while (token := self._peek()).kind != "end":
            if len(found) == MAX_CONDITIONS:
                raise self._wrong(f"more than {MAX_CONDITIONS} conditions", token)
            found.append(self._condition())
            if self._peek().is_word("and"):
                self._next += 1
                if self._peek().kind == "end":
                    raise self._wrong("a condition is missing after 'and'", self._peek())
        return Filter(tuple(found))

    def _condition(self) -> Condition:
        name, sign = self._take(), self._take()
        if name.is_word("or"):
            raise self._wrong("'or' is not known here; ask twice, or write: field in (a, b)", name)
        if name.kind != "word":
            raise self._wrong("a condition starts with a field, such as price<=50", name)
        field = _field(name.text, self._text, name.position)
        if sign.is_word("in"):
            return Condition(field.name, "in", self._list(field))
        if sign.kind != "op":
            raise self._wrong("one of >= <= > < = != in comes after a field", sign)
        if field.units is None and sign.text not in ("=", "!="):
            raise self._wrong(f"{field.name} is a name: only =, != and in compare it", sign)
        return Condition(field.name, sign.text, (self._value(field),))

    def _list(self, field: Field) -> tuple[Value, ...]:
        self._mark("(", "'in' takes values in brackets: in (a, b)")
        values = [self._value(field)]
        while (mark := self._take()).text != ")" or mark.kind != "mark":
            if mark.kind != "mark" or mark.text != ",":
                raise self._wrong("a comma or a closing bracket comes here", mark)
            if len(values) == MAX_LIST:
                raise self._wrong(f"more than {MAX_LIST} values", mark)
            values.append(self._value(field))
        return tuple(dict.fromkeys(values))

    def _value(self, field: Field) -> Value:
        token = self._take()
        if token.kind not in ("word", "quoted"):
            raise self._wrong(f"a value is missing, such as {field.example}", token)
        if field.units is not None:
            return self._number(field, field.units, token)
        assert field.key is not None  # a field has units or a key
        try:
            return field.key(token.text)
        except ValueError as error:
            raise self._wrong(str(error), token) from error

    def _number(self, field: Field, units: Mapping[str, Decimal], token: _Token) -> int | float:
        parts = _NUMBER.fullmatch(token.text)
        if parts is None:
            raise self._wrong(f"{field.name} is a number, such as {field.example}", token)
        if sum(char.isdigit() for char in parts[1]) > MAX_DIGITS:
            raise self._wrong(f"a number has at most {MAX_DIGITS} digits", token)
        known = {name.lower(): factor for name, factor in units.items()} | {"": _ONE}
        factor = known.get(parts[2].lower())
        if factor is None:
            names = ", ".join(name for name in units if name) or "no unit"
            raise self._wrong(f"{field.name} takes {names}", token, len(parts[1]))
        number = Decimal(parts[1]) * factor
        if abs(number) > MAX_NUMBER:
            raise self._wrong(f"larger than {MAX_NUMBER:,}", token)
        return int(number) if number == int(number) else float(number)

    def _mark(self, mark: str, otherwise: str) -> None:
        token = self._take()
        if (token.kind, token.text) != ("mark", mark):
            raise self._wrong(otherwise, token)

    def _peek(self) -> _Token:
        return self._tokens[min(self._next, len(self._tokens) - 1)]

    def _take(self) -> _Token:
        token = self._peek()
        self._next += 1
        return token

    def _split(self) -> list[_Token]:
        tokens: list[_Token] = []
        end = 0
        while self._text[end:].strip():
            match = _TOKEN.match(self._text, end)
            if match is None:
                position = end + len(self._text[end:]) - len(self._text[end:].lstrip())
                raise QueryInvalid("this character cannot stand here", self._text, position)
            kind = str(match.lastgroup)
            quote = kind == "quoted"
            tokens.append(_Token(kind, match[kind][quote : -1 if quote else None], match.start(kind) + quote))
            end = match.end()
        return [*tokens, _Token("end", "", len(self._text.rstrip()))]

    def _wrong(self, sentence: str, token: _Token, offset: int = 0) -> QueryInvalid:
        return QueryInvalid(sentence, self._text, token.position + offset)
