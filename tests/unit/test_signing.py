"""The envelope: what it accepts, what it refuses, and that it has one spelling only."""

from __future__ import annotations

from typing import Any

import msgpack
import nacl.signing
import pytest

from protocol import messages
from protocol.errors import MessageInvalid, MessageTooLarge, SignatureInvalid
from protocol.messages import MAX_MESSAGE_BYTES, Ack, JobOrder, Stop
from protocol.signing import DOMAIN, ENVELOPE_OVERHEAD_BYTES, NodeKey, seal_for, verify
from protocol.units import LeaseId, PeerKey
from tests.support.values import sample

KEY = NodeKey(b"k" * 32)
STOP = Stop(LeaseId(bytes(32)), "why")


def envelope(*parts: Any) -> bytes:
    packed: bytes = msgpack.packb(list(parts))
    return packed


def signature_of(payload: bytes, domain: bytes = DOMAIN) -> bytes:
    return bytes(nacl.signing.SigningKey(b"k" * 32).sign(domain + payload).signature)


def test_what_is_signed_is_verified() -> None:
    raw = KEY.sign(STOP)
    signed = verify(raw)
    assert (signed.signer, signed.message, signed.raw) == (KEY.public, STOP, raw)


def test_the_key_does_not_print_its_seed() -> None:
    assert (b"k" * 32).hex() not in repr(KEY)
    assert "kkkk" not in repr(KEY)


def test_every_flipped_bit_is_noticed() -> None:
    raw = KEY.sign(STOP)
    for position in range(len(raw) * 8):
        bad = bytearray(raw)
        bad[position // 8] ^= 1 << position % 8
        with pytest.raises((MessageInvalid, SignatureInvalid)):
            verify(bytes(bad))


PAYLOAD = messages.encode(STOP)
GOOD = (1, KEY.public, PAYLOAD, signature_of(PAYLOAD))


@pytest.mark.parametrize(
    ("raw", "error", "words"),
    [
        (b"", MessageInvalid, "not well-formed"),
        (b"\xc1", MessageInvalid, "not well-formed"),
        (envelope(*GOOD) + b"\x00", MessageInvalid, "not well-formed"),
        (envelope(), MessageInvalid, "an envelope is"),
        (envelope(*GOOD[:3]), MessageInvalid, "an envelope is"),
        (envelope(*GOOD, 0), MessageInvalid, "an envelope is"),
        (envelope(2, *GOOD[1:]), MessageInvalid, "version 2 is not understood; this node speaks 1"),
        (envelope(True, *GOOD[1:]), MessageInvalid, "an envelope is"),
        (envelope(1.0, *GOOD[1:]), MessageInvalid, "an envelope is"),
        (envelope(1, KEY.public[:31], *GOOD[2:]), MessageInvalid, "an envelope is"),
        (envelope(*GOOD[:3], GOOD[3][:63]), MessageInvalid, "an envelope is"),
        (envelope(*GOOD[:2], "text", GOOD[3]), MessageInvalid, "an envelope is"),
        (b"\xdc\x00\x04" + envelope(*GOOD)[1:], MessageInvalid, "one spelling"),
        (b"\x94\xcc\x01" + envelope(*GOOD)[2:], MessageInvalid, "one spelling"),
        (envelope(1, bytes(32), *GOOD[2:]), SignatureInvalid, "does not match"),
        (envelope(1, NodeKey(b"x" * 32).public, *GOOD[2:]), SignatureInvalid, "does not match"),
        (envelope(*GOOD[:3], bytes(64)), SignatureInvalid, "does not match"),
        (envelope(*GOOD[:3], signature_of(PAYLOAD, b"")), SignatureInvalid, "does not match"),
        (envelope(*GOOD[:3], signature_of(PAYLOAD, b"qubix/2\0")), SignatureInvalid, "does not match"),
        (envelope(*GOOD[:2], b"\x00", signature_of(b"\x00")), MessageInvalid, "not a pair"),
    ],
)
def test_bad_envelopes_are_refused_in_words(raw: bytes, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        verify(raw)


def test_size_is_looked_at_first() -> None:
    raw = KEY.sign(STOP)
    assert verify(raw, len(raw)).message == STOP
    with pytest.raises(MessageTooLarge, match=f"an envelope of {len(raw)} bytes; at most {len(raw) - 1}"):
        verify(raw, len(raw) - 1)
    with pytest.raises(MessageTooLarge):
        verify(bytes(MAX_MESSAGE_BYTES + 1))


@pytest.mark.parametrize("message", [Ack(), STOP, sample(JobOrder)])
def test_an_envelope_adds_no_more_than_announced(message: object) -> None:
    assert len(KEY.sign(message)) - len(messages.encode(message)) <= ENVELOPE_OVERHEAD_BYTES


# --- sealed boxes ---------------------------------------------------------------------------------


def test_what_is_sealed_opens_for_its_node_alone() -> None:
    sealed = seal_for(KEY.public, b"sesame")
    assert KEY.open_sealed(sealed) == b"sesame" and b"sesame" not in sealed
    assert len(sealed) == len(b"sesame") + 48
    assert seal_for(KEY.public, b"sesame") != sealed, "nobody sees that it is the same"
    for wrong in (sealed[:-1], sealed[:-1] + bytes([sealed[-1] ^ 1]), b"", b"x" * 100):
        with pytest.raises(MessageInvalid, match="not sealed for this node"):
            KEY.open_sealed(wrong)
    with pytest.raises(MessageInvalid, match="not sealed for this node"):
        NodeKey(b"o" * 32).open_sealed(sealed)


@pytest.mark.parametrize("key", [bytes(32), b"\xff" * 32, b"\x01" + bytes(31)])
def test_nothing_is_sealed_for_what_is_no_key(key: bytes) -> None:
    with pytest.raises(MessageInvalid, match="no node with such a key"):
        seal_for(PeerKey(key), b"sesame")
