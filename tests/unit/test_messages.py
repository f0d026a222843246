"""Golden bytes: messages stay what they were on the wire, and old journals stay readable."""

from __future__ import annotations

from typing import Any

import pytest

from protocol import messages
from protocol.codec import Table
from protocol.messages import MESSAGES
from protocol.signing import NodeKey, verify
from tests.support.values import sample
from tests.vectors import regenerate
from tests.vectors.regenerate import SEED, TABLES, journal_name, load, message_entry

GOLDEN = load(regenerate.MESSAGES_FILE)
JOURNAL = load(regenerate.JOURNAL_FILE)
KINDS = [pytest.param(number, kind, id=kind.__name__) for number, kind in MESSAGES.kinds.items()]
JOURNAL_KINDS = [
    pytest.param(table, kind, id=journal_name(table, kind))
    for table in TABLES
    for kind in table.kinds.values()
]


def test_every_golden_message_still_has_its_kind() -> None:
    assert set(GOLDEN) == {kind.__name__ for kind in MESSAGES.kinds.values()}
    assert set(JOURNAL) == {journal_name(table, kind) for table in TABLES for kind in table.kinds.values()}


@pytest.mark.parametrize(("number", "kind"), KINDS)
def test_golden_bytes_are_understood_and_made_again(number: int, kind: type) -> None:
    entry = GOLDEN[kind.__name__]
    value = messages.decode(bytes.fromhex(entry["encoded"]))
    assert type(value) is kind
    assert messages.encode(value).hex() == entry["encoded"]
    signed = verify(bytes.fromhex(entry["signed"]))
    assert signed.message == value
    assert signed.signer == NodeKey(SEED).public
    assert NodeKey(SEED).sign(value).hex() == entry["signed"]


@pytest.mark.parametrize(("number", "kind"), KINDS)
def test_the_code_makes_what_is_golden(number: int, kind: type) -> None:
    assert message_entry(number, kind) == GOLDEN[kind.__name__], "see tests/vectors/regenerate.py"


@pytest.mark.parametrize(("table", "kind"), JOURNAL_KINDS)
def test_old_journals_stay_readable(table: Table, kind: type) -> None:
    encodings = JOURNAL[journal_name(table, kind)]
    values = [table.decode(bytes.fromhex(encoded), 1 << 20) for encoded in encodings]
    assert all(type(value) is kind for value in values)
    assert table.encode(sample(kind)).hex() == encodings[-1], "see tests/vectors/regenerate.py"


def test_a_changed_message_is_not_overwritten_unasked(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(regenerate, "MESSAGES_FILE", tmp_path / "messages.json")
    monkeypatch.setattr(regenerate, "JOURNAL_FILE", tmp_path / "journal.json")
    assert regenerate.main(set()) == 0
    assert load(tmp_path / "messages.json") == GOLDEN
    old = {**GOLDEN, "Ack": {"number": 6, "encoded": "00"}}
    regenerate._save(tmp_path / "messages.json", old)
    assert regenerate.main(set()) == 1
    assert load(tmp_path / "messages.json") == old
    assert "Ack" in capsys.readouterr().err
    assert regenerate.main({"Ack"}) == 0
    assert load(tmp_path / "messages.json") == GOLDEN
