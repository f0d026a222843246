"""The error tree: what its description says is what the classes are."""

from __future__ import annotations

import inspect
import re

import pytest

from protocol import errors
from protocol.errors import PeerRefused, QubixError

CLASSES: dict[str, type[QubixError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, QubixError)
}
LINE = re.compile(r"^(?P<indent> *)(?P<name>[A-Z]\w+) *(?P<exit>\d*) *(?P<code>\S.*)?$")


def described() -> dict[str, tuple[str, int, str]]:
    """Class -> (parent, exit code, code or "") as the module's docstring has them."""
    tree: dict[str, tuple[str, int, str]] = {}
    above = {-1: ("Exception", 1)}
    for line in inspect.cleandoc(errors.__doc__ or "").splitlines()[2:]:
        match = LINE.match(line)
        assert match, f"not a line of the tree: {line!r}"
        depth = len(match["indent"]) // 2
        code = "" if "exit" in line or (match["code"] or "").startswith("(") else match["code"] or ""
        parent, parent_exit = above[depth - 1]
        above[depth] = (match["name"], int(match["exit"] or parent_exit))
        tree[match["name"]] = (parent, above[depth][1], code)
    return tree


def test_the_description_is_the_tree() -> None:
    tree = described()
    assert set(tree) == set(CLASSES)
    for name, (parent, exit_code, code) in tree.items():
        kind = CLASSES[name]
        assert kind.__base__ is not None
        assert (kind.__base__.__name__, kind.exit_code) == (parent, exit_code), name
        assert code in ("", kind.code), name


def test_every_leaf_is_described_with_its_code() -> None:
    tree = described()
    parents = {parent for parent, _, _ in tree.values()}
    assert {name for name, (_, _, code) in tree.items() if not code} == parents - {
        "Exception",
        "ImageUnavailable",
        "RelayRefused",
    } | {"PeerRefused"}


def test_codes_are_unique_and_well_formed() -> None:
    codes = [kind.code for kind in CLASSES.values()]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+([._][a-z]+)*", code) and len(code) <= 64 for code in codes)


def test_each_branch_has_its_own_exit_code_that_no_shell_uses() -> None:
    branches = [kind for kind in CLASSES.values() if kind.__base__ is QubixError]
    exits = [QubixError.exit_code, *(kind.exit_code for kind in branches)]
    assert sorted(exits) == list(range(1, len(branches) + 2))


@pytest.mark.parametrize("kind", [kind for kind in CLASSES.values() if kind is not PeerRefused])
def test_an_error_is_its_sentence(kind: type[QubixError]) -> None:
    assert str(kind("One clear sentence.")) == "One clear sentence."


def test_a_refusal_keeps_the_peers_code() -> None:
    error = PeerRefused("quote.changed", "the price rose")
    assert (error.refusal_code, str(error), error.code) == ("quote.changed", "the price rose", "peer.refused")
