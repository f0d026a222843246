"""Writes the golden vectors of the wire and the journal: `python -m tests.vectors.regenerate [NAME ...]`.

wire/messages.json holds one entry a message kind: its sample as bytes, bare and in an envelope signed
with a fixed key. An entry that would change is refused: old nodes would no longer understand new ones.
Where that is meant (before a release, or with a new protocol version), name the kind on the command line.

wire/journal.json holds a list of encodings a kind of event, effect and state. A new one is added beside
the old ones, which stay: journals written by any version must remain readable.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol.codec import Table
from protocol.lease_model import EFFECTS, EVENTS
from protocol.lease_state import STATES
from protocol.messages import MESSAGES
from protocol.signing import NodeKey
from tests.support.values import sample

FOLDER: Final = Path(__file__).parent / "wire"
MESSAGES_FILE: Final = FOLDER / "messages.json"
JOURNAL_FILE: Final = FOLDER / "journal.json"
SEED: Final = bytes(range(32))
TABLES: Final = (EVENTS, EFFECTS, STATES)


def message_entry(number: int, kind: type) -> dict[str, Any]:
    """The golden entry of one message kind as the code makes it today."""
    value = sample(kind)
    return {
        "number": number,
        "value": readable(value),
        "encoded": MESSAGES.encode(value).hex(),
        "signed": NodeKey(SEED).sign(value).hex(),
    }


def readable(value: Any) -> Any:
    """A value for people to compare: maps and lists, bytes as hex."""
    return _hex(msgspec.to_builtins(value, builtin_types=(bytes,)))


def _hex(value: Any) -> Any:
    match value:
        case bytes():
            return value.hex()
        case dict():
            return {key: _hex(item) for key, item in value.items()}
        case list() | tuple():
            return [_hex(item) for item in value]
        case _:
            return value


def journal_name(table: Table, kind: type) -> str:
    return f"{table.name}.{kind.__name__}"


def load(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _save(path: Path, entries: dict[str, Any]) -> None:
    path.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n")


def main(may_change: set[str]) -> int:
    messages, refused = load(MESSAGES_FILE), []
    for number, kind in MESSAGES.kinds.items():
        entry = message_entry(number, kind)
        if messages.get(kind.__name__, entry) != entry and kind.__name__ not in may_change:
            refused.append(kind.__name__)
        else:
            messages[kind.__name__] = entry
    journal = load(JOURNAL_FILE)
    for table in TABLES:
        for kind in table.kinds.values():
            encodings = journal.setdefault(journal_name(table, kind), [])
            encoded = table.encode(sample(kind)).hex()
            if encoded not in encodings:
                encodings.append(encoded)
    _save(MESSAGES_FILE, messages)
    _save(JOURNAL_FILE, journal)
    if refused:
        sys.stderr.write(f"left as they are: {', '.join(refused)}; name those that are meant to change\n")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main(set(sys.argv[1:])))
