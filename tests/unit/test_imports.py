"""The rooms' doors: which package may import which (docs/adr/0001)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT: dict[str, set[str]] = {
    "protocol": set(),
    "ledger": {"protocol"},
    "escrow_bridge": {"protocol"},
    "qubix": {"protocol"},
    "tui": {"protocol", "qubix"},
    "qubixd": {"protocol", "ledger", "escrow_bridge"},
    "web": {"protocol", "ledger"},
}
PURE = {"trio", "asyncio", "socket", "threading", "subprocess", "time", "random", "secrets", "sqlite3"}
"""Modules that would bring I/O, a clock or chance into `protocol`."""


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the full name"
            assert node.module is not None
            yield node.module


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_room_imports_only_rooms_it_may(package: str) -> None:
    forbidden = MAY_IMPORT.keys() - MAY_IMPORT[package] - {package} | {"tests"}
    wrong = {
        str(path.relative_to(ROOT)): bad for path in modules(package) if (bad := roots(path) & forbidden)
    }
    assert not wrong


def test_every_room_has_rules() -> None:
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert rooms <= MAY_IMPORT.keys()
    assert modules("protocol") and modules("qubixd")


def test_only_wire_libp2p_knows_libp2p() -> None:
    knows = {path for package in MAY_IMPORT for path in modules(package) if roots(path) & {"libp2p"}}
    assert all(path.is_relative_to(ROOT / "qubixd" / "wire_libp2p") for path in knows)


def test_protocol_is_pure() -> None:
    wrong = {path.name: bad for path in modules("protocol") if (bad := roots(path) & PURE)}
    assert not wrong


def test_asyncio_and_trio_never_meet_in_one_process() -> None:
    for package in ("qubixd", "escrow_bridge"):
        assert not {path for path in modules(package) if roots(path) & {"asyncio", "aiosqlite", "textual"}}
    for package in ("tui", "web"):
        assert not {path for path in modules(package) if roots(path) & {"trio"}}


def test_the_web_knows_of_the_ledger_only_what_is_public() -> None:
    known = {name for path in modules("web") for name in imports(path) if name.startswith("ledger")}
    assert known == {"ledger.mirror_schema"}


def test_the_client_is_of_no_event_loop() -> None:
    assert not {path for path in modules("qubix") if roots(path) & {"trio", "asyncio"}}
