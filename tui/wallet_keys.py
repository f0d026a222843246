"""Keys for a front end: a program of the daemon's makes, keeps and opens them, one question a process.

A seed is shown to its owner and typed by him, so it passes through here: by pipes, never through arguments,
the environment or a file, and nothing here keeps it. The same holds for the passphrase.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from protocol.errors import StartFailed, UsageError
from protocol.seeds import MAX_PASSPHRASE_BYTES as MAX_PASSPHRASE_BYTES
from protocol.seeds import check_wallet_seed
from protocol.seeds import trouble_in_passphrase as trouble_in_passphrase
from tui.client import error_of
from tui.processes import module_command

KEYSTORE: Final = "keystore"
UNLOCK_FILES: Final = ("passphrase", "passphrase.changing")
"""One lies beside the keystore where nobody chose a passphrase (qubixd/identity.py)."""
BACKUP_OPEN: Final = "seed-not-backed-up"
"""Lies there until somebody has shown that he has a copy."""
MAX_SEED_BYTES: Final = 256


@dataclass(frozen=True)
class OwnSeed:
    identity: str
    letters: str = field(repr=False)


def has_keys(directory: Path) -> bool:
    return (directory / KEYSTORE).exists()


def wants_passphrase(directory: Path) -> bool:
    """Whether its owner has to type one before these keys can be used."""
    return has_keys(directory) and not any((directory / name).exists() for name in UNLOCK_FILES)


def remember_backup(directory: Path, *, done: bool) -> None:
    """Whether its owner has shown that he has a copy of the seed; until then the wallet reminds him."""
    if done:
        (directory / BACKUP_OPEN).unlink(missing_ok=True)
    else:
        (directory / BACKUP_OPEN).touch(0o600)


def backup_open(directory: Path) -> bool:
    return (directory / BACKUP_OPEN).exists()


async def draft(directory: Path) -> OwnSeed:
    """A fresh seed; it is kept nowhere until `keep`."""
    return await _with_seed_back(directory, "draft")


async def identity_of(directory: Path, seed: str) -> str:
    """Whose seed this is. SeedInvalid."""
    return (await _ask(directory, "identity", seed=check_wallet_seed(seed)))["identity"]


async def keep(directory: Path, seed: str, passphrase: str = "") -> str:
    """Make the keystore of a directory that has none; the identity. SeedInvalid, ConfigInvalid."""
    with passphrase_pipe(passphrase) as (words, descriptors):
        answer = await _ask(directory, "import", words, seed=check_wallet_seed(seed), descriptors=descriptors)
    return answer["identity"]


async def export(directory: Path, passphrase: str = "") -> OwnSeed:
    """The seed of a directory's keystore. PassphraseWrong, ConfigInvalid."""
    with passphrase_pipe(passphrase) as (words, descriptors):
        return await _with_seed_back(directory, "export", words, descriptors)


async def change_passphrase(directory: Path, old: str, new: str) -> None:
    """Seal the keys of a directory anew; "" where there is no passphrase or shall be none any more.
    PassphraseWrong, KeystoreBroken, DiskFull: then all is as it was."""
    with (
        passphrase_pipe(old) as (words, reading),
        passphrase_pipe(new, "--new-passphrase-file") as (more, also),
    ):
        all_words = [*words, *(more or ["--no-passphrase"])]
        await _ask(directory, "passphrase", all_words, descriptors=(*reading, *also))


@contextmanager
def passphrase_pipe(
    passphrase: str, option: str = "--passphrase-file"
) -> Iterator[tuple[list[str], tuple[int, ...]]]:
    """Options and descriptors that hand a passphrase to a program of the daemon's; none for none."""
    if not passphrase:
        yield [], ()
        return
    if trouble := trouble_in_passphrase(passphrase):
        raise UsageError(trouble)
    reading, writing = os.pipe()
    try:
        os.write(writing, passphrase.encode())
        os.close(writing)
        yield [option, f"/dev/fd/{reading}"], (reading,)
    finally:
        os.close(reading)


async def _with_seed_back(
    directory: Path, action: str, words: list[str] | None = None, descriptors: tuple[int, ...] = ()
) -> OwnSeed:
    """What the program says, and the seed that it writes into a pipe."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as pipe:
        try:
            words = [*(words or ()), "--to-fd", str(writing)]
            answer = await _ask(directory, action, words, descriptors=(*descriptors, writing))
        finally:
            os.close(writing)
        return OwnSeed(answer["identity"], check_wallet_seed(pipe.read(MAX_SEED_BYTES)))


async def _ask(
    directory: Path,
    action: str,
    words: list[str] | None = None,
    *,
    seed: str = "",
    descriptors: tuple[int, ...] = (),
) -> dict[str, str]:
    """Its answer; the error it names otherwise."""
    process = await asyncio.create_subprocess_exec(
        *module_command("qubixd.wallet", action, "--data-dir", str(directory), "--json", *(words or ())),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        pass_fds=descriptors,
    )
    try:
        said, _ = await process.communicate(seed.encode() + b"\n")
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    return _answer(said, process.returncode or 0)


def _answer(said: bytes, exit_code: int) -> dict[str, str]:
    match json.loads(said or b"{}"):
        case {"error": {"code": str(code), "message": str(message)}}:
            raise error_of(code, message, exit_code or 1)
        case {"identity": str(), **_rest} as answer if exit_code == 0:
            return {str(name): str(value) for name, value in answer.items()}
    raise StartFailed(f"the program that keeps the keys ended with exit code {exit_code} and no answer")
