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


SIMPLE = {"id", "bit", *(f"{sign}int{bits}" for sign in "us" for bits in (8, 16, 32, 64))}


def structs_of(code: str) -> list[tuple[str, list[str], list[str]]]:
    """Every nested struct: its name, the types of its fields, and what it inherits or declares beside."""
    found = []
    for name, body in re.findall(r"^    struct (\w+)\n    \{\n(.*?)^    \};", code, re.MULTILINE | re.DOTALL):
        lines = [line.strip() for line in body.splitlines() if line.strip()]
        fields = [re.fullmatch(r"([\w:]+(?:<[^;]*>)?) \w+;", line) for line in lines]
        types = [field[1] for field in fields if field]
        found.append((name, types, [line for line, field in zip(lines, fields, strict=True) if not field]))
    return found


def test_inputs_and_outputs_are_made_of_plain_types() -> None:
    """Integers, bits, ids, arrays of them, and earlier structs of such: the checker refuses all else, and
    refuses `bool`, which a stranger's byte could give a third value."""
    allowed = set(SIMPLE)
    for name, types, others in structs_of(code_of(QUBIX_HEADER)):
        inner = {re.sub(r"^(?:Array|BitArray)<(\w+), \w+>$", r"\1", kind) for kind in types}
        plain = not others and inner <= allowed
        assert plain or not name.endswith(("_input", "_output")), (name, types, others)
        allowed |= {name} if plain else set()
    assert not {"StateData"} & allowed, "a map is no plain type"


@BY_NAME
def test_no_variable_lives_in_the_contract_itself(header: Path) -> None:
    """State is in StateData only; outside structs and bodies stands nothing that looks like a field."""
    code = code_of(header)
    assert re.search(r"^    struct StateData$", code, re.MULTILINE)
    assert not re.search(
        r"^    (?:static |constexpr |const )?[\w:]+(?:<.*>)? \w+(?: = .*)?;", code, re.MULTILINE
    )


@BY_NAME
def test_globals_are_constants_known_when_compiling(header: Path) -> None:
    for line in code_of(header).splitlines():
        plain = re.match(r"\w", line)
        assert not plain or re.match(
            r"(using namespace QPI;|constexpr \w+ \w+ = |struct \w+|public:|protected:)", line
        ), line


@BY_NAME
def test_nothing_but_the_base_is_inherited_and_nothing_is_constructed(header: Path) -> None:
    code, name = code_of(header), header.stem.upper()
    assert re.findall(r"struct \w+ : (.*)", code) == ["public ContractBase"]
    assert not re.search(
        rf"~|\b{name}2?\(|\btypedef [^;]*,|\b(class|enum|namespace \w+ =|friend|static)\b", code
    )


def test_every_call_has_the_structs_its_macro_asks_for() -> None:
    code = code_of(QUBIX_HEADER)
    names = {name for name, _, _ in structs_of(code)}
    for kind, name in re.findall(r"^    ((?:PUBLIC|PRIVATE)_\w+)\((\w+)\)", code, re.MULTILINE):
        ends = ["input", "output"] + ["locals"] * kind.endswith("_WITH_LOCALS")
        assert {f"{name}_{end}" for end in ends} <= names, name
        assert kind.endswith("_WITH_LOCALS") or f"{name}_locals" not in names, name


def test_functions_never_write() -> None:
    code = code_of(QUBIX_HEADER)
    for body in re.findall(
        r"^    \w+_FUNCTION\w*\(\w+\)\n    \{\n(.*?)^    \}", code, re.MULTILINE | re.DOTALL
    ):
        assert "mut()" not in body and "transfer(" not in body and "burn(" not in body


def test_division_states_its_type() -> None:
    assert not re.search(r"\b(div|mod)\(", code_of(QUBIX_HEADER))


def test_the_host_and_all_contracts_compile_without_a_warning() -> None:
    assert compile_contracts(CONTRACTS, flags=STRICT_FLAGS).exists()
    assert compile_contracts({QUBIX: QUBIX_HEADER}, flags=STRICT_FLAGS).exists()
