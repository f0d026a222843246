"""The reasons of a score (protocol.score) in the reader's language: they travel as English sentences."""

from __future__ import annotations

import re
from typing import Final

from web.safe import shown
from web.words import Words

_KNOWN: Final = tuple(
    (re.compile(pattern), said)
    for pattern, said in (
        ("nobody has rented here yet, as far as is known", "Nobody has rented here yet, as far as is known."),
        ("1 caller has paid it", "One caller has paid it."),
        (r"(?P<a>\d+) callers have paid it", "%(a)s callers have paid it."),
        (
            r"leases of your own: (?P<a>\d+) of (?P<b>\d+) known here",
            "Leases of the mirroring node itself: %(a)s of %(b)s known here.",
        ),
        (
            r"leases that failed by its fault: (?P<a>\d+) of (?P<b>\d+) known here",
            "Leases that failed by its fault: %(a)s of %(b)s known here.",
        ),
        (
            "it is not in the contract's registry, so what strangers say of it counts little",
            "It is not in the contract's registry, so what strangers say of it counts little.",
        ),
        (r"it has lost (?P<a>\d+) disputes", "Disputes it has lost: %(a)s."),
        (
            r"(?P<a>\d+) of (?P<b>\d+) receipts could not be looked up on the chain",
            "%(a)s of %(b)s receipts could not be looked up on the chain.",
        ),
        ("its jobs are slow to become ready", "Its jobs are slow to become ready."),
        (
            "it has no offer, so what its price is worth is not known",
            "It has no offer, so what its price is worth is not known.",
        ),
        (
            "its GPU is not in the catalogue, so what its price is worth is not known",
            "Its GPU is not in the catalogue, so what its price is worth is not known.",
        ),
        (
            r"it asks (?P<a>[\d,]+) QU an hour for what is worth (?P<b>[\d,]+) by --qu-per-credit",
            "It asks %(a)s QU an hour for what the catalogue values at %(b)s.",
        ),
    )
)
SAID: Final = tuple(said for _, said in _KNOWN)
"""All that may be said here."""


def sentence(reason: str, words: Words) -> str:
    """One that is not known here stays as it is."""
    for pattern, said in _KNOWN:
        if found := pattern.fullmatch(reason):
            numbers = {
                name: words.number(int(text.replace(",", ""))) for name, text in found.groupdict().items()
            }
            return words.say(said, **numbers) if numbers else words.say(said)
    return shown(reason, 200)
