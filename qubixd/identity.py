"""This node's keys: made at first start, kept sealed, opened with a passphrase from a file."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from escrow_bridge import qubic
from ledger import keystore
from ledger.keystore import Secrets
from protocol.errors import ConfigInvalid, PassphraseWrong, SeedInvalid
from protocol.seeds import check_wallet_seed
from qubixd.config import Config
from qubixd.jobfiles import write_private

KEYSTORE: Final = "keystore"
UNLOCK_FILE: Final = "passphrase"
MAX_SECRET_FILE_BYTES: Final = 4_096


def load_or_create(config: Config) -> Secrets:
    """The node's secrets. SeedInvalid, PassphraseWrong, KeystoreBroken, ConfigInvalid."""
    path = config.root / KEYSTORE
    wanted = _seed_from(config.wallet_seed_file)
    if not path.exists():
        return make_with(config, wanted)
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
