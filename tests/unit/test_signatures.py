"""One suite for both implementations of SchnorrQ: known bytes, and everything that must be refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from escrow_bridge import fourq, qubic, schnorrq
from protocol.units import QubicId
from tests.support.signatures import IMPLEMENTATIONS, choose_anew, signing_with

SEED = "a" * 49 + "abcdef"
IDENTITY = "IOYHVSECLUDVZGNVUXGUTRMTDOEACPUNHYUZQBMCPEUGBBQDYRBRDHNGHUAN"
KEY = QubicId(bytes.fromhex("fcf5280bfe7ac8f03700a3ab26900406d07eccedb2e8b89d5c9bee9b9a7a2de0"))
DIGEST = qubic.k12(b"message")
SIGNED = {
    # seed -> signature of DIGEST, as QubiPy 0.4.1 makes it
    SEED: "ee38ac7f480fd9bb0e54783f3eb83954198f2a05c95f6ebdf4134b34f50f644f"
    "0cb09ddad2a731adae92efadf22bd958d05657d972ff7c7eea5d5b0d3a9b1900",
    "z" * 55: "3180f89c897bf93ea84d4b8cfb090e05c329109abc4f0aa31bcb2252b6c9dfef"
    "439ada24bfecb7e96c821407c7f3cdcd7d9e3d67273f2ca05959341a347e1f00",
    "qubix" * 11: "65b3218b8b343cfd2d1e03795b9402627123a398602b318b8963a03721437650"
    "e57a64b2bf110ccf9d9da6241e78274dc09ce4e2298aaae84a0361c907092100",
}


@pytest.fixture(params=IMPLEMENTATIONS, autouse=True)
def implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    with signing_with(request.param):
        yield request.param


def answer_of(signature: bytes) -> int:
    return int.from_bytes(signature[32:], "little")


def with_answer(signature: bytes, answer: int) -> bytes:
    return signature[:32] + answer.to_bytes(32, "little")


def test_the_known_seed_gives_the_known_key_and_identity() -> None:
    wallet = qubic.Wallet(SEED)
    assert (wallet.public_key, wallet.identity) == (KEY, IDENTITY)


@pytest.mark.parametrize("seed", SIGNED)
def test_signatures_are_known_byte_for_byte_and_hold(seed: str) -> None:
    wallet = qubic.Wallet(seed)
    assert wallet.sign(DIGEST).hex() == SIGNED[seed]
    assert qubic.verify(wallet.public_key, DIGEST, wallet.sign(DIGEST))


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_a_change_of_any_byte_is_refused(flip: int) -> None:
    signature = bytes.fromhex(SIGNED[SEED])
    for position in range(32 + 32 + 64):
        changed = bytearray(KEY + DIGEST + signature)
        changed[position] ^= flip
        key, digest, rest = bytes(changed[:32]), bytes(changed[32:64]), bytes(changed[64:])
        assert not qubic.verify(QubicId(key), digest, rest), f"byte {position} ^ {flip:#x}"


def test_no_second_answer_is_valid() -> None:
    """answer + N solves the same equation: with it, one message would have two valid transactions."""
    wallet = qubic.Wallet(SEED)
    digests = (qubic.k12(bytes([number])) for number in range(256))
    small = next(digest for digest in digests if answer_of(wallet.sign(digest)) + fourq.N < 1 << 246)
    signature = wallet.sign(small)
    assert qubic.verify(KEY, small, signature)
    twin = with_answer(signature, answer_of(signature) + fourq.N)
    assert schnorrq.fits(KEY, small, twin)
    assert not qubic.verify(KEY, small, twin)


@pytest.mark.parametrize("answer", [0, 1, fourq.N - 1, fourq.N, fourq.N + 1, 1 << 246, (1 << 256) - 1])
def test_answers_at_the_edges_are_refused(answer: int) -> None:
    assert not qubic.verify(KEY, DIGEST, with_answer(bytes.fromhex(SIGNED[SEED]), answer))


@pytest.mark.parametrize("byte", [15, 31])
def test_the_two_spare_bits_of_a_point_are_not_ignored(byte: int) -> None:
    key, signature = bytearray(KEY), bytearray.fromhex(SIGNED[SEED])
    key[byte] ^= 0x80
    assert not qubic.verify(QubicId(bytes(key)), DIGEST, bytes(signature))
    signature[byte] ^= 0x80
    assert not qubic.verify(KEY, DIGEST, bytes(signature))


def weak_keys() -> Iterator[bytes]:
    """Every encoding of every point of order 1, 2 or 4, the null id and a contract's."""
    zero, p = 0, fourq.P
    for y0, y1 in ((1, zero), (1, p), (p - 1, zero), (p - 1, p), (zero, zero), (p, zero), (zero, p), (p, p)):
        for sign in (0, 1):
            yield (y0 | y1 << 128 | sign << 255).to_bytes(32, "little")
    yield bytes(32)
    yield qubic.contract_id(28)


@pytest.mark.parametrize("key", sorted(set(weak_keys())), ids=bytes.hex)
def test_nobody_signs_for_a_weak_key(key: bytes) -> None:
    """For these keys anyone finds valid answers: the challenge counts only by its last bits."""
    assert not schnorrq.may_sign(key)
    for nonce in range(1, 9):
        commitments = [fourq.encode(fourq.multiply_generator(nonce)), fourq.encode(fourq.IDENTITY), bytes(32)]
        for commitment in commitments:
            assert not qubic.verify(QubicId(key), DIGEST, with_answer(commitment + bytes(32), nonce))


def test_a_key_that_is_no_point_is_refused() -> None:
    heights = (number.to_bytes(32, "little") for number in range(1 << 64, (1 << 64) + 40))
    assert sum(fourq.decode(height) is None for height in heights) > 10
    bad = next(
        height
        for number in range(1 << 64, 1 << 65)
        if fourq.decode(height := number.to_bytes(32, "little")) is None
    )
    assert not qubic.verify(QubicId(bad), DIGEST, bytes.fromhex(SIGNED[SEED]))


@pytest.mark.parametrize("size", [0, 31, 33, 63, 65])
def test_wrong_sizes_are_the_callers_fault(size: int) -> None:
    wallet = qubic.Wallet(SEED)
    with pytest.raises(ValueError, match="must have"):
        wallet.sign(bytes(size))
    with pytest.raises(ValueError, match="must have"):
        qubic.verify(KEY, bytes(32), bytes(size))
    with pytest.raises(ValueError, match="must have"):
        qubic.verify(QubicId(bytes(size)), bytes(32), bytes(64))


def test_the_choice_is_what_the_test_says(implementation: str) -> None:
    assert (qubic.native() is None) == (implementation == "python")


@pytest.mark.parametrize("missing", ["package", "library"])
def test_without_the_native_library_it_goes_on_and_says_so_once(
    missing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(qubic.PURE_VARIABLE)
    if missing == "package":
        monkeypatch.setitem(sys.modules, "qubipy.crypto.utils", None)
    else:
        # As on Linux on Arm: the package is there, but no such library loads.
        monkeypatch.delitem(sys.modules, "qubipy.crypto.utils", raising=False)
        monkeypatch.setattr("ctypes.CDLL", no_library)
    choose_anew()
    with caplog.at_level("INFO", qubic.__name__):
        for seed, signature in SIGNED.items():
            assert qubic.Wallet(seed).sign(DIGEST).hex() == signature
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "slower" in caplog.text


def no_library(*arguments: object, **options: object) -> None:
    raise OSError("wrong machine type")
