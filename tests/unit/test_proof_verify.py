"""The verifier against bytes that no honest program sends, and its arithmetic by hand. No program runs."""

from __future__ import annotations

import hashlib
import random
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qubixd.proof import field, frames
from qubixd.proof.frames import Identity, Malformed, Reader
from qubixd.proof.plan import Plan
from qubixd.proof.verify import (
    MALFORMED,
    NO_ANSWER,
    TOO_FEW,
    TOO_SLOW,
    WRONG_GPU,
    Proof,
    Verifier,
    uuid_digests,
)
from tests.support.proof_programs import small

GIB = 1 << 30
READY = struct.pack("<16sQ64s", bytes(16), 0, b"CPU")


def started(plan: Plan | None = None) -> Verifier:
    verifier = Verifier(plan or small(), random.Random(1).randbytes)
    verifier.begin(0.0)
    return verifier


def told(verifier: Verifier, *said: bytes) -> Proof | None:
    for one in said:
        verifier.receive(one, 0.0)
    return verifier.proof


def ready_and_pinged(verifier: Verifier) -> None:
    """Through the untimed part, up to the question for the product."""
    out = verifier.receive(frames.frame(frames.READY, READY), 0.0)
    while out[4:8] == struct.pack("<I", frames.PING):
        out = verifier.receive(frames.frame(frames.PONG, out[8:]), 0.0)
    assert out[4:8] == struct.pack("<I", frames.BEGIN)


# --- what hostile answerers send ------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=8, max_size=300))
def test_garbage_never_passes_and_never_breaks_it(garbage: bytes) -> None:
    verifier = started()
    verifier.receive(garbage, 0.0)
    verifier.closed()
    assert verifier.proof is not None and not verifier.proof.ok


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.binary(max_size=64))
def test_garbage_after_a_good_beginning_neither(pieces: list[bytes], last: bytes) -> None:
    verifier = started()
    ready_and_pinged(verifier)
    told(verifier, *pieces, last)
    verifier.closed()
    assert verifier.proof is not None and not verifier.proof.ok


def test_a_huge_frame_is_refused_at_its_header() -> None:
    verifier = started()
    verifier.receive(struct.pack("<II", 0xFFFFFFFF, frames.READY), 0.0)
    assert verifier.proof is not None and verifier.proof.code == MALFORMED


def test_a_huge_description_of_devices_is_refused() -> None:
    verifier = started()
    verifier.receive(frames.frame(frames.READY, READY * 50), 0.0)
    assert verifier.proof is not None and verifier.proof.code == MALFORMED


def test_what_comes_after_the_verdict_is_not_kept() -> None:
    verifier = started()
    verifier.receive(b"x" * 8, 0.0)
    assert verifier.proof is not None
    for _ in range(100):
        verifier.receive(b"y" * 65_536, 0.0)
    assert verifier._reader.waiting <= 8


@pytest.mark.parametrize("size", [0, 1, 87, 89])
def test_devices_described_otherwise_are_malformed(size: int) -> None:
    proof = told(started(), frames.frame(frames.READY, bytes(size)))
    assert proof is not None and proof.code in (MALFORMED, TOO_FEW)


def test_another_number_than_the_pinged_one_is_malformed() -> None:
    verifier = started()
    verifier.receive(frames.frame(frames.READY, READY), 0.0)
    proof = told(verifier, frames.frame(frames.PONG, bytes(8)))
    assert proof is not None and proof.code == MALFORMED


def test_an_answer_of_another_size_is_malformed() -> None:
    verifier = started()
    ready_and_pinged(verifier)
    proof = told(verifier, frames.frame(frames.ROOTS, bytes(32 * 5)))
    assert proof is not None and proof.code == MALFORMED and "160 bytes" in proof.sentence


def test_a_program_that_cannot_go_on_says_why_and_nothing_unprintable() -> None:
    proof = told(started(), frames.frame(frames.FAULT, b"no \x1b[31mmemory\n"))
    assert proof is not None and proof.code == NO_ANSWER
    assert proof.sentence.endswith("no [31mmemory")


def test_a_fault_without_end_is_malformed() -> None:
    proof = told(started(), frames.frame(frames.FAULT, bytes(frames.MAX_FAULT + 1)))
    assert proof is not None and proof.code == MALFORMED


def test_an_early_end_is_no_answer() -> None:
    verifier = started()
    ready_and_pinged(verifier)
    verifier.closed()
    assert verifier.proof is not None and verifier.proof.code == NO_ANSWER


def test_silence_is_no_answer_before_the_question_and_too_slow_after() -> None:
    verifier = started()
    assert verifier.deadline == small().prepare_s
    verifier.expired()
    assert verifier.proof is not None and verifier.proof.code == NO_ANSWER
    verifier = started()
    ready_and_pinged(verifier)
    assert verifier.deadline == small().work_s
    verifier.expired()
    assert verifier.proof is not None and verifier.proof.code == TOO_SLOW


