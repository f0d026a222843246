"""The pages of the command line are what the parser has, and the exit codes those of the errors."""

from __future__ import annotations

from pathlib import Path

from tests.unit.test_docs import page, rows, tree
from tui.cli_pages import FOLDER, pages
from tui.exit_codes import EXIT_CODES
from tui.verb_table import VERBS

DUE = "run `python -m tui.cli_pages` and commit docs/cli"


def test_the_pages_are_those_of_the_parser() -> None:
    kept = {path.name: path.read_text() for path in Path(FOLDER).glob("*.md")}
    made = pages()
    assert kept.keys() == made.keys() == {"README.md", *(f"{name}.md" for name in VERBS)}, DUE
    assert [name for name in made if kept[name] != made[name]] == [], DUE


def test_the_exit_codes_are_those_of_the_errors() -> None:
    assert EXIT_CODES.keys() == {0, 130} | {kind.exit_code for kind in tree()}
    described = {int(row[0]): row[1] for row in rows(page("errors.md"), 2) if row[0].isdigit()}
    assert described.keys() == EXIT_CODES.keys() - {0, 1, 130}


def test_every_option_has_words() -> None:
    lines = [line for text in pages().values() for line in text.splitlines() if line.startswith("| `")]
    assert lines and not [line for line in lines if line.endswith("|  |")]
