"""Saved searches of the market: a small file beside the ledger, for its owner alone."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from protocol.errors import ConfigInvalid, DiskFull, UsageError
from tui.safe import safe_line

FILE_NAME: Final = "searches.json"
MAX_SEARCHES: Final = 100
MAX_NAME: Final = 60
MAX_BYTES: Final = 200_000


@dataclass(frozen=True)
class Saved:
    """One search under a name. `filter`, `sort` and `use_case` as in MarketArgs."""

    name: Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
    filter: Annotated[str, Meta(max_length=1_000)] = ""
    sort: Annotated[str, Meta(max_length=40)] = "price"
    use_case: Annotated[str, Meta(max_length=64)] = ""


@dataclass(frozen=True)
class _File:
    searches: Annotated[list[Saved], Meta(max_length=MAX_SEARCHES)]


def load(directory: Path) -> list[Saved]:
    """All of them, by name; none if nothing was saved yet. ConfigInvalid if the file is not what we wrote."""
    path = directory / FILE_NAME
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise ValueError("it is too large")
        found = msgspec.json.decode(raw, type=_File).searches
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        said = safe_line(str(error), 120)
        raise ConfigInvalid(
            f"the saved searches in {path} cannot be read ({said}); mend or delete it"
        ) from error
    return sorted(found, key=lambda one: one.name.casefold())


def save(directory: Path, search: Saved) -> list[Saved]:
    """Keep it, instead of one of the same name; all of them. UsageError if there are too many or the name is
    none, ConfigInvalid as in `load`, DiskFull."""
    if not search.name.strip() or len(search.name) > MAX_NAME:
        raise UsageError(f"a saved search has a name of 1 to {MAX_NAME} characters")
    others = [one for one in load(directory) if one.name != search.name]
    if len(others) >= MAX_SEARCHES:
        raise UsageError(f"there are {MAX_SEARCHES} saved searches already; delete one first")
    return _write(directory, [*others, search])


def delete(directory: Path, name: str) -> list[Saved]:
    """Forget one; what is left."""
    return _write(directory, [one for one in load(directory) if one.name != name])


def _write(directory: Path, searches: Sequence[Saved]) -> list[Saved]:
    """In one step, so that a file is there whole or as it was."""
    kept = sorted(searches, key=lambda one: one.name.casefold())
    path, draft = directory / FILE_NAME, directory / f".{FILE_NAME}.{os.getpid()}"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(
            os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
        ) as file:
            json.dump(msgspec.to_builtins(_File(kept)), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise DiskFull(f"the saved searches in {path} cannot be written: {error.strerror}") from error
    return kept
