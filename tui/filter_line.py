"""What a line of the market's filter language needs while it is typed: what could come next, and what is
wrong and where. Pure; the language itself is protocol/query.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from protocol.catalogue import GPUS, MARKETS
from protocol.errors import QueryInvalid
from protocol.query import FIELDS, Field, gpu_key, gpu_names, name_key, parse_filter
from tui.safe import safe_line

Words = Mapping[str, Sequence[str]]
"""Field -> names that offers have in it, to be offered as values."""
Place = Literal["field", "operator", "list", "value", "more", "next"]
"""What stands where the cursor is. `more`: a comma or a closing bracket; `list`: an opening one."""

MAX_CANDIDATES: Final = 12
FIXED: Final[Words] = {
    "gpu": tuple(GPUS),
    "market": MARKETS,
    "internet": ("yes", "no"),
    "arch": ("amd64", "arm64"),
    "runner": ("docker", "process"),
    "runtime": ("runc", "runsc", "kata"),
}
"""Values that are known before any offer is."""
COMPARISONS: Final[Mapping[str, str]] = {
    "=": "is",
    "!=": "is not",
    "in": "is one of",
    ">=": "at least",
    "<=": "at most",
    ">": "more than",
    "<": "less than",
}
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<op>>=|<=|!=|[<>=])|(?P<mark>[(),])|(?P<quoted>"[^"]*"|'[^']*')|(?P<word>[^\s<>=!(),"']+))"""
)
_TYPED: Final = re.compile(r"""(?:"[^"]*|'[^']*|[^\s<>=!(),"']*)$""")
"""What of a word stands before the cursor; a name in quotes may hold spaces."""
_SIGN: Final = re.compile(r"\s*(?:[<>=!]|in\b)", re.IGNORECASE)
_REST: Final = re.compile(r"""[^\s<>=!(),"']*""")


@dataclass(frozen=True)
class Candidate:
    text: str
    meaning: str


@dataclass(frozen=True)
class Completion:
    """What could stand instead of `text[start:end]`, the likeliest first."""

    start: int
    end: int
    candidates: tuple[Candidate, ...] = ()
    half: bool = False
    """A name has been begun that no offer has, and could become one that some have."""


@dataclass(frozen=True)
class Problem:
    """What is wrong at `text[position]`; `unfinished` if going on typing may mend it."""

    sentence: str
    position: int
    unfinished: bool


def problem(text: str) -> Problem | None:
    """The first thing that is wrong with a filter; None if nothing is."""
    try:
        parse_filter(text)
    except QueryInvalid as error:
        sentence = str(error).split("\n", 1)[0]
        return Problem(sentence, error.position, error.position >= len(text.rstrip()))
    return None


def complete(text: str, cursor: int, words: Words) -> Completion:
    """What could stand where the cursor is."""
    typed = _typed(text[:cursor])
    start = cursor - len(typed)
    rest = _REST.match(text, cursor)
    end = rest.end() if rest and typed[:1] not in ('"', "'") else cursor
    place, field = _place(text[:start])
    found = _candidates(place, field, typed.strip("\"'"), words)
    if place in ("field", "next") and _SIGN.match(text, end):
        found = (Candidate(re.sub("[<>=!]+$", "", one.text), one.meaning) for one in found)
    shown = tuple(one for one in found if one.text.strip() != text[start:end])[:MAX_CANDIDATES]
    return Completion(start, end, shown, place == "value" and _is_half(field, typed.strip("\"'"), words))


def accepted(text: str, completion: Completion, candidate: Candidate) -> tuple[str, int]:
    """The line with a candidate in its place, and where the cursor then stands."""
    head = text[: completion.start] + candidate.text
    return head + text[completion.end :].lstrip(" " if candidate.text.endswith(" ") else ""), len(head)


def _typed(before: str) -> str:
    """The word that ends at the cursor, with its opening quote if that is not closed yet."""
    end = 0
    while match := _TOKEN.match(before, end):
        end = match.end()
        if end == len(before) and match.lastgroup == "word":
            return match["word"]
    left = _TYPED.search(before[end:].lstrip())
    return left[0] if left else ""


