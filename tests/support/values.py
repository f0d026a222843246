"""Values of the numbered dataclasses, made from their types: any (Hypothesis), or one fixed sample."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import types
import typing
from typing import Annotated, Any, get_args, get_origin

from hypothesis import strategies as st
from msgspec import Meta

TEXT = st.characters(exclude_categories=["Cs"])


def unwrap(kind: Any) -> tuple[Any, Meta]:
    """A type without its NewTypes and Annotated, and the limits they carried."""
    meta = Meta()
    while True:
        if get_origin(kind) is Annotated:
            kind, meta, *_ = get_args(kind)
        elif isinstance(kind, typing.NewType):
            kind = kind.__supertype__
        else:
            return kind, meta


def fields_of(kind: type) -> dict[str, Any]:
    """Field -> annotation of a dataclass, limits included."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def any_value(kind: Any) -> st.SearchStrategy[Any]:
    """Every value that a type allows, with its largest among the likely ones."""
    kind, meta = unwrap(kind)
    low, high = meta.min_length or 0, meta.max_length
    if dataclasses.is_dataclass(kind):
        assert isinstance(kind, type)
        return st.builds(kind, **{name: any_value(hint) for name, hint in fields_of(kind).items()})
    if get_origin(kind) in (tuple, list):
        items = st.lists(any_value(get_args(kind)[0]), min_size=low, max_size=min(high or 3, 3))
        return items.map(get_origin(kind))
    if get_origin(kind) is dict:
        key, value = get_args(kind)
        return st.dictionaries(any_value(key), any_value(value), max_size=3)
    if get_origin(kind) in (types.UnionType, typing.Union):
        return st.one_of(*(any_value(part) for part in get_args(kind)))
    if kind is bytes:
        return st.binary(min_size=low, max_size=min(high or 64, 64))
    if kind is str:
        longest = st.just("\U0001f9ea" * min(high or 64, 512))
        return st.one_of(st.text(TEXT, max_size=min(high or 20, 20)), longest)
    if kind is int:
        least, most = (-(2**63) if meta.ge is None else meta.ge), (2**63 - 1 if meta.le is None else meta.le)
        return st.one_of(st.integers(int(least), int(most)), st.just(int(most)))
    return st.from_type(kind)


def sample(kind: Any, name: str = "") -> Any:
    """The same value of a type for ever; `name` makes the fields differ from each other."""
    kind, meta = unwrap(kind)
    digest = hashlib.sha512(name.encode()).digest()
    if dataclasses.is_dataclass(kind):
        assert isinstance(kind, type)
        return kind(**{field: sample(hint, field) for field, hint in fields_of(kind).items()})
    if get_origin(kind) in (tuple, list):
        return get_origin(kind)(sample(get_args(kind)[0], f"{name}{i}") for i in range(2))
    if get_origin(kind) is dict:
        key, value = get_args(kind)
        return {sample(key, f"{name}-key"): sample(value, f"{name}-value")}
    if get_origin(kind) in (types.UnionType, typing.Union):
        return sample(get_args(kind)[0], name)
    if get_origin(kind) is typing.Literal:
        return get_args(kind)[digest[0] % len(get_args(kind))]
    if isinstance(kind, enum.EnumMeta):
        return list(kind)[digest[0] % len(kind)]
    if kind is bytes:
        return digest[: meta.min_length or min(32, meta.max_length or 32)]
    if kind is str:
        return f"{name} £"[: meta.max_length]
    if kind is bool:
        return bool(digest[0] & 1)
    low, high = int(meta.ge or 0), int(2**40 if meta.le is None else meta.le)
    return low + int.from_bytes(digest[:8], "big") % (high - low + 1)
