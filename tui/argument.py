"""Types of arguments that several words take."""

from __future__ import annotations

import argparse

from protocol.errors import UsageError


def amount(text: str) -> int:
    """A whole number of QU; `_` and `,` may group its digits."""
    digits = text.replace("_", "").replace(",", "")
    if not (digits.isascii() and digits.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of QU")
    return int(digits)


def count(text: str) -> int:
    """1 to 10,000."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 10_000):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 10000")
    return int(text)


def lease(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lease", metavar="LEASE", help="a lease, or the start of its id")


def span(text: str) -> int:
    """Seconds of "90m", "1h30m" or, without a unit, hours."""
    from tui.screens.instances_model import parse_span  # what a screen needs is loaded only then

    try:
        return parse_span(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
