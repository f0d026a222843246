"""The pages in docs/cli, one for each word of the command line, as the parser has them.

python -m tui.cli_pages         writes them anew; a test says when that is due
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from protocol.errors import QubixError
from tui.cli import make_parser
from tui.exit_codes import EXIT_CODES
from tui.verb_table import VERBS
from tui.words import TAKES_COMMAND

FOLDER: Final = Path(__file__).parents[1] / "docs" / "cli"
NOTE: Final = "<!-- Written by `python -m tui.cli_pages` from the parser; what is changed here is lost. -->"
EVERYWHERE: Final = ("--help", "--data-dir", "--json")
"""Options that every word takes; they are on the first page."""


def pages() -> dict[str, str]:
    """File name -> text, of all of them."""
    top = make_parser()
    words = next(one for one in top._actions if isinstance(one, argparse._SubParsersAction))
    made = {f"{name}.md": _page(name, parser) for name, parser in words.choices.items()}
    return {"README.md": _first_page(words.choices["status"]), **made}


def _first_page(any_word: argparse.ArgumentParser) -> str:
    everywhere = [one for one in any_word._actions if one.option_strings[-1:][0] in EVERYWHERE]
    lines = [
        NOTE,
        "# The command line",
        "",
        "`qubix VERB --help` says the same as these pages. `qubix completion` makes a shell know the words.",
        "",
        "| Verb | |",
        "|---|---|",
        *(f"| [`{name}`]({name}.md) | {_cell(verb.help)} |" for name, verb in VERBS.items()),
        "",
        "Every verb takes:",
        "",
        *_options(everywhere),
        "",
        "Settings come from the command line, else from `QUBIX_*` in the environment, else from the",
        "settings file. With `--json` standard output holds JSON and nothing else.",
        "",
        "## Exit codes",
        "",
        "| Exit | Meaning | Codes |",
        "|---|---|---|",
        *(f"| {exit_code} | {meaning} | {_codes(exit_code)} |" for exit_code, meaning in EXIT_CODES.items()),
        "",
        "`qubix exec` and `qubix ssh` end with the exit code of what they ran. [Errors](../errors.md) says",
        "what to do about each code.",
    ]
    return "\n".join(lines) + "\n"


def _codes(exit_code: int) -> str:
    kinds = (kind for kind in _tree(QubixError) if kind.exit_code == exit_code)
    return ", ".join(f"`{kind.code}`" for kind in kinds)


def _tree(kind: type[QubixError]) -> Iterator[type[QubixError]]:
    if kind.__module__ == QubixError.__module__:
        yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


def _page(name: str, parser: argparse.ArgumentParser) -> str:
    verb = VERBS[name]
    own = [one for one in parser._actions if one.option_strings[-1:] not in [[flag] for flag in EVERYWHERE]]
    words = [one for one in own if not one.option_strings]
    options = [one for one in own if one.option_strings]
    more = verb.below().partition(verb.examples[-1])[2].strip("\n")
    lines = [
        NOTE,
        f"# qubix {name}",
        "",
        f"{parser.description}",
        "",
        "```",
        _usage(name, words, options),
        "```",
    ]
    if words:
        lines += ["", "| Argument | |", "|---|---|"]
        lines += [f"| `{_cell(_shown(one))}` | {_says(one)} |" for one in words]
    if options:
        lines += ["", *_options(options)]
    lines += ["", "## Examples", "", "```sh", *verb.examples, "```"]
    if more:
        lines += ["", "```", more, "```"]
    lines += ["", "[All verbs, common options and exit codes](README.md)"]
    return "\n".join(lines) + "\n"


def _usage(name: str, words: Sequence[argparse.Action], options: Sequence[argparse.Action]) -> str:
    parts = ["qubix", name, *(["[OPTIONS]"] if options else [])]
    for one in words:
        shown = _shown(one)
        parts.append(
            {"?": f"[{shown}]", "*": f"[{shown} ...]", "+": f"{shown} ..."}.get(str(one.nargs), shown)
        )
    return " ".join([*parts, *(["[-- COMMAND ...]"] if name in TAKES_COMMAND else [])])


def _options(options: Sequence[argparse.Action]) -> list[str]:
    rows = [f"| `{', '.join(one.option_strings)}{_cell(_value(one))}` | {_says(one)} |" for one in options]
    return ["| Option | |", "|---|---|", *rows]


def _value(option: argparse.Action) -> str:
    return "" if option.nargs == 0 else f" {_shown(option)}"


def _shown(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    return "|".join(map(str, action.choices)) if action.choices else action.dest.upper()


def _says(action: argparse.Action) -> str:
    return _cell((action.help or "").replace("%%", "%"))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def write(folder: Path) -> None:
    """All pages, and none that is not of them."""
    folder.mkdir(exist_ok=True)
    made = pages()
    for old in folder.glob("*.md"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    write(FOLDER)
    sys.stdout.write(f"{FOLDER}\n")
