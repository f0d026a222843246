"""Contracts keep to Qubic's restricted C++: what core's checker forbids does not occur in ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from escrow_bridge.devnet.compiler import QUBIX_HEADER, STRICT_FLAGS, compile_contracts
from tests.support.probes import CONTRACTS, QUBIX

HEADERS = sorted(CONTRACTS.values())
BY_NAME = pytest.mark.parametrize("header", HEADERS, ids=lambda path: path.stem)
WORDS = (
    r"\b(float|double|union|const_cast|QpiContext\w*|goto|new|delete|auto|template|operator"
    r"|char|int|long|short|unsigned|try|throw)\b"
)
CHARACTERS = ("[", "]", "#", "/", "%", '"', "'", "__", "...", "->", "&&&")
TYPES = r"(?:[us]int\d+|id|bit|bool|Array<.*>|HashMap<.*>|[A-Z]\w*)"


def code_of(header: Path) -> str:
    return re.sub(r"//.*", "", header.read_text())


def bodies(code: str) -> list[str]:
    """Bodies of all functions and procedures, found by their macros and matching braces."""
    found = []
    for macro in re.finditer(r"^    [A-Z_]+\([\w, ]*\)\n    \{\n", code, re.MULTILINE):
        depth, end = 1, macro.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(code[end], 0)
            end += 1
        found.append(code[macro.end() : end])
    return found


@BY_NAME
def test_no_forbidden_character(header: Path) -> None:
    assert [character for character in CHARACTERS if character in code_of(header)] == []


@BY_NAME
def test_no_forbidden_word(header: Path) -> None:
    assert re.findall(WORDS, code_of(header)) == []


@BY_NAME
def test_a_star_only_multiplies_and_an_ampersand_only_means_and(header: Path) -> None:
    code = code_of(header)
    assert not re.search(r"[\w>]\*|\*[\w(]|\(\s*\*", code), "a pointer"
    assert not re.search(r"(?<!&)&(?!&)", code), "a reference or an address"


@BY_NAME
def test_no_locals_on_the_stack(header: Path) -> None:
    code = code_of(header)
    assert len(bodies(code)) >= code.count("PUBLIC_") > 0
    for body in bodies(code):
        assert not re.search(rf"^\s*(?:const )?{TYPES} \w+\s*(?:;|=|\{{|\()", body, re.MULTILINE), body


@BY_NAME
def test_scopes_are_of_known_structs_only(header: Path) -> None:
    scopes = set(re.findall(r"(\w+)::", code_of(header)))
    assert scopes <= {"TransferType", "QUIET", "MONEY", "QUBIX"}


@BY_NAME
def test_globals_bear_the_contracts_name(header: Path) -> None:
    code, name = code_of(header), header.stem.upper()
    assert code.lstrip().startswith("using namespace QPI;")
    names = re.findall(r"^(?:constexpr \w+|struct) (\w+)", code, re.MULTILINE)
    assert all(found == name or found.startswith(name) for found in names)
    assert f"struct {name} : public ContractBase" in code and f"struct {name}2" in code


def test_division_states_its_type() -> None:
    assert not re.search(r"\b(div|mod)\(", code_of(QUBIX_HEADER))


def test_the_host_and_all_contracts_compile_without_a_warning() -> None:
    assert compile_contracts(CONTRACTS, flags=STRICT_FLAGS).exists()
    assert compile_contracts({QUBIX: QUBIX_HEADER}, flags=STRICT_FLAGS).exists()
