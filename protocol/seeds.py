"""What a person types to get at a wallet: a seed of 55 letters a-z, and where one that is none differs; a
passphrase.

Nothing here repeats a letter of it: what it says may be shown and logged.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Final

from protocol.errors import SeedInvalid

WALLET_SEED_LETTERS: Final = 55
MAX_PASSPHRASE_BYTES: Final = 1_024


@dataclass(frozen=True)
class SeedMistake:
    """What is wrong first. `at` counts from 1; for a seed of the wrong length it is where it ends."""

    at: int
    sentence: str


def mistake_in_seed(seed: str) -> SeedMistake | None:
    """None if it is a seed. A letter changed into another cannot be seen: each 55 letters are a seed."""
    strange = next((at for at, letter in enumerate(seed, 1) if letter not in string.ascii_lowercase), None)
    if strange is not None:
        sentence = f"the wallet seed has something other than a letter a-z at position {strange}"
        return SeedMistake(strange, sentence)
    if len(seed) != WALLET_SEED_LETTERS:
        sentence = f"the wallet seed has {len(seed)} letters; it must have {WALLET_SEED_LETTERS}"
        return SeedMistake(len(seed), sentence)
    return None


def check_wallet_seed(seed: str) -> str:
    """The seed itself; SeedInvalid naming what is wrong with it."""
    mistake = mistake_in_seed(seed)
    if mistake:
        raise SeedInvalid(mistake.sentence)
    return seed


def trouble_in_passphrase(passphrase: str) -> str:
    """Why this is none, in a sentence; "" if it is one."""
    if not passphrase:
        return "No passphrase was typed. Type one, or go on without."
    if not passphrase.isprintable() or len(passphrase.encode(errors="replace")) > MAX_PASSPHRASE_BYTES:
        return (
            f"A passphrase is one line of at most {MAX_PASSPHRASE_BYTES} bytes, without control characters."
        )
    if passphrase != passphrase.strip():
        return "It begins or ends with a space that nobody would see. Leave that out."
    return ""
