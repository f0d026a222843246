"""Keys, identities, signatures and transactions against known vectors and against tampering."""

from __future__ import annotations

import pickle
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escrow_bridge import qubic
from protocol.errors import MessageInvalid, SeedInvalid, UsageError
from protocol.units import MAX_QU, Qu, QubicId, Tick

SEED = "a" * 49 + "abcdef"
IDENTITY = "IOYHVSECLUDVZGNVUXGUTRMTDOEACPUNHYUZQBMCPEUGBBQDYRBRDHNGHUAN"
PUBLIC_KEY = bytes.fromhex("fcf5280bfe7ac8f03700a3ab26900406d07eccedb2e8b89d5c9bee9b9a7a2de0")


def test_k12_matches_the_rfc() -> None:
    # RFC 9861, section 5: KT128(M=empty, C=empty, 32) and KT128(M=ptn(17), C=empty, 32).
    empty = "1ac2d450fc3b4205d19da7bfca1b37513c0803577ac7167f06fe2ce1f0ef39e5"
    seventeen = "6bf75fa2239198db4772e36478f8e19b0f371205f6a9a93a273f51df37122888"
    assert qubic.k12(b"").hex() == empty
    assert qubic.k12(bytes(range(17))).hex() == seventeen


def test_known_seed_gives_known_key_and_identity() -> None:
    wallet = qubic.Wallet(SEED)
    assert wallet.public_key == PUBLIC_KEY
    assert wallet.identity == IDENTITY
    assert qubic.parse_identity(IDENTITY) == PUBLIC_KEY


@pytest.mark.parametrize("seed", ["", "a" * 54, "a" * 56, "A" * 55, "a" * 54 + "1", "é" * 55])
def test_wrong_seed_is_refused_without_being_shown(seed: str) -> None:
    with pytest.raises(SeedInvalid) as caught:
        qubic.Wallet(seed)
    assert not seed or seed not in str(caught.value)


def test_wallet_shows_no_secret() -> None:
    wallet = qubic.Wallet(SEED)
    assert f"{wallet!r} {wallet}" == f"Wallet({IDENTITY}) Wallet({IDENTITY})"
    with pytest.raises(TypeError):
        pickle.dumps(wallet)


def test_generated_seeds_are_valid_and_differ() -> None:
    seeds = {qubic.generate_seed() for _ in range(20)}
    assert len({qubic.Wallet(seed).public_key for seed in seeds}) == 20


@given(st.binary(min_size=32, max_size=32))
def test_identity_round_trip(public_key: bytes) -> None:
    assert qubic.parse_identity(qubic.identity_of(public_key)) == public_key


@given(st.integers(0, 59), st.sampled_from(string.ascii_uppercase))
def test_one_wrong_letter_is_found(position: int, letter: str) -> None:
    changed = IDENTITY[:position] + letter + IDENTITY[position + 1 :]
    if changed != IDENTITY:
        with pytest.raises(UsageError):
            qubic.parse_identity(changed)


@pytest.mark.parametrize("text", ["", IDENTITY[:-1], IDENTITY.lower(), "Z" * 60])
def test_what_is_no_identity_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        qubic.parse_identity(text)


def test_signature_holds_for_one_digest_and_one_key_only() -> None:
    wallet, other = qubic.Wallet(SEED), qubic.Wallet("b" * 55)
    digest = qubic.k12(b"message")
    signature = wallet.sign(digest)
    assert signature == wallet.sign(digest)
    assert qubic.verify(wallet.public_key, digest, signature)
    assert not qubic.verify(wallet.public_key, qubic.k12(b"massage"), signature)
    assert not qubic.verify(other.public_key, digest, signature)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 511))
def test_any_flipped_signature_bit_fails(bit: int) -> None:
    wallet, digest = qubic.Wallet(SEED), qubic.k12(b"message")
    signature = bytearray(wallet.sign(digest))
    signature[bit // 8] ^= 1 << bit % 8
    assert not qubic.verify(wallet.public_key, digest, bytes(signature))


@pytest.mark.parametrize("size", [0, 31, 33, 63, 65])
def test_wrong_sizes_never_reach_the_native_library(size: int) -> None:
    wallet = qubic.Wallet(SEED)
    with pytest.raises(ValueError, match="must have"):
        wallet.sign(bytes(size))
    with pytest.raises(ValueError, match="must have"):
        qubic.verify(wallet.public_key, bytes(32), bytes(size))
    with pytest.raises(ValueError, match="must have"):
        qubic.verify(QubicId(bytes(size)), bytes(32), bytes(64))


def test_transaction_round_trip_and_layout() -> None:
    wallet = qubic.Wallet(SEED)
    raw = qubic.sign_transaction(wallet, qubic.contract_id(28), Qu(7), Tick(0x01020304), 5, b"input")
    amount, tick, kind_and_size = b"\x07" + bytes(7), b"\x04\x03\x02\x01", b"\x05\x00\x05\x00"
    assert raw[:80] == PUBLIC_KEY + b"\x1c" + bytes(31) + amount + tick + kind_and_size
    parsed = qubic.parse_transaction(raw)
    assert (parsed.source, parsed.amount, parsed.tick) == (PUBLIC_KEY, 7, 0x01020304)
    assert (parsed.input_type, parsed.payload, parsed.signature) == (5, b"input", raw[-64:])
    assert qubic.signature_valid(raw)
    assert qubic.transaction_hash(raw) == qubic.identity_of(qubic.k12(raw)).lower()


def test_any_change_breaks_a_transaction() -> None:
    raw = qubic.sign_transaction(qubic.Wallet(SEED), qubic.contract_id(1), Qu(7), Tick(9), 1, b"x")
    for position in (0, 40, 64, 72, 76, 80):
        changed = bytearray(raw)
        changed[position] ^= 1
        assert not qubic.signature_valid(bytes(changed))


@pytest.mark.parametrize("cut", [b"", bytes(143), bytes(1169)])
def test_impossible_lengths_are_refused(cut: bytes) -> None:
    with pytest.raises(MessageInvalid):
        qubic.parse_transaction(cut)


def test_wrong_input_size_and_amount_are_refused() -> None:
    raw = bytearray(qubic.sign_transaction(qubic.Wallet(SEED), qubic.contract_id(1), Qu(7), Tick(9), 1, b"x"))
    with pytest.raises(MessageInvalid, match="length"):
        qubic.parse_transaction(bytes(raw) + b"y")
    raw[64:72] = (-1).to_bytes(8, "little", signed=True)
    with pytest.raises(MessageInvalid, match="QU"):
        qubic.parse_transaction(bytes(raw))


@pytest.mark.parametrize(("amount", "size"), [(-1, 0), (MAX_QU + 1, 0), (0, 1025)])
def test_what_the_network_would_drop_is_not_built(amount: int, size: int) -> None:
    with pytest.raises(ValueError, match="carries"):
        qubic.sign_transaction(
            qubic.Wallet(SEED), qubic.contract_id(1), Qu(amount), Tick(9), payload=bytes(size)
        )
