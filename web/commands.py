"""`qubix run ...` command lines and job files, as the pages show them to be copied. Pure.

What is written here is what `qubix` reads: tests give each of these lines to its parser.
"""

from __future__ import annotations

import shlex
from typing import Final

from protocol.job_draft import Draft

_FLAGS: Final = (
    ("--gpu", "gpu"),
    ("--template", "template"),
    ("--image", "image"),
    ("--cpus", "cpus"),
    ("--memory", "memory"),
    ("--disk", "disk"),
    ("--hours", "hours"),
    ("--budget", "budget"),
)


def command(draft: Draft, provider: str = "", region: str = "") -> str:
    """The line that hires for a draft."""
    words = ["qubix", "run"]
    for flag, field in _FLAGS:
        if value := getattr(draft, field):
            words += [flag, value]
    if draft.internet:
        words.append("--internet")
    for flag, value in (("--region", region), ("--provider", provider)):
        if value:
            words += [flag, value]
    if draft.command:
        words += ["--", *words_of(draft.command)]
    return shlex.join(words)


def quoted(name: str) -> str:
    """As a filter takes a name."""
    return name if name.isascii() and name.isalnum() else "'" + name.replace("'", "") + "'"


def words_of(line: str) -> list[str]:
    """A line for a shell as arguments: its words, or the whole of it where a shell must read it."""
    try:
        words = shlex.split(line)
    except ValueError:
        return [line]
    return words if shlex.join(words) == line else [line]
