"""The envelope: who said these exact bytes.

Layout: msgpack `[1, signer (32), payload, signature (64)]`, where the signature is Ed25519 by the
signer's node key over the ASCII bytes "qubix/1\\0" followed by the payload. The payload holds the kind
number, so one kind's signature never passes for another's. Verification comes before decoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgpack
import nacl.exceptions
import nacl.public
import nacl.signing

from protocol import messages
from protocol.codec import unpack
from protocol.errors import MessageInvalid, MessageTooLarge, SignatureInvalid
from protocol.units import PeerKey

VERSION: Final = 1
DOMAIN: Final = b"qubix/1\0"
ENVELOPE_OVERHEAD_BYTES: Final = 128
"""More than the envelope adds to a payload (107 bytes at most)."""


class NodeKey:
    """A node's Ed25519 signing key; never prints its seed."""

    def __init__(self, seed: bytes) -> None:
        self._key = nacl.signing.SigningKey(seed)
        self.public: PeerKey = PeerKey(bytes(self._key.verify_key))

    def __repr__(self) -> str:
        return f"NodeKey({self.public.hex()[:16]}...)"

    def sign(self, message: object) -> bytes:
        """The envelope of a message of the table."""
        payload = messages.encode(message)
        signature = self._key.sign(DOMAIN + payload).signature
        return _pack(self.public, payload, signature)

    def open_sealed(self, sealed: bytes) -> bytes:
        """What was sealed for this node with `seal_for`. MessageInvalid if it was not."""
        box = nacl.public.SealedBox(self._key.to_curve25519_private_key())
        try:
            return bytes(box.decrypt(sealed))
        except nacl.exceptions.CryptoError as error:
            raise MessageInvalid("this was not sealed for this node") from error


def seal_for(peer: PeerKey, data: bytes) -> bytes:
    """`data` for the eyes of one node: a NaCl sealed box (48 bytes longer) for the Curve25519 form of its
    Ed25519 key. Sealed again it looks different. MessageInvalid if the key is none."""
    try:
        public = nacl.signing.VerifyKey(peer).to_curve25519_public_key()
    except (nacl.exceptions.CryptoError, nacl.exceptions.ValueError) as error:
        raise MessageInvalid("there is no node with such a key") from error
    return bytes(nacl.public.SealedBox(public).encrypt(data))


@dataclass(frozen=True)
class Signed:
    """A verified envelope: `raw` are its exact bytes, `message` the decoded payload."""

    signer: PeerKey
    message: Any
    raw: bytes


def verify(raw: bytes, max_bytes: int = messages.MAX_MESSAGE_BYTES) -> Signed:
    """Check size, shape and signature, then decode. MessageTooLarge, MessageInvalid, SignatureInvalid."""
    if len(raw) > max_bytes:
        raise MessageTooLarge(f"an envelope of {len(raw)} bytes; at most {max_bytes} are taken")
    signer, payload, signature = _parts(unpack(raw, "envelope"))
    if _pack(signer, payload, signature) != raw:
        raise MessageInvalid(
            "an envelope must be packed in the shortest way, so that it has one spelling only"
        )
    try:
        nacl.signing.VerifyKey(signer).verify(DOMAIN + payload, signature)
    except (nacl.exceptions.BadSignatureError, nacl.exceptions.ValueError) as error:
        raise SignatureInvalid("an envelope's signature does not match its bytes") from error
    return Signed(PeerKey(signer), messages.decode(payload, max_bytes), raw)


def opened(raw: bytes) -> Signed:
    """What is in an envelope that `verify` has let pass before; its signature is not checked again."""
    signer, payload, _ = _parts(unpack(raw, "envelope"))
    return Signed(PeerKey(signer), messages.decode(payload, len(payload)), raw)


def signer_of(raw: bytes) -> bytes:
    """Whom an envelope names as its signer, unchecked; of anything else some bytes or none."""
    return raw[4:36]


def _pack(signer: bytes, payload: bytes, signature: bytes) -> bytes:
    packed: bytes = msgpack.packb([VERSION, signer, payload, signature])
    return packed


def _parts(parts: object) -> tuple[bytes, bytes, bytes]:
    match parts:
        case [int(version), bytes(signer), bytes(payload), bytes(signature)] if (
            version == VERSION and version is not True and len(signer) == 32 and len(signature) == 64
        ):
            return signer, payload, signature
        case [int(version), *_] if version != VERSION:
            raise MessageInvalid(f"envelope version {version} is not understood; this node speaks {VERSION}")
        case _:
            raise MessageInvalid("an envelope is [version, signer, payload, signature]")
