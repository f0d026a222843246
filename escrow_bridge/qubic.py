"""Qubic's primitives: K12, seeds, keys, identities, SchnorrQ signatures and transactions.

Layouts and key derivation as in Qubic core (all integers little-endian). FourQ and SchnorrQ come from
the native library inside QubiPy (nothing else of QubiPy is imported, as its clients bring HTTP and
asyncio along), or from schnorrq.py where it has none for the machine, such as Linux on Arm.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import secrets
import string
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from escrow_bridge import schnorrq
from escrow_bridge.schnorrq import k12 as k12
from protocol.errors import MessageInvalid, SeedInvalid, UsageError
from protocol.units import MAX_QU, Qu, QubicId, Tick

KEY_BYTES: Final = 32
DIGEST_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
SEED_LETTERS: Final = 55
IDENTITY_LETTERS: Final = 60
MAX_INPUT_BYTES: Final = 1_024

_ALPHABET: Final = 26
_WORD_LETTERS: Final = 14
_CHECKSUM_LETTERS: Final = 4
_CHECKSUM_MASK: Final = 0x3FFFF
_HEAD: Final = struct.Struct("<32s32sqIHH")
MIN_TRANSACTION_BYTES: Final = _HEAD.size + SIGNATURE_BYTES
MAX_TRANSACTION_BYTES: Final = MIN_TRANSACTION_BYTES + MAX_INPUT_BYTES


PURE_VARIABLE: Final = "QUBIX_PURE_SIGNATURES"
"""Set in the environment (by tests), it keeps QubiPy's native library out."""

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Signatures:
    """One of the two implementations; they give the same bytes and the same verdicts."""

    public_key: Callable[[bytes], bytes]
    sign: Callable[[bytes, bytes, bytes], bytes]
    verify: Callable[[bytes, bytes, bytes], bool]


@functools.cache
def native() -> Any | None:
    """QubiPy's module around its native library; None, said once, where there is none.

    Loaded at first use, so that who never signs never loads it.
    """
    try:
        if os.environ.get(PURE_VARIABLE):
            raise ImportError(f"{PURE_VARIABLE} is set")
        return importlib.import_module("qubipy.crypto.utils")
    except (ImportError, OSError) as error:
        _LOG.info(
            "QubiPy has no native library for this machine (%s): Qubic signatures are made in Python, "
            "several times slower, and their timing is not hidden from other programs on this machine",
            error,
        )
        return None


@functools.cache
def _signatures() -> _Signatures:
    library = native()
    if library is None:
        return _Signatures(schnorrq.public_key, schnorrq.sign, schnorrq.verify)

    def verify(public_key: bytes, digest: bytes, signature: bytes) -> bool:
        # The library alone takes what current nodes refuse.
        return schnorrq.well_formed(public_key, signature) and library.verify(public_key, digest, signature)

    return _Signatures(library.get_public_key_from_private_key, library.sign, verify)


def _sized(name: str, value: bytes, size: int) -> bytes:
    # The native library reads raw memory: a short buffer would be read past its end.
    if len(value) != size:
        raise ValueError(f"{name} must have {size} bytes, not {len(value)}")
    return bytes(value)


def verify(public_key: QubicId, digest: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) is a SchnorrQ signature of `digest` (32 bytes) by `public_key`."""
    return bool(
        _signatures().verify(
            _sized("public key", public_key, KEY_BYTES),
            _sized("digest", digest, DIGEST_BYTES),
            _sized("signature", signature, SIGNATURE_BYTES),
        )
    )


def generate_seed() -> str:
    """A fresh random seed, 55 letters a-z (258 bits)."""
    return "".join(secrets.choice(string.ascii_lowercase) for _ in range(SEED_LETTERS))


class Wallet:
    """One Qubic account that can sign. Neither seed nor key appears in its repr."""

    __slots__ = ("_public_key", "_subseed")

    def __init__(self, seed: str) -> None:
        """Raises SeedInvalid, without echoing the seed, unless it is 55 letters a-z."""
        if len(seed) != SEED_LETTERS or not set(seed) <= set(string.ascii_lowercase):
            raise SeedInvalid(f"a seed is {SEED_LETTERS} lower-case letters a-z; this one is not")
        self._subseed = schnorrq.subseed(seed)
        self._public_key = QubicId(_signatures().public_key(schnorrq.private_key(self._subseed)))

    def __repr__(self) -> str:
        return f"Wallet({self.identity})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a wallet is not copied or pickled: its secret stays in this process")

    @property
    def public_key(self) -> QubicId:
        return self._public_key

    @property
    def identity(self) -> str:
        return identity_of(self._public_key)

    def sign(self, digest: bytes) -> bytes:
        """SchnorrQ signature, 64 bytes, of a 32-byte digest. Deterministic."""
        digest = _sized("digest", digest, DIGEST_BYTES)
        return _signatures().sign(self._subseed, self._public_key, digest)


def _letters(value: int, count: int) -> str:
    letters = []
    for _ in range(count):
        value, digit = divmod(value, _ALPHABET)
        letters.append(chr(ord("A") + digit))
    return "".join(letters)


def _checksum(public_key: bytes) -> str:
    return _letters(int.from_bytes(k12(public_key, 3), "little") & _CHECKSUM_MASK, _CHECKSUM_LETTERS)


def identity_of(public_key: bytes) -> str:
    """The 60 upper-case letters people see: 4 x 14 of the key's u64s, 4 of checksum."""
    words = struct.unpack("<4Q", _sized("public key", public_key, KEY_BYTES))
    return "".join(_letters(word, _WORD_LETTERS) for word in words) + _checksum(public_key)