def test_a_late_answer_is_too_slow_however_right() -> None:
    verifier = started()
    ready_and_pinged(verifier)
    verifier.receive(frames.frame(frames.ROOTS, bytes(32 * 4)), 10.01)
    assert verifier.proof is not None and verifier.proof.code == TOO_SLOW


def test_the_first_verdict_stays() -> None:
    verifier = started()
    verifier.closed()
    verifier.expired()
    assert verifier.proof is not None and verifier.proof.code == NO_ANSWER


# --- devices ---------------------------------------------------------------------------------------


def gpus(*devices: Identity, least: int = 0, number: int = 2) -> str:
    verifier = started(replace(small(number), least_memory=least))
    body = b"".join(struct.pack("<16sQ64s", one.uuid, one.memory, one.name.encode()) for one in devices)
    verifier.receive(frames.frame(frames.READY, body), 0.0)
    return verifier.proof.code if verifier.proof else ""


def card(number: int, memory: int = 24 * GIB) -> Identity:
    return Identity(bytes([number]) * 16, memory, "NVIDIA GeForce RTX 4090")


def test_the_rented_cards_go_on() -> None:
    assert gpus(card(1), card(2)) == ""
    assert gpus(card(2), card(1)) == ""


def test_cards_that_are_not_what_was_rented() -> None:
    assert gpus(card(1)) == TOO_FEW
    assert gpus(card(1), card(1)) == TOO_FEW
    assert gpus(card(1), card(3)) == WRONG_GPU
    assert gpus(card(1), card(2, 16 * GIB), least=20 * GIB) == WRONG_GPU


def test_a_uuid_is_the_one_that_leases_name() -> None:
    uuid = bytes.fromhex("0123456789abcdef0123456789abcdef")
    gpu, mig = uuid_digests(uuid)
    assert gpu == hashlib.sha256(b"GPU-01234567-89ab-cdef-0123-456789abcdef").digest()
    assert mig == hashlib.sha256(b"MIG-01234567-89ab-cdef-0123-456789abcdef").digest()


# --- frames and arithmetic ----------------------------------------------------------------------------


@given(st.lists(st.integers(1, 9), max_size=20), st.integers(0, 2**32))
def test_frames_come_whole_however_they_are_cut(cuts: list[int], seed: int) -> None:
    bodies = [random.Random(seed + at).randbytes(at * 3) for at in range(4)]
    whole = b"".join(frames.frame(frames.LIST, body) for body in bodies)
    reader, seen, wanted = Reader(), [], list(bodies)
    while whole:
        cut = cuts.pop() if cuts else len(whole)
        reader.feed(whole[:cut])
        whole = whole[cut:]
        while wanted and (body := reader.next(frames.LIST, len(wanted[0]))) is not None:
            seen.append(body)
            wanted.pop(0)
    assert seen == bodies


def test_a_frame_of_another_kind_is_malformed() -> None:
    reader = Reader()
    reader.feed(frames.frame(frames.LIST, b""))
    with pytest.raises(Malformed, match="kind 134 where one of kind 131"):
        reader.next(frames.ROOTS, 0)


def test_a_stream_is_sha_256_of_key_tag_row_and_block() -> None:
    key = bytes(range(32))
    second = hashlib.sha256(key + struct.pack(">III", 2, 7, 1)).digest()
    assert field.stream(key, 2, 7, 64)[32:] == second


def test_a_draw_is_below_the_prime_s_power_of_two_and_big_endian() -> None:
    key = bytes(32)
    first = int.from_bytes(field.stream(key, field.TAG_R, 0, 32)[:4], "big")
    r = field.draw(key, 256)
    assert r[0] == first & 0x7FFFFFFF and len(r) == 256 and all(0 <= value < 2**31 for value in r)


@given(st.lists(st.integers(-(2**28), 2**28), min_size=1, max_size=40))
def test_what_is_kept_is_the_second_byte(c: list[int]) -> None:
    kept = list(field.kept(c))
    assert [value & 255 for value in kept] == [(number >> 8) & 255 for number in c]
    assert all(-128 <= value <= 127 for value in kept)


def test_a_tree_of_eight_leaves() -> None:
    leaves = [hashlib.sha256(bytes([at])).digest() for at in range(8)]
    levels = [leaves]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([hashlib.sha256(below[at] + below[at + 1]).digest() for at in range(0, len(below), 2)])
    for index, leaf in enumerate(leaves):
        path = [levels[depth][(index >> depth) ^ 1] for depth in range(3)]
        assert field.root_of(leaf, index, path) == levels[3][0]
        assert field.root_of(leaf, index ^ 1, path) != levels[3][0]


def test_a_wrong_row_passes_freivalds_with_a_chance_of_one_in_the_prime() -> None:
    """The sum is linear: a row that differs in two places fits exactly those r that the difference hides."""
    right, r = [5] * 256, field.draw(bytes(32), 256)
    wrong = [6, 4, *right[2:]]
    assert (field.dot(wrong, r) == field.dot(right, r)) == ((r[0] - r[1]) % field.PRIME == 0)
