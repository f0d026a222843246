"""The daemon's log: one line for each entry, whatever names and sentences of strangers are in it."""

from __future__ import annotations

import logging
import sys
from typing import Final

from protocol.errors import QubixError

FORMAT: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class Lines(logging.Formatter):
    """Writes out what could begin another line, move a terminal's cursor or turn the reading direction."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return visible(super().formatMessage(record))

    def formatStack(self, stack_info: str) -> str:
        return _each_line(stack_info)

    def formatException(self, ei: object) -> str:
        return _each_line(super().formatException(ei))  # type: ignore[arg-type]  # typeshed keeps its name private


def visible(text: str) -> str:
    """`text` with everything that is not printed as a character written out (`\\x1b`)."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines(FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def complain(error: QubixError) -> int:
    """Say on standard error why this process ends; its exit code."""
    sys.stderr.write(f"error: {error} [{error.code}]\n")
    return error.exit_code


def _each_line(text: str) -> str:
    return "\n".join(visible(line) for line in text.split("\n"))
