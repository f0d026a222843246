"""Words of a command line made ready for its parser, which knows no commands within commands. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

TAKES_COMMAND: Final = ("run",)
"""Words whose part behind `--` is a command for the job."""
ORDERS: Final = ("--sort", "--order-by")


def prepared(words: Sequence[str]) -> tuple[list[str], str, list[str]]:
    """What the parser gets, the verb ("" for none), and the command that stood behind `--`."""
    verb = verb_in(words)
    command: list[str] = []
    ready = list(words)
    if verb in TAKES_COMMAND and "--" in ready:
        at = ready.index("--")
        ready, command = ready[:at], ready[at + 1 :]
    return with_orders(with_dashes(ready)), verb, command


def verb_in(words: Sequence[str]) -> str:
    """The first word that is neither an option nor the directory of one."""
    before = ""
    for word in words:
        if not word.startswith("-") and before != "--data-dir":
            return word
        before = word
    return ""


def with_orders(words: Sequence[str]) -> list[str]:
    """`--sort -score` as `--sort=-score`: the parser would take the order for an option."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in ORDERS and word.startswith("-") and word[1:2] != "-":
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def with_dashes(words: list[str]) -> list[str]:
    """`exec LEASE ls -l` as `exec LEASE -- ls -l`: the options behind the program are the program's."""
    plain, at = 0, 0
    while at < len(words) and words[at] != "--":
        if words[at] == "--data-dir":
            at += 1
        elif not words[at].startswith("-"):
            plain += 1
            if plain == 1 and words[at] != "exec":
                break
            if plain == len(("exec", "LEASE", "COMMAND")):
                return [*words[:at], "--", *words[at:]]
        at += 1
    return words
