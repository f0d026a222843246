"""`qubix completion`: what makes a shell complete qubix's words, leases, providers and templates.

The shell's part is short: it hands the words so far to `qubix __complete`, which answers with one candidate
a line (`value<tab>description`), or with FILES where the shell's own completion of files is wanted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from protocol.errors import QubixError
from tui.cli import make_parser
from tui.safe import safe_line
from tui.verb_table import VERBS
from tui.words import TAKES_COMMAND, verb_in

FILES: Final = ":files"
HIDDEN: Final = "__complete"
MAX_CANDIDATES: Final = 500
MAX_DESCRIPTION: Final = 60
SHELLS: Final = ("bash", "zsh", "fish")
FILE_METAVARS: Final = frozenset({"FILE", "DIR", "job.yaml", "SOURCE", "TARGET", "PATH", "HERE[:THERE]"})

BASH: Final = """\
_qubix() {
    local words out
    words=("${COMP_WORDS[@]:1:COMP_CWORD}")
    out="$(qubix __complete "${words[@]}" 2>/dev/null)"
    COMPREPLY=()
    if [[ "$out" == ":files" ]]; then
        compopt -o default
        return
    fi
    local value rest
    while IFS=$'\\t' read -r value rest; do
        [[ -n "$value" ]] && COMPREPLY+=("$value")
    done <<< "$out"
}
complete -F _qubix qubix
"""
ZSH: Final = """\
#compdef qubix
_qubix() {
    local -a found
    local out line value
    out="$(qubix __complete "${(@)words[2,CURRENT]}" 2>/dev/null)"
    if [[ "$out" == ":files" ]]; then
        _files
        return
    fi
    for line in "${(@f)out}"; do
        value="${line%%$'\\t'*}"
        [[ -n "$value" ]] && found+=("${value//:/\\\\:}:${line#*$'\\t'}")
    done
    _describe 'qubix' found
}
if [[ "$funcstack[1]" == "_qubix" ]]; then _qubix "$@"; else compdef _qubix qubix; fi
"""
FISH: Final = """\
function __qubix_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l out (qubix __complete $words[2..-1] 2>/dev/null)
    if test "$out" = ":files"
        __fish_complete_path (commandline -ct)
    else
        printf '%s\\n' $out
    end
end
complete -c qubix -f -a '(__qubix_complete)'
"""
SCRIPTS: Final = {"bash": BASH, "zsh": ZSH, "fish": FISH}

Candidate = tuple[str, str]
"""A value, and what it is for people; empty for nothing to say."""
Source = Callable[[str, str], Iterable[Candidate]]
"""(metavar, verb) -> what may stand there now, as the daemon knows it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="which shell the lines are for")


async def completion(options: argparse.Namespace) -> int:
    if options.json:
        from tui.show import print_json

        print_json({"shell": options.shell, "script": SCRIPTS[options.shell]})
    else:
        sys.stdout.write(SCRIPTS[options.shell])
    return 0


def answer(words: Sequence[str]) -> int:
    """`qubix __complete WORDS...`: the last word is the one being typed. Never an error: a shell waits."""
    from tui.completion_live import source_for

    *before, typed = words or [""]
    try:
        found = candidates(before, typed, source_for(before))
    except (QubixError, SystemExit):
        return 0
    if found is None:
        sys.stdout.write(f"{FILES}\n")
        return 0
    for value, says in found[:MAX_CANDIDATES]:
        sys.stdout.write(f"{value}\t{safe_line(says, MAX_DESCRIPTION)}\n")
    return 0


def candidates(before: Sequence[str], typed: str, source: Source) -> list[Candidate] | None:
    """What may stand where `typed` is begun, after the words `before`; None for files of the shell's own."""
    verb = verb_in(before)
    if not verb:
        if before and before[-1] == "--data-dir":
            return None
        words = [(name, one.help) for name, one in VERBS.items()]
        return _beginning(typed, [*words, *_options(make_parser(""), before)] if typed[:1] == "-" else words)
    if verb not in VERBS or (verb in TAKES_COMMAND and "--" in before):
        return None
    found = _in_verb(verb, before, typed, source)
    return None if found is None else _beginning(typed, found)


def _in_verb(verb: str, before: Sequence[str], typed: str, source: Source) -> Iterable[Candidate] | None:
    parser = _parser_of(verb)
    options = {flag: one for one in parser._actions for flag in one.option_strings}
    behind = list(before[list(before).index(verb) + 1 :])
    waits = options.get(behind[-1]) if behind else None
    if waits is not None and waits.nargs != 0:
        return _of_action(waits, verb, source)
    if typed.startswith("-"):
        return _options(parser, behind)
    place = sum(1 for _ in _plain(behind, options))
    words = [one for one in parser._actions if not one.option_strings]
    if not words:
        return []
    repeated = words[-1].nargs in ("*", "+", argparse.REMAINDER)
    if place < len(words):
        return _of_action(words[place], verb, source)
    return _of_action(words[-1], verb, source) if repeated else []


def _parser_of(verb: str) -> argparse.ArgumentParser:
    top = make_parser(verb)
    found = next(one for one in top._actions if isinstance(one, argparse._SubParsersAction))
    parser: argparse.ArgumentParser = found.choices[verb]
    return parser


def _plain(words: Sequence[str], options: Mapping[str, argparse.Action]) -> Iterator[str]:
    """The words that are neither options nor their values."""
    before = ""
    for word in words:
        takes = before in options and options[before].nargs != 0
        if not takes and not word.startswith("-"):
            yield word
        before = "" if takes else word


def _options(parser: argparse.ArgumentParser, used: Sequence[str]) -> list[Candidate]:
    """The long names of those not used yet."""
    found = []
    for one in parser._actions:
        again = isinstance(one, argparse._AppendAction)
        if one.option_strings and (again or not set(one.option_strings) & set(used)):
            found.append((one.option_strings[-1], (one.help or "").replace("%%", "%")))
    return found


def _of_action(action: argparse.Action, verb: str, source: Source) -> Iterable[Candidate] | None:
    metavar = str(action.metavar or "")
    if action.choices:
        return [(str(choice), "") for choice in action.choices]
    if metavar in FILE_METAVARS:
        return None
    return source(metavar, verb)


def _beginning(typed: str, found: Iterable[Candidate]) -> list[Candidate]:
    unique = dict(found)
    return [(value, unique[value]) for value in unique if value.startswith(typed)]
