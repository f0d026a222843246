"""A node's seeds at rest: one file, sealed with a key stretched from a passphrase.

File: msgpack [header, sealed, check]. header: msgpack map with the version and the parameters of
argon2id (RFC 9106); sealed: XChaCha20-Poly1305 of the secrets with the header as associated data, so
that no bit of either can be changed; check: SHA-256 of header and sealed, which tells a damaged file
from a wrong passphrase and says nothing of the content.

All functions block (the key takes a good tenth of a second): call them from a thread.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets as random
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgpack
from argon2.low_level import Type, hash_secret_raw
from nacl.exceptions import CryptoError
from nacl.secret import Aead

from protocol.errors import DiskFull, KeystoreBroken, PassphraseWrong
from protocol.seeds import check_wallet_seed

FORMAT: Final = "qubix-keystore"
VERSION: Final = 1
NODE_SEED_BYTES: Final = 32
SALT_BYTES: Final = 16
MAX_FILE_BYTES: Final = 4_096


@dataclass(frozen=True)
class Secrets:
    """What must never be lost nor shown."""

    node_seed: bytes
    """Seed of the node's Ed25519 key, 32 bytes."""
    wallet_seed: str
    """Qubic seed, 55 letters a-z."""

    def __repr__(self) -> str:
        return "Secrets(hidden)"


@dataclass(frozen=True)
class Cost:
    """Work of one guess at the passphrase. The defaults are kept by every file that is made."""

    passes: int = 3
    memory_kib: int = 64 * 1024
    lanes: int = 2


_COST_LIMIT: Final = Cost(passes=64, memory_kib=4 * 1024 * 1024, lanes=64)
"""A file that asks for more is damaged or hostile: opening it must not take the machine down."""


def create(path: Path, passphrase: bytes, secrets: Secrets, cost: Cost = Cost()) -> None:
    """Write a new keystore, mode 0600: whole and on the disk when this returns, or not there at all.

    Never overwrites: KeystoreBroken if `path` exists. SeedInvalid, DiskFull.
    """
    check_wallet_seed(secrets.wallet_seed)
    if len(secrets.node_seed) != NODE_SEED_BYTES:
        raise ValueError(f"a node seed is {NODE_SEED_BYTES} bytes")
    try:
        _write_new(path, _seal(passphrase, secrets, cost))
    except FileExistsError as error:
        raise KeystoreBroken(f"{path} exists already and was left as it is; move it away first") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFull(f"the disk is full, no keys were written to {path}") from error
        raise KeystoreBroken(f"no keys could be written to {path}: {error.strerror}") from error


def open_(path: Path, passphrase: bytes) -> Secrets:
    """PassphraseWrong; KeystoreBroken if it is missing, damaged, newer than this qubix or readable by
    others than its owner."""
    header, sealed = _parse(path, _read(path))
    parameters = _parameters(path, header)
    key = _stretch(passphrase, parameters["salt"], _cost_of(path, parameters))
    try:
        plain = Aead(key).decrypt(sealed, header)
    except CryptoError as error:
        raise PassphraseWrong(f"the passphrase does not open {path}") from error
    fields = msgpack.unpackb(plain)
    return Secrets(fields["node_seed"], fields["wallet_seed"])


def replace(path: Path, old: bytes, new: bytes, cost: Cost = Cost()) -> Secrets:
    """Seal the same secrets with another passphrase; what they are. At every moment, also after a power cut,
    `path` is a whole keystore that one of the two opens.

    PassphraseWrong, KeystoreBroken, DiskFull: then nothing has changed.
    """
    secrets = open_(path, old)
    for left in path.parent.glob(f".{path.name}.*"):  # of a change that was cut short
        left.unlink(missing_ok=True)
    unfinished = path.with_name(f".{path.name}.{random.token_hex(8)}")
    try:
        _write_whole(unfinished, _seal(new, secrets, cost))
        if open_(unfinished, new) != secrets:
            raise KeystoreBroken(f"what was written beside {path} is not what was meant; nothing was changed")
        unfinished.replace(path)
        flush_directory(path.parent)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFull(f"the disk is full, {path} was left as it was") from error
        raise KeystoreBroken(f"{path} could not be replaced: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return secrets


def _seal(passphrase: bytes, secrets: Secrets, cost: Cost) -> bytes:
    salt = random.token_bytes(SALT_BYTES)
    header: bytes = msgpack.packb(
        {
            "format": FORMAT,
            "version": VERSION,
            "kdf": "argon2id",
            "passes": cost.passes,
            "memory_kib": cost.memory_kib,
            "lanes": cost.lanes,
            "salt": salt,
        }
    )
    plain: bytes = msgpack.packb({"node_seed": secrets.node_seed, "wallet_seed": secrets.wallet_seed})
    sealed = bytes(Aead(_stretch(passphrase, salt, cost)).encrypt(plain, header))
    packed: bytes = msgpack.packb([header, sealed, hashlib.sha256(header + sealed).digest()])
    return packed


def _stretch(passphrase: bytes, salt: bytes, cost: Cost) -> bytes:
    return hash_secret_raw(
        passphrase, salt, cost.passes, cost.memory_kib, cost.lanes, hash_len=Aead.KEY_SIZE, type=Type.ID
    )


def _write_new(path: Path, content: bytes) -> None:
    """Write beside it, flush, then link into place: a link is atomic and never replaces a file."""
    unfinished = path.with_name(f".{path.name}.{random.token_hex(8)}")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        _write_whole(unfinished, content)
        os.link(unfinished, path)
        flush_directory(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def _write_whole(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def flush_directory(directory: Path) -> None:
    """Its files' names are on the disk when this returns."""
    if os.name == "posix":  # elsewhere a directory cannot be opened, nor need it be
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if os.name == "posix" and mode & 0o077:
                raise KeystoreBroken(f"{path} can be read by others (mode {mode:o}); run: chmod 600 {path}")
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise KeystoreBroken(f"the keys at {path} cannot be read: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise _damaged(path)
    return content


def _parse(path: Path, content: bytes) -> tuple[bytes, bytes]:
    """The header and the sealed part, as they were written."""
    match _unpack(content):
        case [bytes(header), bytes(sealed), bytes(check)]:
            if hashlib.sha256(header + sealed).digest() == check:
                return header, sealed
    raise _damaged(path)


def _parameters(path: Path, header: bytes) -> dict[str, Any]:
    fields = _unpack(header)
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise _damaged(path)
    if fields.get("version") != VERSION:
        raise KeystoreBroken(f"{path} was made by a newer qubix; install that version or newer")
    return fields


def _cost_of(path: Path, fields: dict[str, Any]) -> Cost:
    match fields:
        case {
            "kdf": "argon2id",
            "passes": int(p),
            "memory_kib": int(m),
            "lanes": int(n),
            "salt": bytes(salt),
        }:
            limit = _COST_LIMIT
            in_range = 0 < p <= limit.passes and 0 < n <= limit.lanes and 8 * n <= m <= limit.memory_kib
            if in_range and len(salt) == SALT_BYTES:
                return Cost(p, m, n)
    raise _damaged(path)


def _unpack(content: bytes) -> object:
    """The msgpack value, or None if it is not one."""
    try:
        value: object = msgpack.unpackb(content)
    except Exception:  # msgpack raises several unrelated classes for bad input
        return None
    return value


def _damaged(path: Path) -> KeystoreBroken:
    return KeystoreBroken(f"{path} is damaged or no qubix keystore; restore it from a backup")
