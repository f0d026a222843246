"""This node's keys: made at first start, kept sealed, opened with a passphrase from a file."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from escrow_bridge import qubic
from ledger import keystore
from ledger.keystore import Cost, Secrets
from protocol.errors import ConfigInvalid, PassphraseWrong, QubixError, SeedInvalid
from protocol.seeds import check_wallet_seed, trouble_in_passphrase
from qubixd.config import Config
from qubixd.jobfiles import write_private

KEYSTORE: Final = "keystore"
COST: Final = Cost()
UNLOCK_FILE: Final = "passphrase"
CHANGING_FILE: Final = "passphrase.changing"
"""The node's own passphrase while it comes or goes: a node that dies then sees which by trying it."""
MAX_SECRET_FILE_BYTES: Final = 4_096


def load_or_create(config: Config) -> Secrets:
    """The node's secrets. SeedInvalid, PassphraseWrong, KeystoreBroken, ConfigInvalid."""
    path = config.root / KEYSTORE
    wanted = _seed_from(config.wallet_seed_file)
    if not path.exists():
        return make_with(config, wanted)
    settle_passphrase(config.root)
    secrets = keystore.open_(path, _passphrase(config, create=False))
    if wanted and wanted != secrets.wallet_seed:
        raise ConfigInvalid(
            f"this node already has another wallet in {path}; use another --data-dir for the seed in "
            f"{config.wallet_seed_file}"
        )
    return secrets


def make_with(config: Config, seed: str, seed_file: str = "") -> Secrets:
    """A new keystore with that seed, or the one in that file, or a fresh one. KeystoreBroken if there is a
    keystore; otherwise as `load_or_create`."""
    seed = seed or _seed_from(seed_file) or qubic.generate_seed()
    secrets = Secrets(os.urandom(32), seed)
    keystore.create(config.root / KEYSTORE, _passphrase(config, create=True), secrets)
    return secrets


def change_passphrase(
    config: Config, new: bytes | None, cost: Cost = COST, *, old: bytes | None = None
) -> Secrets:
    """Seal the keystore with another passphrase, or (None) with one of this node's own. `old` as typed,
    else as for a start. PassphraseWrong, KeystoreBroken, DiskFull: then everything is as it was."""
    root = config.root
    settle_passphrase(root)
    own, changing = root / UNLOCK_FILE, root / CHANGING_FILE
    old = _passphrase(config, create=False) if old is None else old
    try:
        if new is None:
            write_private(changing, os.urandom(32).hex().encode())
        elif own.exists():
            own.replace(changing)
        keystore.flush_directory(root)
        wanted = new if new is not None else changing.read_bytes()
        secrets = keystore.replace(root / KEYSTORE, old, wanted, cost)
    except QubixError:
        settle_passphrase(root)
        raise
    if new is None:
        changing.replace(own)
    changing.unlink(missing_ok=True)
    keystore.flush_directory(root)
    return secrets


def settle_passphrase(root: Path) -> None:
    """Bring a change that was cut short to the end that the keystore has seen."""
    changing = root / CHANGING_FILE
    (root / f".{CHANGING_FILE}.part").unlink(missing_ok=True)  # of write_private
    if not changing.exists():
        return
    try:
        keystore.open_(root / KEYSTORE, _read(str(changing), PassphraseWrong, "passphrase").encode())
    except PassphraseWrong:
        changing.unlink()
    else:
        changing.replace(root / UNLOCK_FILE)
    keystore.flush_directory(root)


def passphrase_in(name: str) -> bytes:
    """A new passphrase from a private file or a pipe. PassphraseWrong."""
    text = _read(name, PassphraseWrong, "passphrase")
    if trouble := trouble_in_passphrase(text):
        raise PassphraseWrong(f"the new passphrase is not taken: {trouble}")
    return text.encode()


def _seed_from(name: str) -> str:
    return check_wallet_seed(_read(name, SeedInvalid, "wallet seed")) if name else ""


def _passphrase(config: Config, *, create: bool) -> bytes:
    """From the named file, else from one of this node's own: that protects copies of the keystore,
    not a stolen disk."""
    if config.passphrase_file:
        text = _read(config.passphrase_file, PassphraseWrong, "passphrase")
        if not text:
            raise PassphraseWrong(f"the passphrase file {config.passphrase_file} is empty")
        return text.encode()
    own = config.root / UNLOCK_FILE
    if not own.exists():
        if not create:
            raise PassphraseWrong(f"{own} is missing; name your passphrase with --passphrase-file")
        write_private(own, os.urandom(32).hex().encode())
    return _read(str(own), PassphraseWrong, "passphrase").encode()


def _read(name: str, kind: type[SeedInvalid | PassphraseWrong], what: str) -> str:
    """A small private text file, without its last line break."""
    try:
        info = Path(name).stat()
        if stat.S_IMODE(info.st_mode) & 0o077:
            raise kind(f"the {what} file {name} can be read by others; run: chmod 600 {name}")
        if info.st_size > MAX_SECRET_FILE_BYTES:
            raise kind(f"the {what} file {name} is too large to be one")
        return Path(name).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise kind(f"the {what} file {name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise kind(f"the {what} file {name} is not text") from error