def parse_identity(identity: str) -> QubicId:
    """The public key behind an identity. Raises UsageError if a letter was mistyped."""
    if len(identity) != IDENTITY_LETTERS or not set(identity) <= set(string.ascii_uppercase):
        # Not echoed: what was pasted here by mistake may be a seed.
        raise UsageError(f"a Qubic identity is {IDENTITY_LETTERS} upper-case letters A-Z; this is none")
    words = []
    for start in range(0, 4 * _WORD_LETTERS, _WORD_LETTERS):
        word = 0
        for letter in reversed(identity[start : start + _WORD_LETTERS]):
            word = word * _ALPHABET + ord(letter) - ord("A")
        words.append(word)
    # 26**14 exceeds 2**64 a little: such words name no key.
    public_key = struct.pack("<4Q", *words) if all(word < 1 << 64 for word in words) else b""
    if not public_key or _checksum(public_key) != identity[-_CHECKSUM_LETTERS:]:
        raise UsageError(f"the identity {identity} has a wrong letter: its checksum does not fit")
    return QubicId(public_key)


def contract_id(contract_index: int) -> QubicId:
    """The address of a contract: its index as u64, then 24 zero bytes."""
    return QubicId(struct.pack("<Q24x", contract_index))


@dataclass(frozen=True)
class Transaction:
    """A parsed transaction; the signature has not been checked."""

    source: QubicId
    destination: QubicId
    amount: Qu
    tick: Tick
    input_type: int
    payload: bytes
    signature: bytes


def sign_transaction(
    wallet: Wallet, destination: QubicId, amount: Qu, tick: Tick, input_type: int = 0, payload: bytes = b""
) -> bytes:
    """The bytes of a signed transaction: source 32, destination 32, amount i64, tick u32,
    input type u16, input size u16, input, signature 64 over K12 of all before it."""
    if not 0 <= amount <= MAX_QU or len(payload) > MAX_INPUT_BYTES:
        raise ValueError(f"a transaction carries 0..{MAX_QU} QU and at most {MAX_INPUT_BYTES} bytes")
    head = _HEAD.pack(
        wallet.public_key,
        _sized("destination", destination, KEY_BYTES),
        amount,
        tick,
        input_type,
        len(payload),
    )
    return head + payload + wallet.sign(k12(head + payload))


def parse_transaction(raw: bytes) -> Transaction:
    """Raises MessageInvalid unless sizes and amount are what the network takes."""
    if not MIN_TRANSACTION_BYTES <= len(raw) <= MAX_TRANSACTION_BYTES:
        raise MessageInvalid(f"a transaction cannot have {len(raw)} bytes")
    source, destination, amount, tick, input_type, size = _HEAD.unpack_from(raw)
    if len(raw) != MIN_TRANSACTION_BYTES + size:
        raise MessageInvalid("a transaction's length does not fit its input size")
    if not 0 <= amount <= MAX_QU:
        raise MessageInvalid(f"a transaction cannot carry {amount} QU")
    payload, signature = raw[_HEAD.size : -SIGNATURE_BYTES], raw[-SIGNATURE_BYTES:]
    return Transaction(
        QubicId(source), QubicId(destination), Qu(amount), Tick(tick), input_type, payload, signature
    )


def signature_valid(raw: bytes) -> bool:
    """Whether a transaction of valid length is signed by its source."""
    return verify(QubicId(raw[:KEY_BYTES]), k12(raw[:-SIGNATURE_BYTES]), raw[-SIGNATURE_BYTES:])


def transaction_digest(raw: bytes) -> bytes:
    """What a tick's data lists: K12 of the whole transaction, 32 bytes."""
    return k12(raw)


def transaction_hash(raw: bytes) -> str:
    """What explorers show: the digest as a lower-case identity."""
    return identity_of(transaction_digest(raw)).lower()