def _place(before: str) -> tuple[Place, Field | None]:
    """What is expected after these tokens, and of which field."""
    place: Place = "field"
    field: Field | None = None
    inside = False
    for match in _TOKEN.finditer(before):
        said = match[str(match.lastgroup)].lower()
        if place in ("field", "next"):
            field = FIELDS.get(said)
            place = "field" if said == "and" else "operator"
        elif place == "operator":
            place = "list" if said == "in" else "value"
        elif place == "list":
            place, inside = "value", True
        elif place == "value":
            place = "more" if inside else "next"
        else:
            inside = said != ")"
            place = "value" if inside else "next"
    return place, field


def _candidates(place: Place, field: Field | None, typed: str, words: Words) -> Iterable[Candidate]:
    if place in ("field", "next"):
        return _fields(typed)
    if place == "list":
        return (Candidate("(", "then values, separated by commas"),)
    if place == "more":
        return () if typed else (Candidate(", ", "one more"), Candidate(") ", "no more"))
    if field is None:
        return ()
    return _operators(field, typed) if place == "operator" else _values(field, typed, words)


def _fields(typed: str) -> Iterator[Candidate]:
    """Fields that begin so, then those that contain it; each with the comparison that is usual."""
    low = typed.lower()
    named = sorted((one for one in FIELDS if low in one), key=lambda one: not one.startswith(low))
    for name in named:
        field = FIELDS[name]
        unit = f" ({field.unit})" if field.unit else ""
        yield Candidate(name + _usual(field), f"{field.description}{unit}")


def _usual(field: Field) -> str:
    """The comparison in a field's example."""
    found = re.search(r"[<>=!]+", field.example)
    return found[0] if found else "="


def _operators(field: Field, typed: str) -> Iterator[Candidate]:
    usual = _usual(field)
    known = [one for one in COMPARISONS if field.units is not None or one in ("=", "!=", "in")]
    for sign in sorted(known, key=lambda one: one != usual):
        if sign.startswith(typed.lower()):
            yield Candidate("in (" if sign == "in" else sign, COMPARISONS[sign])


def _values(field: Field, typed: str, words: Words) -> Iterator[Candidate]:
    if field.units is not None:
        yield from _numbers(field, typed)
        return
    key = _key(field, typed)
    names = dict.fromkeys((*words.get(field.name, ()), *FIXED.get(field.name, ())))
    near = [one for one in names if quoted(one) and key in _key(field, one)]
    for name in sorted(near, key=lambda one: not _key(field, one).startswith(key)):
        now = "offered now" if name in words.get(field.name, ()) else "nobody offers it now"
        yield Candidate(quoted(name), now if field.name in words else "")


def _is_half(field: Field | None, typed: str, words: Words) -> bool:
    if field is None or field.units is not None or not (key := _key(field, typed)):
        return False
    names = {_key(field, one) for one in (*words.get(field.name, ()), *FIXED.get(field.name, ()))}
    if field.name == "gpu":
        names |= {key for one in words.get("gpu", ()) for key in gpu_names(one)}
    return key not in names and any(one.startswith(key) for one in names)


def _numbers(field: Field, typed: str) -> Iterator[Candidate]:
    if not typed:
        yield Candidate(field.example.partition(_usual(field))[2], "an example")
    digits = re.match(r"-?\d[\d_]*(?:\.\d+)?", typed)
    for unit in field.units or ():
        if digits and typed != digits[0] and unit.lower().startswith(typed[digits.end() :].lower()):
            yield Candidate(digits[0] + unit, f"in {unit}")


def _key(field: Field, name: str) -> str:
    """As the field compares names, but "" where nothing is left to compare."""
    try:
        return gpu_key(name) if field.name == "gpu" else name_key(name)
    except ValueError:
        return ""


def quoted(name: str) -> str:
    """A name as a filter takes it; empty if no filter can name it, or no terminal should show it."""
    if safe_line(name, 64) != name or not _key(FIELDS["name"], name):
        return ""
    if re.fullmatch(r"""[^\s<>=!(),"']+""", name):
        return name
    return next((f"{mark}{name}{mark}" for mark in "\"'" if mark not in name), "")
