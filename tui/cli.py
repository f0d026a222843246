"""The `qubix` command: one parser, one place where errors become a line and an exit code."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from protocol.errors import JobFileInvalid, QubixError, QueryInvalid, ScheduleInvalid, UsageError
from tui.exit_codes import exit_codes_text
from tui.safe import safe_line, safe_text
from tui.verb_table import VERBS as VERBS
from tui.words import prepared

INTERRUPTED: Final = 130
"""Exit code after Ctrl-C, as shells have it."""


HINT: Final = "`qubix VERB --help` shows examples. `qubix demo` shows it all on this machine."


class _Parser(argparse.ArgumentParser):
    """Reports mistakes as UsageError instead of printing and exiting on its own."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; `{self.prog} --help` shows how")


def make_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The whole command line; with `only` the arguments of that word alone, which is quicker."""
    everywhere = _Parser(add_help=False)
    everywhere.add_argument(
        "--data-dir", default=argparse.SUPPRESS, metavar="DIR", help="the node's directory"
    )
    everywhere.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="answer in JSON")
    top = _Parser(
        prog="qubix",
        description="Rent and offer computing time with no company in the middle.",
        epilog=f"{HINT}\n\n{exit_codes_text()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[everywhere],
        allow_abbrev=False,
    )
    words = top.add_subparsers(dest="verb", metavar="VERB", parser_class=_Parser)
    for name, verb in VERBS.items():
        wanted = only in (None, name)
        sub = words.add_parser(
            name,
            help=verb.help,
            description=f"{verb.help[0].upper()}{verb.help[1:]}.",
            epilog=verb.below() if wanted else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[everywhere],
            allow_abbrev=False,
        )
        if wanted:
            verb.add_arguments(sub)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. 0 done, 130 interrupted, else the error's own."""
    words = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a narrow locale must not end a command
    try:
        return _dispatch(words)
    except QubixError as error:
        report(error, as_json="--json" in words)
        return error.exit_code
    except FileNotFoundError:
        if _is_somewhere():
            raise
        gone = UsageError("the folder you are in is not there any more; go to another and try again")
        report(gone, as_json="--json" in words)
        return gone.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to flush at exit
        return 1


def _is_somewhere() -> bool:
    try:
        return bool(os.getcwd())
    except FileNotFoundError:
        return False


def _dispatch(words: list[str]) -> int:
    if words[:1] == ["__complete"]:
        from tui.completion import answer

        return answer(words[1:])
    options = parsed(words)
    if options.verb is None and not options.json and all(map(os.isatty, (0, 1, 2))):
        options = parsed(["tui", *words])
    if options.verb is None:
        make_parser("").print_help(sys.stderr)
        return UsageError.exit_code
    import asyncio

    try:
        return asyncio.run(VERBS[options.verb].load()(options))
    except asyncio.CancelledError:
        return INTERRUPTED


def parsed(words: Sequence[str]) -> argparse.Namespace:
    """What a command line says. UsageError."""
    ready, verb, command = prepared(words)
    if verb and verb not in VERBS:
        raise UsageError(_no_such_verb(verb))
    blank = argparse.Namespace(data_dir=None, json=False, command_words=command)
    return make_parser(verb).parse_args(ready, blank)


def _no_such_verb(word: str) -> str:
    from difflib import get_close_matches

    meant = get_close_matches(word, VERBS, n=1)
    perhaps = f"did you mean `qubix {meant[0]}`?" if meant else "`qubix --help` shows all of them"
    return f"qubix has no verb {word[:40]!r}; {perhaps}"


def report(error: QubixError, *, as_json: bool) -> None:
    """One line for a person, or one object for a program."""
    if as_json:
        from tui.show import print_json

        print_json({"error": {"code": error.code, "message": str(error)}})
    else:
        # Only what was written here may take several lines: a caret stands below the character it means.
        own = error.code in (QueryInvalid.code, JobFileInvalid.code, ScheduleInvalid.code)
        sentence = safe_text(str(error))[:2_000] if own else safe_line(str(error), 2_000)
        first, _, rest = sentence.partition("\n")
        print(f"error: {first} [{safe_line(error.code)}]" + (f"\n{rest}" if rest else ""), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
