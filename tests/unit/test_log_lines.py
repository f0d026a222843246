"""The daemon's log with hostile names in it."""

from __future__ import annotations

import logging
import sys

import pytest

from qubixd.log_lines import FORMAT, Lines


def line(message: str, *values: object, error: BaseException | None = None) -> str:
    exc_info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("qubix.test", logging.INFO, "", 0, message, values, exc_info)
    return Lines(FORMAT).format(record)


@pytest.mark.parametrize(
    "name", ["a\nERROR all is lost", "\x1b]52;c;cm0gLXJm\x07", "\u202egnp.exe", "\ud800", "a\r\0"]
)
def test_a_name_stays_within_its_line(name: str) -> None:
    said = line("no quote from %s", name)
    assert said.isprintable() and "no quote from" in said
    assert said.encode()


def test_what_people_write_stays_as_it_is() -> None:
    assert line("no quote from %s", "Zoë 東京 é").endswith("no quote from Zoë 東京 é")


def test_a_traceback_keeps_its_lines_and_nothing_else() -> None:
    try:
        raise ValueError("bad \x1b[2J name")
    except ValueError:
        said = line("failed", error=sys.exc_info()[1])
    assert said.count("\n") >= 3
    assert "\x1b" not in said and "bad \\x1b[2J name" in said
