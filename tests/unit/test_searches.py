"""Saved searches: kept for the owner alone, whole or as they were, and never believed blindly."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from protocol.errors import ConfigInvalid, DiskFull, UsageError
from tui import searches
from tui.searches import FILE_NAME, MAX_SEARCHES, Saved


def test_what_is_saved_is_found_again_by_name(tmp_path: Path) -> None:
    assert searches.load(tmp_path) == []
    cheap, big = Saved("cheap", "price<=4M"), Saved("Big ones", "vram>=80", "-vram", "sdxl")
    searches.save(tmp_path, cheap)
    assert searches.save(tmp_path, big) == searches.load(tmp_path) == [big, cheap]
    other = Saved("cheap", "price<=3M")
    assert searches.save(tmp_path, other) == [big, other]
    assert searches.delete(tmp_path, "Big ones") == searches.load(tmp_path) == [other]


def test_the_file_is_private_and_alone(tmp_path: Path) -> None:
    searches.save(tmp_path / "new", Saved("a"))
    (path,) = (tmp_path / "new").iterdir()
    assert path.name == FILE_NAME and stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", '{"searches": 1}', '{"searches": [{"name": ""}]}',
        '{"searches": [{"name": "a", "filter": 1}]}',
        json.dumps({"searches": [{"name": "a" * 61}]}),
        json.dumps({"searches": [{"name": str(n)} for n in range(MAX_SEARCHES + 1)]}),
        " " * 300_000, "\xff",
    ],
)  # fmt: skip
def test_a_file_that_is_not_ours_is_named_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / FILE_NAME
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigInvalid, match=FILE_NAME):
        searches.load(tmp_path)
    with pytest.raises(ConfigInvalid, match=FILE_NAME):
        searches.save(tmp_path, Saved("a"))
    assert path.read_text(encoding="latin-1") == text


def test_names_and_numbers_have_bounds(tmp_path: Path) -> None:
    for name in ("", "  ", "a" * 61):
        with pytest.raises(UsageError):
            searches.save(tmp_path, Saved(name))
    for number in range(MAX_SEARCHES):
        searches.save(tmp_path, Saved(f"{number}"))
    with pytest.raises(UsageError, match="delete one"):
        searches.save(tmp_path, Saved("one more"))
    assert len(searches.save(tmp_path, Saved("7", "gpus>=2"))) == MAX_SEARCHES


def test_a_disk_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises((DiskFull, ConfigInvalid)):
        searches.save(blocked, Saved("a"))
    assert blocked.read_text() == ""
