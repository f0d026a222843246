"""Every screen looks as it did, in three sizes and two themes.

After a change that is meant: `python -m tests.support.tui_snapshots`, look at the pictures, commit them.
"""

from __future__ import annotations

import pytest

from tests.support.tui_snapshots import APART, FOLDER, GROUPS, pictures

MAX_BYTES = 4_000_000


@pytest.mark.parametrize("group", [*GROUPS, *APART])
def test_screens_look_as_they_did(group: str) -> None:
    differ = [
        name
        for name, svg in pictures(group).items()
        if not (FOLDER / name).exists() or (FOLDER / name).read_text() != svg
    ]
    renew = f"if that is meant: python -m tests.support.tui_snapshots {group}"
    assert not differ, f"{', '.join(differ)} look different; {renew}"


def test_the_pictures_stay_small_and_hold_nothing_that_loads() -> None:
    texts = [path.read_text() for path in FOLDER.glob("*.svg")]
    assert texts and sum(map(len, texts)) < MAX_BYTES
    assert not [text for text in texts if "@font-face" in text or "<script" in text or "href" in text]
